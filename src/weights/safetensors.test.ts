import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { goldenModel } from "../../test/support/engines.js";
import { describeGguf } from "../../test/support/gguf-writer.js";
import { saveHuggingFace, toHuggingFace } from "../../test/support/hugging-face-folder.js";
import { type Header, joinSafetensors, writeSafetensors } from "../../test/support/safetensors-writer.js";
import { Seeded } from "../../test/support/seeded.js";
import { OutriderError } from "../errors.js";
import { planModel } from "../models/load.js";
import { openModelSource } from "./open-model-source.js";
import { openSafetensors, parseSafetensorsHeader } from "./safetensors.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "outrider-safetensors-"));
});
afterAll(() => rm(root, { recursive: true }));

const data = Buffer.from(Uint8Array.from({ length: 200 }, (_, i) => i));
const tensors = [
  { name: "a", dtype: "F32", shape: [2, 3], data: data.subarray(0, 24) },
  { name: "b", dtype: "BF16", shape: [5], data: data.subarray(24, 34) },
  { name: "empty", dtype: "F16", shape: [0, 4], data: data.subarray(34, 34) },
  { name: "scalar", dtype: "I64", shape: [], data: data.subarray(34, 42) },
];
const good = writeSafetensors(tensors);
let counter = 0;

async function refusal(bytes: Uint8Array): Promise<{ code: string; message: string }> {
  const path = join(root, `${counter++}.safetensors`);
  await writeFile(path, bytes);
  const error = await openSafetensors(path).then(
    async ({ file }) => {
      await file[Symbol.asyncDispose]();
      throw new Error("it should have been refused");
    },
    (e: OutriderError) => e,
  );
  expect(error).toBeInstanceOf(OutriderError);
  expect(error.message).toContain(path);
  return error;
}

test("a good file: what is in it, where", async () => {
  const path = join(root, "good.safetensors");
  await writeFile(path, good);
  const { file, tensors: found } = await openSafetensors(path);
  await using _ = file;
  expect([...found.keys()]).toEqual(["a", "b", "empty", "scalar"]);
  const { dtype, shape, offset, bytes } = found.get("b")!;
  expect({ dtype, shape, bytes }).toEqual({ dtype: "BF16", shape: [5], bytes: 10 });
  expect(good.subarray(offset, offset + bytes)).toEqual(tensors[1]!.data);
});

describe("files that are not what they say", () => {
  const header = (change: (header: Header) => unknown) => writeSafetensors(tensors, change);
  const entry = (name: string, value: object) =>
    header((h) => ({ ...h, [name]: { ...(h[name] as object), ...value } }));
  const length = (value: bigint) => {
    const bytes = Buffer.from(good);
    bytes.writeBigUInt64LE(value);
    return bytes;
  };

  test.each<[string, Uint8Array, string, string]>([
    ["nothing", Buffer.alloc(0), "ERR_MODEL_FORMAT", "0 bytes"],
    ["seven bytes", Buffer.alloc(7), "ERR_MODEL_FORMAT", "7 bytes"],
    ["a header of 2^63 bytes", length(2n ** 63n), "ERR_MODEL_LIMIT", "9223372036854775808 bytes"],
    ["of 2^64-1", length(2n ** 64n - 1n), "ERR_MODEL_LIMIT", "limit is 100000000"],
    ["of 100 MB", length(100_000_000n), "ERR_MODEL_TRUNCATED", "does not fit"],
    [
      "of one byte more than the file",
      length(BigInt(good.length - 7)),
      "ERR_MODEL_TRUNCATED",
      "does not fit",
    ],
    ["of no bytes", length(0n), "ERR_MODEL_FORMAT", "not JSON"],
    ["a GGUF file", Buffer.from("GGUF\u0003\0\0\0\0\0\0\0\0\0"), "ERR_MODEL_FORMAT", "GGUF"],
    [
      "a git-LFS pointer",
      Buffer.from("version https://git-lfs.github.com/spec/v1\n"),
      "ERR_MODEL_FORMAT",
      "git lfs pull",
    ],
    ["an error page", Buffer.from("<!DOCTYPE html><html>"), "ERR_MODEL_FORMAT", "HTML"],
    ["a header that is not JSON", joinSafetensors("{nonsense", data), "ERR_MODEL_FORMAT", "not JSON"],
    ["a list", joinSafetensors("[]", data), "ERR_MODEL_FORMAT", "not a JSON object"],
    ["null", joinSafetensors("null", data), "ERR_MODEL_FORMAT", "not a JSON object"],
    [
      "text that is not UTF-8",
      joinSafetensors("", Buffer.from([0x22])).fill(0xff, 8),
      "ERR_MODEL_FORMAT",
      "not JSON",
    ],
    ["brackets 100 000 deep", joinSafetensors("[".repeat(1e5), data), "ERR_MODEL_FORMAT", "not JSON"],
    ["an entry that is null", header((h) => ({ ...h, a: null })), "ERR_MODEL_FORMAT", 'tensor "a"'],
    ["an entry that is a number", header((h) => ({ ...h, a: 1 })), "ERR_MODEL_FORMAT", 'tensor "a"'],
    ["an empty name", header(({ a, ...h }) => ({ ...h, "": a })), "ERR_MODEL_FORMAT", "empty"],
    ["dtype unknown", entry("a", { dtype: "F128" }), "ERR_MODEL_FORMAT", '"F128" is not known'],
    ["dtype missing", entry("a", { dtype: undefined }), "ERR_MODEL_FORMAT", "dtype is missing"],
    ["dtype __proto__", entry("a", { dtype: "__proto__" }), "ERR_MODEL_FORMAT", "not known"],
    ["another dtype", entry("a", { dtype: "F16" }), "ERR_MODEL_FORMAT", "hold 24 bytes, F16 [2, 3] has 12"],
    ["another shape", entry("a", { shape: [2, 4] }), "ERR_MODEL_FORMAT", "has 32"],
    ["shape of fractions", entry("a", { shape: [1.5, 4] }), "ERR_MODEL_FORMAT", "shape"],
    ["shape negative", entry("a", { shape: [-2, -3] }), "ERR_MODEL_FORMAT", "shape"],
    ["shape a text", entry("a", { shape: "2,3" }), "ERR_MODEL_FORMAT", "shape"],
    ["shape over 2^53", entry("a", { shape: [2 ** 30, 2 ** 30] }), "ERR_MODEL_LIMIT", "2^53"],
    [
      "nine dimensions",
      entry("a", { shape: [1, 1, 1, 1, 1, 1, 1, 2, 3] }),
      "ERR_MODEL_LIMIT",
      "9 dimensions",
    ],
    ["offsets missing", entry("a", { data_offsets: undefined }), "ERR_MODEL_FORMAT", "data_offsets"],
    ["one offset", entry("a", { data_offsets: [0] }), "ERR_MODEL_FORMAT", "data_offsets"],
    ["offsets the wrong way round", entry("a", { data_offsets: [24, 0] }), "ERR_MODEL_FORMAT", "-24 bytes"],
    [
      "offsets of 2^60",
      entry("a", { data_offsets: [2 ** 60, 2 ** 60 + 24] }),
      "ERR_MODEL_FORMAT",
      "data_offsets",
    ],
    [
      "offsets past the end",
      entry("scalar", { data_offsets: [934, 942] }),
      "ERR_MODEL_TRUNCATED",
      "the file at",
    ],
    ["offsets that overlap", entry("b", { data_offsets: [20, 30] }), "ERR_MODEL_FORMAT", "overlap"],
    ["a hole", header(({ b: _, ...h }) => h), "ERR_MODEL_FORMAT", "10 bytes before"],
    ["bytes at the end", Buffer.concat([good, data]), "ERR_MODEL_FORMAT", "200 bytes at the end"],
    ["cut", good.subarray(0, -1), "ERR_MODEL_TRUNCATED", 'tensor "scalar"'],
  ])("%s", async (_, bytes, code, message) => {
    expect(await refusal(bytes)).toMatchObject({ code, message: expect.stringContaining(message) });
  });

  test("a name `__proto__` is a name like others", () => {
    const bytes = writeSafetensors([{ ...tensors[0]!, name: "x" }]);
    const text = bytes
      .subarray(8, 8 + Number(bytes.readBigUInt64LE()))
      .toString()
      .replace('"x"', '"__proto__"');
    const found = parseSafetensorsHeader(Buffer.from(text), 8 + Buffer.byteLength(text) + 24, "f");
    expect([...found.keys()]).toEqual(["__proto__"]);
    expect(({} as { dtype?: string }).dtype).toBeUndefined();
  });

  test("random bytes of a header changed: refused, or still whole", async () => {
    const random = new Seeded(12);
    const end = 8 + Number(good.readBigUInt64LE());
    let refused = 0;
    for (let i = 0; i < Number(process.env.OUTRIDER_FUZZ_CASES ?? 3000); i++) {
      const bytes = Buffer.from(good.subarray(8, end));
      for (let n = random.integer(1, 3); n > 0; n--)
        bytes[random.integer(0, bytes.length - 1)] = random.integer(0, 255);
      try {
        for (const { offset, bytes: size } of parseSafetensorsHeader(bytes, good.length, "f").values())
          expect(offset >= 8 && offset + size <= good.length).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(OutriderError);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(1000);
  });
});

describe("folders", () => {
  const model = async () => toHuggingFace(describeGguf(await readFile(goldenModel("llama-gqa-untied"))));
  const folderWith = async (files = 1) => {
    const folder = await mkdtemp(join(root, "f-"));
    await saveHuggingFace(folder, await model(), files);
    return folder;
  };
  const index = "model.safetensors.index.json";
  const editJson = async (path: string, change: (json: Record<string, unknown>) => unknown) =>
    writeFile(path, JSON.stringify(change(JSON.parse(await readFile(path, "utf8")))));
  const refused = (folder: string, code: string, message: string) =>
    expect(
      openModelSource(folder).then(async (source) => {
        await using _ = source;
        planModel(source);
      }),
    ).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });

  test.each<[string, (names: string[]) => string, string, string]>([
    ["a path upwards", () => "../../etc/passwd", "ERR_PATH", "../../etc/passwd"],
    ["a path upwards with the right ending", () => "../x.safetensors", "ERR_PATH", "same folder"],
    ["an absolute path", () => "/etc/x.safetensors", "ERR_PATH", "same folder"],
    ["a URL", () => "https://example.org/x.safetensors", "ERR_PATH", "same folder"],
    ["a drive", () => "C:\\x.safetensors", "ERR_PATH", "same folder"],
    ["a file of a folder", () => "sub/x.safetensors", "ERR_PATH", "same folder"],
    [
      "a missing shard",
      () => "model-00009-of-00009.safetensors",
      "ERR_MODEL_TRUNCATED",
      "model-00009-of-00009",
    ],
    ["the other shard", ([a]) => a!, "ERR_MODEL_FORMAT", "is not in"],
  ])("the index names %s", async (_, other, code, message) => {
    const folder = await folderWith(2);
    await editJson(join(folder, index), (json) => {
      const map = json.weight_map as Record<string, string>;
      const names = [...new Set(Object.values(map))].sort();
      const wrong = Object.keys(map).find((key) => map[key] === names[1])!;
      return { ...json, weight_map: { ...map, [wrong]: other(names) } };
    });
    await refused(folder, code, message);
  });

  test("one shard twice, under another name", async () => {
    const folder = await folderWith(2);
    await copyFile(
      join(folder, "model-00001-of-00002.safetensors"),
      join(folder, "model-00002-of-00002.safetensors"),
    );
    await refused(folder, "ERR_MODEL_FORMAT", "is not in");
  });

  test.each<[string, unknown, string]>([
    ["without weight_map", {}, "weight_map is missing"],
    ["with a list", { weight_map: ["a"] }, "weight_map is missing"],
    ["with numbers", { weight_map: { a: 1 } }, "not a file's name"],
    ["that is empty", { weight_map: {} }, "weight_map is empty"],
  ])("an index %s", async (_, json, message) => {
    const folder = await folderWith(2);
    await writeFile(join(folder, index), JSON.stringify(json));
    await refused(folder, "ERR_MODEL_FORMAT", message);
  });

  test.each<[string, (config: Record<string, unknown>) => unknown, string, string]>([
    [
      "of an unknown kind",
      (c) => ({ ...c, model_type: "mamba" }),
      "ERR_MODEL_UNSUPPORTED",
      '"mamba"; supported: llama',
    ],
    ["without a kind", ({ model_type: _, ...c }) => c, "ERR_MODEL_FORMAT", "model_type is missing"],
    [
      "quantised by others",
      (c) => ({ ...c, quantization_config: { quant_method: "gptq" } }),
      "ERR_MODEL_UNSUPPORTED",
      "gptq",
    ],
    [
      "with another activation",
      (c) => ({ ...c, hidden_act: "relu" }),
      "ERR_MODEL_UNSUPPORTED",
      'hidden_act is "relu"',
    ],
    [
      "with an unknown stretch",
      (c) => ({ ...c, rope_scaling: { type: "dynamic" } }),
      "ERR_MODEL_UNSUPPORTED",
      "dynamic",
    ],
    [
      "with a stretch that its kind does not have",
      (c) => ({ ...c, model_type: "qwen2", rope_scaling: { rope_type: "llama3", factor: 8 } }),
      "ERR_MODEL_UNSUPPORTED",
      '"llama3"; supported: default, linear, yarn',
    ],
    [
      "with texts for numbers",
      (c) => ({ ...c, hidden_size: "64" }),
      "ERR_MODEL_FORMAT",
      "hidden_size is not a number",
    ],
    ["with other heads", (c) => ({ ...c, num_attention_heads: 3 }), "ERR_MODEL_FORMAT", "3 heads"],
    ["with fewer layers", (c) => ({ ...c, num_hidden_layers: 1 }), "ERR_MODEL_UNSUPPORTED", "blk.1"],
    ["with more layers", (c) => ({ ...c, num_hidden_layers: 3 }), "ERR_MODEL_FORMAT", "blk.2"],
    ["that is a list", () => [], "ERR_MODEL_FORMAT", "not a JSON object"],
  ])("a config.json %s", async (_, change, code, message) => {
    const folder = await folderWith();
    await editJson(join(folder, "config.json"), change);
    await refused(folder, code, message);
  });

  test("tensors that are missing, too many, or of a type that does not run", async () => {
    const folder = await folderWith();
    const { tensors: all } = await model();
    const save = (list: typeof all) => writeFile(join(folder, "model.safetensors"), writeSafetensors(list));
    await save(all.slice(1));
    await refused(folder, "ERR_MODEL_FORMAT", "token_embd.weight is missing");
    await save([
      ...all,
      { name: "model.layers.0.extra.weight", dtype: "F32", shape: [1], data: Buffer.alloc(4) },
    ]);
    await refused(folder, "ERR_MODEL_UNSUPPORTED", '"model.layers.0.extra.weight"');
    await save(
      all.map((t) =>
        t.name.includes("q_proj")
          ? { ...t, dtype: "F8_E4M3", data: t.data.subarray(0, t.data.length / 4) }
          : t,
      ),
    );
    await refused(folder, "ERR_MODEL_UNSUPPORTED", "F8_E4M3");
  });

  test("no config.json, no weights, a file that shrinks, a named pipe's place taken by a folder", async () => {
    const folder = await folderWith();
    const source = await openModelSource(folder);
    await truncate(join(folder, "model.safetensors"), 20_000);
    const reading = async () => {
      for (const info of source.tensors.values()) for await (const _ of source.read(info));
    };
    await expect(reading()).rejects.toMatchObject({ code: "ERR_MODEL_TRUNCATED" });
    await source[Symbol.asyncDispose]();
    await expect(reading()).rejects.toMatchObject({ code: "ERR_DISPOSED" });
    await rm(join(folder, "model.safetensors"));
    await refused(folder, "ERR_MODEL_TRUNCATED", "neither model.safetensors nor its index");
    await mkdir(join(folder, "model.safetensors"));
    await refused(folder, "ERR_PATH", "this is a folder");
    await rm(join(folder, "config.json"));
    await refused(folder, "ERR_PATH", "has no config.json, expected a model");
    await writeFile(join(folder, "model.Q4_1.gguf"), "");
    await refused(folder, "ERR_PATH", "name the file in it");
    await symlink("config.json", join(folder, "config.json"));
    await refused(folder, "ERR_PATH", "ELOOP");
  });

  test("the weights' file, named by itself, is the folder", async () => {
    const folder = await folderWith();
    await using source = await openModelSource(join(folder, "model.safetensors"));
    expect(source.path).toBe(folder);
    await expect(openModelSource(join(root, "good.safetensors"))).rejects.toMatchObject({ code: "ERR_PATH" });
  });
});
