import fc from "fast-check";
import { expect, test } from "vitest";
import { CostModel } from "./cost-model.js";
import type { Draft } from "./drafter.js";
import { DraftMemory } from "./memory.js";
import { strategies } from "./strategies.js";
import { GREEDY } from "./testing.js";

const costs = new CostModel(16);

async function propose(memory: DraftMemory, prompt: readonly number[]): Promise<Draft> {
  using drafter = strategies.auto.drafter({ costs, memory });
  await drafter.reset(prompt, { sampling: GREEDY });
  return drafter.propose(4, () => 0);
}

/** A memory that has seen 7 8 9 follow 5 6 often, and where such guesses come true. */
async function taught(): Promise<DraftMemory> {
  const memory = new DraftMemory(1 << 10);
  using drafter = strategies.auto.drafter({ costs, memory });
  for (let i = 0; i < 20; i++) {
    await drafter.reset([i, 5, 6], { sampling: GREEDY });
    for (const token of [7, 8, 9]) {
      await drafter.propose(4, () => 0);
      drafter.accept([token]);
    }
  }
  return memory;
}

test("what was learned is there again after saving and loading, estimates included", async () => {
  const memory = await taught();
  const loaded = new DraftMemory(1 << 10);
  expect(await loaded.load(await memory.save(), 100)).toBe(true);
  const before = await propose(memory, [50, 5, 6]);
  const after = await propose(loaded, [50, 5, 6]);
  expect(before.tokens.slice(0, 3)).toEqual([7, 8, 9]);
  expect(after.tokens).toEqual(before.tokens);
  // Not the recycled choices: a little less sure than the memory that still has them.
  expect(after.probabilities[0]).toBeGreaterThan(0.5);
  expect((await propose(new DraftMemory(), [50, 5, 6])).tokens).toEqual([]);
});

test("another vocabulary's file, and damaged ones, are refused whole", async () => {
  const saved = await (await taught()).save();
  const empty = async (memory: DraftMemory) => expect((await propose(memory, [50, 5, 6])).tokens).toEqual([]);
  const small = new DraftMemory(1 << 10);
  expect(await small.load(saved, 9)).toBe(false);
  await empty(small);
  for (const bytes of [Buffer.alloc(0), Buffer.from("no"), saved.subarray(0, saved.length >> 1)]) {
    const memory = new DraftMemory(1 << 10);
    expect(await memory.load(bytes, 100)).toBe(false);
    await empty(memory);
  }
  await fc.assert(
    fc.asyncProperty(fc.nat(saved.length - 1), fc.nat(255), async (at, byte) => {
      const bytes = Buffer.from(saved);
      bytes[at] = byte;
      const memory = new DraftMemory(1 << 10);
      await memory.load(bytes, 100);
      // Whatever was taken: a byte of a counter may well change and nobody can tell.
      for (const token of (await propose(memory, [50, 5, 6])).tokens) expect(token).toBeLessThan(100);
    }),
    { numRuns: 100 },
  );
});
