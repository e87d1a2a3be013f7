import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CostModel } from "./cost-model.js";
import { decode } from "./decode.js";
import { draftModel } from "./draft-model.js";
import { type Draft, type Drafter, noDrafter } from "./drafter.js";
import { adaptiveLength, fixedLength } from "./plan.js";
import { newStats } from "./stats.js";
import { strategies, strategyNames } from "./strategies.js";
import { type FakeOptions, fakeSequence, GREEDY } from "./testing.js";

/** What every drafter promises; a new strategy is found by itself. */
const drafters: Record<string, () => Drafter> = {
  ...Object.fromEntries(
    strategyNames
      .filter((name) => strategies[name].needs === "nothing")
      .map((name) => [name, () => strategies[name].drafter({ costs: new CostModel(16) })]),
  ),
  "draft-model": () => draftModel(fakeSequence()),
  "draft-model with a small context": () => draftModel(fakeSequence({ context: 24 })),
  "draft-model that takes 2 tokens a step": () => draftModel(fakeSequence({ maxStep: 2 })),
};

const text = (maxLength: number) => fc.array(fc.nat(15), { minLength: 1, maxLength });
const INFO = { sampling: GREEDY };

describe.each(Object.entries(drafters))("%s", (_, open) => {
  test("proposes well-formed drafts of at most the limit, in any order of calls", async () => {
    const calls = fc.array(fc.record({ limit: fc.nat(8), floor: fc.constantFrom(0, 0.5), tokens: text(4) }), {
      maxLength: 12,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(text(30), calls), { maxLength: 3 }), async (texts) => {
        using drafter = open();
        for (const [prompt, steps] of texts) {
          await drafter.reset(prompt, INFO);
          for (const { limit, floor, tokens } of steps) {
            if (limit > 0) wellFormed(await drafter.propose(limit, () => floor), limit);
            drafter.accept(tokens);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test("says after a reset what a new one says", async () => {
    using fresh = open();
    using used = open();
    await used.reset([9, 8, 7, 9, 8, 7], INFO);
    const prompt = [1, 2, 3, 4, 1, 2, 3];
    for (const drafter of [fresh, used]) await drafter.reset(prompt, INFO);
    expect(await used.propose(4, () => 0)).toEqual(await fresh.propose(4, () => 0));
  });

  test.each([
    ["greedy", GREEDY],
    ["sampled", { ...GREEDY, temperature: 1, seed: 3 }],
  ])("leaves the text as it is: %s", async (_name, sampling) => {
    const prompt = [3, 1, 4, 1, 5, 9, 2, 6];
    const run = async (drafter: Drafter, planner = fixedLength(9), fake: FakeOptions = {}) => {
      using sequence = fakeSequence(fake);
      await sequence.prefill(prompt.slice(0, -1));
      const options = { drafter, planner, sampling, maxTokens: 60, endIds: new Set<number>() };
      const stats = newStats();
      const tokens: number[] = [];
      const logprobs: number[] = [];
      for await (const step of decode(sequence, 6, { ...options, stats })) {
        tokens.push(...step.tokens);
        logprobs.push(...step.logprobs);
      }
      return { tokens, logprobs };
    };
    const plain = await run(noDrafter());
    using fixed = open();
    using adaptive = open();
    using steep = open();
    expect(await run(fixed)).toEqual(plain);
    expect(await run(adaptive, adaptiveLength(new CostModel(16)))).toEqual(plain);
    expect(await run(steep, adaptiveLength(new CostModel(16)), { cost: (n) => n })).toEqual(plain);
  });
});

function wellFormed({ tokens, parents, probabilities }: Draft, limit: number): void {
  expect(tokens.length).toBeLessThanOrEqual(limit);
  expect(probabilities.length).toBe(tokens.length);
  for (const probability of probabilities) {
    expect(probability).toBeGreaterThanOrEqual(0);
    expect(probability).toBeLessThanOrEqual(1);
  }
  for (const [i, parent] of (parents ?? []).entries()) expect(parent >= -1 && parent < i).toBe(true);
}
