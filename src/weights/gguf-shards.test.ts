import { copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { continuePlainly, goldenModel, loadEngine } from "../../test/support/engines.js";
import { type Description, describeGguf, type Entry, writeGguf } from "../../test/support/gguf-writer.js";
import { resolveSampling } from "../engine/sampling.js";
import { shardNames } from "./gguf-shards.js";
import { openModelSource } from "./open-model-source.js";

const whole = goldenModel("quant-q4_0");
let root: string;
let model: Description;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "outrider-shards-"));
  model = describeGguf(await readFile(whole));
});
afterAll(() => rm(root, { recursive: true }));

const nameOf = (index: number, count: number) =>
  `m-${String(index + 1).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.gguf`;

const split = (no: number, count: number, tensors: number): Entry[] => [
  { key: "split.no", type: "uint16", value: no },
  { key: "split.count", type: "uint16", value: count },
  { key: "split.tensors.count", type: "int32", value: tensors },
];

/** The shards of `model` as gguf-split writes them, tensors dealt out in turn; `change` may spoil one's description. */
async function shards(
  count: number,
  change: (shard: Description, index: number) => Description = (shard) => shard,
): Promise<string[]> {
  const folder = await mkdtemp(join(root, "m-"));
  return await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const shard = {
        metadata: [...(index === 0 ? model.metadata : []), ...split(index, count, model.tensors.length)],
        tensors: model.tensors.filter((_, i) => i % count === index),
      };
      const file = join(folder, nameOf(index, count));
      await writeFile(file, writeGguf(change(shard, index)).bytes);
      return file;
    }),
  );
}

async function answer(file: string) {
  await using engine = await loadEngine(file);
  using sequence = engine.open();
  await sequence.prefill([1, 5, 9]);
  return await continuePlainly(sequence, 7, resolveSampling({}, 280, 0), 12);
}

test("any shard opens all: the same tokens and log-probabilities as the whole file", async () => {
  const files = await shards(3);
  const expected = await answer(whole);
  for (const file of files) expect(await answer(file)).toEqual(expected);
  await using source = await openModelSource(files[1]!);
  expect(source.files).toEqual(files);
  expect(source.tensors.size).toBe(model.tensors.length);
  expect(source.metadata.get("general.architecture")).toBe("llama");
});

describe("shards that do not make a model", () => {
  test.each([0, 1, 2])("shard %i is missing", async (gone) => {
    const files = await shards(3);
    await rm(files[gone]!);
    await expect(openModelSource(files[(gone + 1) % 3]!)).rejects.toMatchObject({
      code: "ERR_MODEL_TRUNCATED",
      message: expect.stringContaining(nameOf(gone, 3)),
    });
  });

  test("one of them twice", async () => {
    const files = await shards(3);
    await copyFile(files[1]!, files[2]!);
    await expect(openModelSource(files[0]!)).rejects.toMatchObject({
      code: "ERR_MODEL_FORMAT",
      message: expect.stringContaining("this is file 2 of the model (split.no 1), the name says 3"),
    });
  });

  test.each<[string, (shard: Description, index: number) => Description, string]>([
    [
      "another number of files",
      (shard, i) => (i === 1 ? { ...shard, metadata: split(1, 4, model.tensors.length) } : shard),
      "split.count is 4",
    ],
    [
      "no split.no",
      (shard, i) => (i === 2 ? { ...shard, metadata: shard.metadata.slice(1) } : shard),
      "split.no is missing",
    ],
    [
      "the same tensor in two",
      (shard, i) => (i === 2 ? { ...shard, tensors: [model.tensors[0]!, ...shard.tensors.slice(1)] } : shard),
      "is in m-00001-of-00003.gguf too",
    ],
    [
      "a tensor left out",
      (shard, i) => (i === 2 ? { ...shard, tensors: shard.tensors.slice(1) } : shard),
      "split.tensors.count is",
    ],
    [
      "of another architecture",
      (shard, i) =>
        i === 1
          ? {
              ...shard,
              metadata: [...shard.metadata, { key: "general.architecture", type: "string", value: "qwen2" }],
            }
          : shard,
      'general.architecture is "qwen2"',
    ],
    [
      "split.count of a wrong type",
      (shard, i) =>
        i === 1 ? { ...shard, metadata: [{ key: "split.count", type: "string", value: "3" }] } : shard,
      "split.count is not a whole number",
    ],
  ])("%s", async (_, change, message) => {
    const files = await shards(3, change);
    await expect(openModelSource(files[0]!)).rejects.toMatchObject({
      code: "ERR_MODEL_FORMAT",
      message: expect.stringContaining(message),
    });
  });

  test("a shard under another name", async () => {
    const [first] = await shards(2);
    const renamed = join(root, "renamed.gguf");
    await copyFile(first!, renamed);
    await expect(openModelSource(renamed)).rejects.toMatchObject({
      code: "ERR_MODEL_FORMAT",
      message: expect.stringContaining("NAME-00001-of-00002.gguf"),
    });
  });

  test("a shard that is cut", async () => {
    const files = await shards(2);
    await writeFile(files[1]!, (await readFile(files[1]!)).subarray(0, -1));
    await expect(openModelSource(files[0]!)).rejects.toMatchObject({ code: "ERR_MODEL_TRUNCATED" });
  });
});

test("names of shards", () => {
  expect(shardNames("a-b-00002-of-00003.gguf")).toEqual([
    "a-b-00001-of-00003.gguf",
    "a-b-00002-of-00003.gguf",
    "a-b-00003-of-00003.gguf",
  ]);
  for (const name of [
    "a.gguf",
    "a-00004-of-00003.gguf",
    "a-00000-of-00003.gguf",
    "a-1-of-3.gguf",
    "a-00001-of-99999.gguf",
  ])
    expect(shardNames(name), name).toBeUndefined();
});
