// The layers that a model drafts with: found, kept for the next process, and nothing but speed.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { tuneLayers } from "../src/api/tune.js";
import { load } from "../src/index.js";
import { coreInfo } from "../src/runtime/native.js";
import { embeddedModel, goldenModel, loadEngine } from "./support/engines.js";

const tiny = goldenModel("llama-gqa-untied");
const folder = mkdtempSync(path.join(tmpdir(), "outrider-tune-"));
beforeAll(() => {
  vi.stubEnv("OUTRIDER_CACHE", folder);
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const live = () => {
  const { liveBytes, liveBlocks } = coreInfo();
  return { liveBytes, liveBlocks };
};
const prompts = ["Why is the sky blue?", "Count to five.", "Hello"];

describe("tune", () => {
  test("all layers are always right, and the choice in use is measured against the model's own text", async () => {
    await using engine = await loadEngine(embeddedModel, { context: 256 });
    const { layers } = engine.config;
    const all = Array.from({ length: layers }, (_, i) => i);
    await using model = await load(embeddedModel, { context: 256, learn: false });
    const { promptTokens, tokens } = await model.generate(prompts[0]!, { maxTokens: 24 }).result;
    const texts = [{ prompt: promptTokens, answer: tokens }];
    const before = engine.usage;
    engine.draftLayers = all;
    const seen: number[] = [];
    const onProgress = ({ tried }: { tried: number }) => seen.push(tried);
    const result = await tuneLayers(engine, texts, { seconds: 1e-9, onProgress });
    expect(result.acceptanceBefore).toBe(1);
    expect(result.acceptance).toBeLessThan(1);
    expect(result.tried).toBe(1); // no time: the first choice
    expect(seen).toEqual([1]);
    expect(engine.draftLayers).toEqual(result.kept);
    engine.forget();
    expect(engine.usage).toEqual(before);
  });

  test("keeps what it found for the next process, and a damaged file is no reason to fail", async () => {
    const before = live();
    let file: string;
    let kept: readonly number[];
    {
      await using model = await load(tiny);
      const found = await model.tune({ prompts, seconds: 600, maxTokens: 16 });
      kept = found.kept;
      file = found.file!;
      expect(found.layers).toBe(model.info.config.layers);
      expect(kept.length).toBeLessThan(found.layers);
      expect(path.relative(folder, file)).toMatch(/^tuned.[0-9a-f]{32}\.json$/);
      expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({ kept });
    }
    expect(live()).toEqual(before);
    const inUse = async () => {
      await using model = await load(tiny);
      return (await model.tune({ prompts, seconds: 600, maxTokens: 4 })).keptBefore;
    };
    const chosen = [0];
    writeFileSync(file, JSON.stringify({ kept: chosen }));
    expect(await inUse()).toEqual(chosen);
    const plain = await texts("none");
    for (const damaged of ['{"kept":[0,99]}', '{"kept":[1,0]}', '{"kept":[]}', "{", "[]", "null"]) {
      writeFileSync(file, damaged);
      expect(await inUse()).not.toEqual(chosen);
      writeFileSync(file, damaged);
      expect(await texts("self")).toEqual(plain);
    }
  });

  test("takes as many texts as its cache holds", async () => {
    await using engine = await loadEngine(tiny, { context: 128, sequences: 8 });
    const long = (i: number) => Array.from({ length: 120 }, (_, n) => ((n * 7 + i) % 200) + 30);
    const texts = Array.from({ length: 40 }, (_, i) => ({ prompt: [i + 1], answer: long(i) }));
    const { tried } = await tuneLayers(engine, texts, { seconds: 600 });
    expect(tried).toBeGreaterThan(0);
    engine.forget();
    expect(engine.usage.used).toBe(0);
  });

  test("an abort leaves the old choice, and nothing in the cache", async () => {
    await using engine = await loadEngine(tiny, { context: 128 });
    const old = engine.draftLayers;
    const abort = new AbortController();
    const text = Array.from({ length: 40 }, (_, i) => i + 30);
    const run = tuneLayers(engine, [{ prompt: text.slice(0, 8), answer: text.slice(8) }], {
      seconds: 600,
      signal: abort.signal,
      onProgress: () => abort.abort(),
    });
    await expect(run).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(engine.draftLayers).toBe(old);
    engine.forget();
    expect(engine.usage.used).toBe(0);
  });

  test.each([
    [{ prompts: [] }, "prompts"],
    [{ prompts, seconds: 0 }, "seconds"],
    [{ prompts, seconds: Number.NaN }, "seconds"],
    [{ prompts, maxTokens: 1 }, "maxTokens"],
  ])("refuses %j", async (options, param) => {
    await using model = await load(tiny);
    await expect(model.tune(options)).rejects.toMatchObject({ code: "ERR_BAD_REQUEST", param });
  });
});

async function texts(strategy: "none" | "self") {
  await using model = await load(tiny, { learn: false });
  const results = [];
  for (const options of [{}, { temperature: 0.8, seed: 3 }]) {
    const draftLength = strategy === "self" ? 4 : undefined;
    const run = model.generate("Hello", { ...options, raw: true, maxTokens: 20, strategy, draftLength });
    const { tokens, logprobs } = await run.result;
    results.push({ tokens, logprobs });
  }
  return results;
}
