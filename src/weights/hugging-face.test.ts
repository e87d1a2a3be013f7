import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { continuePlainly, goldenFolder, goldenModel } from "../../test/support/engines.js";
import { type Description, describeGguf, writeGguf } from "../../test/support/gguf-writer.js";
import { saveHuggingFace, toHuggingFace, withExactNorms } from "../../test/support/hugging-face-folder.js";
import { Engine } from "../engine/engine.js";
import { resolveSampling } from "../engine/sampling.js";
import { planModel } from "../models/load.js";
import { describeModel } from "./hugging-face-config.js";
import type { JsonObject } from "./json-file.js";
import type { ModelSource } from "./model-source.js";
import { openModelSource } from "./open-model-source.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "outrider-hf-"));
});
afterAll(() => rm(root, { recursive: true }));

// Every golden in float weights but the one that no config.json describes.
const names = (await readdir(goldenFolder))
  .filter((name) => name.endsWith(".gguf"))
  .map((name) => name.slice(0, -5))
  .filter((name) => name !== "granite-nope" && (!name.startsWith("quant-") || /-b?f16$/.test(name)));

async function contents(
  source: ModelSource,
): Promise<Map<string, { type: string; shape: readonly number[]; hash: string }>> {
  const all = new Map();
  for (const info of source.tensors.values()) {
    const parts: Buffer[] = [];
    let row = 0;
    for await (const chunk of source.read(info)) {
      expect(chunk.firstRow).toBe(row);
      row += chunk.rows;
      parts.push(Buffer.from(chunk.bytes));
    }
    expect(row).toBe(info.rows);
    const data = Buffer.concat(parts);
    expect(data.length).toBe(info.bytes);
    const hash = createHash("sha256").update(data).digest("hex");
    all.set(info.name, { type: info.type, shape: info.shape, hash });
  }
  return all;
}

async function answer(path: string) {
  await using source = await openModelSource(path, "none");
  await using engine = await Engine.load(source);
  using sequence = engine.open();
  const prompt = Array.from({ length: 40 }, (_, i) => (i * 37) % 280);
  await sequence.prefill(prompt.slice(0, -1));
  return await continuePlainly(sequence, prompt.at(-1)!, resolveSampling({}, 280, 0), 12);
}

describe.each(names)("%s", (name) => {
  let gguf: string;
  let folder: string;
  let model: Description;
  beforeAll(async () => {
    model = withExactNorms(describeGguf(await readFile(goldenModel(name))));
    gguf = join(root, `${name}.gguf`);
    folder = join(root, name);
    await writeFile(gguf, writeGguf(model).bytes);
    await saveHuggingFace(folder, toHuggingFace(model));
  });

  test("the folder is the same model as the file: settings, names, shapes, every byte", async () => {
    await using expected = await openModelSource(gguf);
    await using found = await openModelSource(folder);
    const arch = expected.metadata.get("general.architecture");
    expect(found.metadata.get("general.architecture")).toBe(arch);
    for (const [key, value] of expected.metadata)
      if (key.startsWith(`${arch}.`) && !(name === "phi3" && key.endsWith("original_context_length")))
        expect(found.metadata.get(key), key).toBe(value);
    const [a, b] = [await contents(expected), await contents(found)];
    expect([...b.keys()].sort()).toEqual([...a.keys()].sort());
    for (const [tensor, value] of a) expect(b.get(tensor), tensor).toEqual(value);
  });

  test("in several files with an index", async () => {
    const sharded = join(root, `${name}-sharded`);
    await saveHuggingFace(sharded, toHuggingFace(model), 3);
    await using whole = await openModelSource(folder);
    await using found = await openModelSource(sharded);
    expect(found.files).toHaveLength(3);
    const [a, b] = [await contents(whole), await contents(found)];
    expect([...b.keys()].sort()).toEqual([...a.keys()].sort());
    for (const [tensor, value] of a) expect(b.get(tensor), tensor).toEqual(value);
  });

  test("the same tokens and log-probabilities, to the bit", async ({ skip }) => {
    await using file = await openModelSource(gguf);
    try {
      planModel(file);
    } catch (error) {
      skip((error as { code: string }).code === "ERR_MODEL_UNSUPPORTED", "its architecture does not run yet");
      throw error;
    }
    expect(await answer(folder)).toEqual(await answer(gguf));
  });
});

test("layers without positions elsewhere than SmolLM3 has them are refused by the key that says so", () => {
  const smollm3 = (changes: object) =>
    describeModel({ model_type: "smollm3", ...changes } as JsonObject, "config.json");
  const rotated = (period: number) => Array.from({ length: 8 }, (_, i) => (i % period < period - 1 ? 1 : 0));
  for (const good of [
    {},
    { no_rope_layers: null },
    { no_rope_layers: rotated(4), no_rope_layer_interval: 2 },
  ])
    expect(smollm3(good).metadata.get("smollm3.rope.freq_base")).toBe(2e6);
  for (const [bad, key] of [
    [{ no_rope_layers: rotated(3) }, "no_rope_layers"],
    [{ no_rope_layer_interval: 2 }, "no_rope_layer_interval"],
    [{ use_sliding_window: true }, "use_sliding_window"],
  ] as const)
    expect(() => smollm3(bad), key).toThrow(
      expect.objectContaining({
        code: "ERR_MODEL_UNSUPPORTED",
        message: expect.stringContaining(`config.json: ${key} `),
      }),
    );
});
