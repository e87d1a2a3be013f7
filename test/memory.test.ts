import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { Engine } from "../src/engine/engine.js";
import { resolveSampling } from "../src/engine/sampling.js";
import { coreInfo } from "../src/runtime/native.js";
import { openGguf } from "../src/weights/gguf.js";
import { continuePlainly, embeddedModel, goldenModel, loadEngine } from "./support/engines.js";
import { describeGguf, writeGguf } from "./support/gguf-writer.js";
import { Seeded } from "./support/seeded.js";

const folder = mkdtempSync(path.join(tmpdir(), "outrider-memory-"));
afterAll(() => rmSync(folder, { recursive: true }));

const small = goldenModel("quant-q4_0");
const greedy = resolveSampling({}, 49152, 0);
const tokens = (count: number, vocab: number, seed = 1) => {
  const random = new Seeded(seed);
  return Array.from({ length: count }, () => random.integer(0, vocab - 1));
};
const live = () => {
  const { liveBytes, liveBlocks } = coreInfo();
  return { liveBytes, liveBlocks };
};

describe("what the core allocated is given back", () => {
  test.each([
    ["the embedded model", embeddedModel],
    ["a small one", small],
  ])("load, generate, close, three times: %s", async (_, file) => {
    const before = live();
    for (let round = 0; round < 3; round++) {
      const engine = await loadEngine(file, { context: 256 });
      expect(live().liveBytes).toBeGreaterThan(before.liveBytes);
      const sequence = engine.open();
      await sequence.prefill(tokens(30, 256));
      const fork = sequence.fork(20);
      await continuePlainly(sequence, 1, greedy, 4);
      for (const layers of [engine.draftLayers, [0]]) {
        engine.draftLayers = layers;
        for (const draft of ["fewer", "parallel"] as const) {
          await sequence.step([1], { sampling: greedy, draft });
          sequence.keep([]);
        }
      }
      await continuePlainly(fork, 1, greedy, 4);
      sequence[Symbol.dispose](); // the fork is left to the engine
      await engine[Symbol.asyncDispose]();
      await engine[Symbol.asyncDispose]();
      expect(live()).toEqual(before);
      await expect(fork.step([1], { sampling: greedy })).rejects.toMatchObject({ code: "ERR_DISPOSED" });
      expect(() => engine.open()).toThrow(expect.objectContaining({ code: "ERR_DISPOSED" }));
      fork[Symbol.dispose]();
    }
  });

  test("after a file that becomes shorter while it is read", async () => {
    const before = live();
    const file = path.join(folder, "shrinking.gguf");
    copyFileSync(small, file);
    await using gguf = await openGguf(file);
    truncateSync(file, gguf.size - 100_000);
    await expect(Engine.load(gguf)).rejects.toMatchObject({ code: "ERR_MODEL_TRUNCATED" });
    expect(live()).toEqual(before);
  });

  test.each([0, 0.5, 1])("after a listener that throws when %d of the weights are there", async (part) => {
    const before = live();
    const onProgress = (done: number, total: number) => {
      if (done >= part * total) throw new Error("no more");
    };
    await expect(loadEngine(small, { onProgress })).rejects.toThrow("no more");
    expect(live()).toEqual(before);
  });

  test("after a program that cannot be built", async () => {
    const before = live();
    // Gate in Q4_0 and up in F32: the builder refuses it when all weights and the cache are there.
    const model = describeGguf(readFileSync(small));
    const file = path.join(folder, "mixed.gguf");
    const tensors = model.tensors.map((t) =>
      t.name === "blk.1.ffn_up.weight" ? { name: t.name, shape: t.shape, type: "F32" as const } : t,
    );
    writeFileSync(file, writeGguf({ ...model, tensors }).bytes);
    await expect(loadEngine(file)).rejects.toMatchObject({ code: "ERR_MODEL_UNSUPPORTED" });
    expect(live()).toEqual(before);
  });

  test("after an unknown instruction set and a bad option", async () => {
    const before = live();
    await expect(loadEngine(small, { instructionSet: "mmx" as "avx2" })).rejects.toMatchObject({
      code: "ERR_PLATFORM",
    });
    await expect(loadEngine(small, { context: 513 })).rejects.toMatchObject({
      code: "ERR_BAD_REQUEST",
      param: "context",
    });
    expect(live()).toEqual(before);
  });

  test("closing waits for the pass that runs", async () => {
    const before = live();
    const engine = await loadEngine(small);
    const sequence = engine.open();
    const filling = sequence.prefill(tokens(400, 280));
    const closing = engine[Symbol.asyncDispose]();
    await expect(filling).resolves.toBeUndefined();
    await closing;
    expect(live()).toEqual(before);
  });
});

describe("a long prompt", () => {
  const prompt = tokens(1500, 49152);

  test("is given up within 200 ms, and the next text is the same to the bit", {
    timeout: 60_000,
  }, async () => {
    // One pass for the whole prompt, 0.7 s or more.
    await using engine = await loadEngine(embeddedModel, { context: 2048, prefillChunk: 2048 });
    const question = tokens(40, 49152, 2);
    const answer = async () => {
      using sequence = engine.open();
      await sequence.prefill(question.slice(0, -1));
      return await continuePlainly(sequence, question.at(-1)!, greedy, 8);
    };
    const expected = await answer();
    const waits: number[] = [];
    for (const after of [0, 5, 60, 120]) {
      engine.forget();
      using sequence = engine.open();
      const abort = new AbortController();
      const filling = sequence.prefill(prompt, abort.signal).then(
        () => "done",
        (error: { code?: string }) => error.code,
      );
      await new Promise((resolve) => setTimeout(resolve, after));
      const asked = performance.now();
      abort.abort();
      expect(await filling).toBe("ERR_ABORTED");
      waits.push(performance.now() - asked);
      expect(sequence.tokens).toEqual([]);
      expect(await answer()).toEqual(expected);
      await sequence.prefill(question.slice(0, -1));
      expect(await continuePlainly(sequence, question.at(-1)!, greedy, 8)).toEqual(expected);
    }
    // The median, since other processes may keep this one waiting.
    expect(waits.toSorted((a, b) => a - b)[2]).toBeLessThan(200);
    await expect(engine.open().prefill(question, AbortSignal.abort())).rejects.toMatchObject({
      code: "ERR_ABORTED",
    });
  });

  test("leaves the event loop free: a timer is at most 50 ms late", { timeout: 120_000 }, async () => {
    await using engine = await loadEngine(embeddedModel, { context: 2048, threads: 1, prefillChunk: 256 });
    // Other processes may keep this one waiting, so the best of several chunks counts: a pass on this thread, 0.1 s
    // or more, would show in all of them.
    using sequence = engine.open();
    const gaps: number[] = [];
    for (let at = 0; at < prompt.length; at += engine.prefillChunk) {
      let last = performance.now();
      let longest = 0;
      const tick = () => {
        longest = Math.max(longest, performance.now() - last);
        last = performance.now();
      };
      const timer = setInterval(tick, 5);
      await sequence.prefill(prompt.slice(at, at + engine.prefillChunk));
      tick();
      clearInterval(timer);
      gaps.push(longest);
    }
    expect(Math.min(...gaps)).toBeLessThan(50);
  });
});
