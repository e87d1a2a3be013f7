import { describe, expect, test } from "vitest";
import { CostModel } from "./cost-model.js";
import type { Draft } from "./drafter.js";
import { DraftMemory } from "./memory.js";
import { strategies } from "./strategies.js";
import { GREEDY } from "./testing.js";

const lookup = (memory = new DraftMemory()) =>
  strategies.lookup.drafter({ costs: new CostModel(16), memory });

function propose(prompt: readonly number[], limit = 4): Draft {
  using drafter = lookup();
  void drafter.reset(prompt, { sampling: GREEDY });
  return drafter.propose(limit, () => 0) as Draft;
}

describe("lookup", () => {
  test("drafts what followed the longest match", () => {
    // After 1 2 came 3 4, after 9 2 came 5 6: the longer match decides.
    expect(propose([1, 2, 3, 4, 9, 2, 5, 6, 7, 1, 2], 2).tokens).toEqual([3, 4]);
  });

  test("prefers the latest of equal matches", () => {
    expect(propose([1, 2, 7, 1, 2, 8, 1, 2], 1).tokens).toEqual([8]);
  });

  test("repeats a period beyond the end of the text", () => {
    expect(propose([5, 1, 2, 1, 2], 4).tokens).toEqual([1, 2, 1, 2]);
  });

  test("drafts nothing for a token that is new", () => {
    expect(propose([1, 2, 3]).tokens).toEqual([]);
    expect(propose([1]).tokens).toEqual([]);
  });

  test("is surer of longer matches, and of undisputed ones", () => {
    const short = propose([7, 8, 3, 9, 8], 1);
    const long = propose([5, 6, 7, 8, 3, 1, 5, 6, 7, 8], 1);
    const disputed = propose([8, 4, 8, 3, 8], 1);
    expect(long.probabilities[0]).toBeGreaterThan(short.probabilities[0]!);
    expect(disputed.probabilities[0]).toBeLessThan(short.probabilities[0]!);
  });

  test("learns from the emitted tokens whether its guesses come true, verified or not", () => {
    const prompt = [1, 2, 3, 4, 5, 1, 2, 3];
    const afterwards = (emitted: number) => {
      const memory = new DraftMemory();
      using drafter = lookup(memory);
      for (let i = 0; i < 20; i++) {
        void drafter.reset(prompt, { sampling: GREEDY });
        expect((drafter.propose(1, () => 0) as Draft).tokens).toEqual([4]);
        drafter.accept([emitted]);
      }
      void drafter.reset(prompt, { sampling: GREEDY });
      return (drafter.propose(1, () => 0) as Draft).probabilities[0]!;
    };
    const before = propose(prompt, 1).probabilities[0]!;
    expect(afterwards(4)).toBeGreaterThan(before);
    expect(afterwards(6)).toBeLessThan(before);
  });
});
