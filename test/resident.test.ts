// By itself, in a process of its own: other tests would leave their pages in the count.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { resolveSampling } from "../src/engine/sampling.js";
import { continuePlainly, goldenModel, loadEngine } from "./support/engines.js";

setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");

/** Megabytes of this process that are in memory, without what the collector can free. */
async function resident(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 5)); // finalizers
  }
  return process.memoryUsage().rss / 2 ** 20;
}

test("2,000 short texts leave the resident set where it was", { timeout: 120_000 }, async () => {
  await using engine = await loadEngine(goldenModel("quant-q8_0"), { threads: 2, context: 128 });
  const sampling = resolveSampling({ temperature: 1, repetitionPenalty: 1.1 }, 280, 0);
  const write = async (count: number) => {
    for (let i = 0; i < count; i++) {
      using sequence = engine.open([i % 280, 1, 2]);
      if (sequence.tokens.length === 0) await sequence.prefill([i % 280, 1, 2]);
      using fork = sequence.fork(2);
      await continuePlainly(fork, 5, sampling, 2);
      await continuePlainly(sequence, i % 7, { ...sampling, seed: i }, 4);
    }
  };
  // V8 enlarges its young generation by 13 MB after some thousand texts and a dozen forced collections, while
  // its used heap and the core's bytes stay as they are: the same procedure first, until that is behind.
  for (let part = 0; part < 14; part++) {
    await write(500);
    await resident();
  }
  const before = await resident();
  const samples: number[] = [];
  for (let part = 0; part < 4; part++) {
    await write(500);
    samples.push(await resident());
  }
  if (process.env.OUTRIDER_REPORT)
    console.log(`${before.toFixed(1)} MB, then ${samples.map((s) => s.toFixed(1))}`);
  expect(Math.max(...samples)).toBeLessThan(before * 1.05);
  expect(Math.min(...samples)).toBeGreaterThan(before * 0.95);
});
