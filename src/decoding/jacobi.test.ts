import { describe, expect, test } from "vitest";
import { decode } from "./decode.js";
import type { Drafter } from "./drafter.js";
import { type FixedPoint, jacobi } from "./jacobi.js";
import { lookahead } from "./lookahead.js";
import { fixedLength } from "./plan.js";
import { newStats } from "./stats.js";
import { type FakeOptions, fakeSequence, GREEDY } from "./testing.js";

const LENGTH = 48;
const PROMPT = [3, 1, 4, 1, 5];

async function passes(drafter: Drafter, next: FakeOptions["next"], prompt = PROMPT): Promise<number> {
  using sequence = fakeSequence({ vocab: 64, next });
  await sequence.prefill(prompt.slice(0, -1));
  const stats = newStats();
  const options = {
    drafter,
    planner: fixedLength(16),
    sampling: GREEDY,
    maxTokens: LENGTH,
    endIds: new Set<number>(),
  };
  for await (const step of decode(sequence, prompt.at(-1)!, { ...options, stats })) void step;
  expect(stats.tokens).toBe(LENGTH);
  return stats.passes;
}

/** Tokens that depend on their place alone: all equations are independent. */
const byPlace = (text: readonly number[]) => (text.length * 7 + 1) % 60;
/** Every token is another one unless the one before it is right: nothing can be guessed ahead. */
const chained = (text: readonly number[]) =>
  (text.reduce((sum, token) => (31 * sum + token) % 10_007, 7) % 59) + 1;

describe.each<FixedPoint>(["jacobi", "gauss-seidel"])("%s", (mode) => {
  test("solves independent equations in a block's number of tokens a pass, after a first guess", async () => {
    const blocks = LENGTH / 4;
    const count = await passes(jacobi(mode, 4), byPlace);
    // Every other pass has only fillers to check: it emits its own token, and what it says of the others is right.
    expect(count).toBeLessThanOrEqual(mode === "jacobi" ? (2 * LENGTH) / 5 + 1 : 2 * blocks);
    expect(count).toBeGreaterThanOrEqual(blocks);
  });

  test("needs no more passes than tokens where each depends on the one before", async () => {
    expect(await passes(jacobi(mode, 4), chained)).toBeLessThanOrEqual(LENGTH);
  });
});

test("the hybrid stops guessing beyond the prompt's length", async () => {
  const [short, long] = [PROMPT, Array.from({ length: LENGTH + 2 }, (_, i) => i)];
  expect(await passes(jacobi("hybrid", 4), byPlace, short)).toBeGreaterThan(LENGTH - 2 * short.length);
  expect(await passes(jacobi("hybrid", 4), byPlace, long)).toBeLessThan(0.75 * LENGTH);
});

describe("lookahead", () => {
  /** A cycle of ten tokens that the prompt does not show. */
  const cycle = (text: readonly number[]) => 20 + ((text.at(-1)! + 1) % 10);

  test("verifies n-grams that the window found before the text has said them", async () => {
    const shape = { window: 4, ngram: 4, candidates: 2 };
    const withWindow = await passes(lookahead(shape), cycle);
    const withoutWindow = await passes(lookahead({ ...shape, window: 0 }), cycle);
    // Without it the first round of the cycle comes token by token.
    expect(withWindow).toBeLessThan(withoutWindow);
    expect(withoutWindow).toBeLessThan(LENGTH / 2);
  });

  test("has nothing to say where nothing repeats", async () => {
    expect(await passes(lookahead({ window: 2, ngram: 3, candidates: 2 }), chained)).toBeGreaterThan(
      0.8 * LENGTH,
    );
  });
});
