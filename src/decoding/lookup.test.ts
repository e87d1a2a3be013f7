import { describe, expect, test } from "vitest";
import type { Draft } from "./drafter.js";
import { lookup } from "./lookup.js";
import { GREEDY } from "./testing.js";

function propose(prompt: readonly number[], limit = 4): Draft {
  using drafter = lookup();
  void drafter.reset(prompt, { sampling: GREEDY });
  return drafter.propose(limit, 0) as Draft;
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

  test("learns from the emitted tokens whether its guesses come true", () => {
    const after = (emitted: (guess: number) => number) => {
      using drafter = lookup();
      void drafter.reset([1, 2, 3, 4, 5, 1, 2, 3], { sampling: GREEDY });
      const first = (drafter.propose(1, 0) as Draft).probabilities[0]!;
      for (let i = 0; i < 20; i++) {
        const guess = (drafter.propose(1, 0) as Draft).tokens[0] ?? 0;
        drafter.accept([emitted(guess), 1, 2, 3]);
      }
      return (drafter.propose(1, 0) as Draft).probabilities[0]! - first;
    };
    expect(after((guess) => guess)).toBeGreaterThan(0);
    let fresh = 100;
    expect(after(() => fresh++)).toBeLessThan(0);
  });
});
