import fc from "fast-check";
import { expect, test } from "vitest";
import { MergeQueue, POSITIONS } from "./bpe.js";

test("the queue of merges gives the lowest rank, of equals the leftmost, in whatever order they come", () => {
  const RANKS = 5;
  const step = fc.oneof(
    fc.record({ rank: fc.nat({ max: RANKS - 1 }), position: fc.nat({ max: 40 }) }),
    fc.constant("pop" as const),
  );
  const property = fc.property(fc.array(step, { maxLength: 300, size: "max" }), (steps) => {
    const queue = new MergeQueue(RANKS);
    const expected: number[] = [];
    const pop = () => expect(queue.pop()).toBe(expected.sort((a, b) => a - b).shift() ?? -1);
    for (const step of steps) {
      if (step === "pop") pop();
      else {
        queue.push(step.rank, step.position);
        expected.push(step.rank * POSITIONS + step.position);
      }
    }
    while (expected.length > 0) pop();
    pop();
  });
  fc.assert(property, { seed: 1, numRuns: 1000 });
});
