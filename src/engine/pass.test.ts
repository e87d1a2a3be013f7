import { expect, test } from "vitest";
import type { NativeResult } from "../runtime/native.js";
import { type Part, splitResult } from "./pass.js";
import { resolveSampling } from "./sampling.js";

const sampling = resolveSampling({}, 100, 0);
const part = (count: number, top?: number): Part => {
  const tokens = Array.from({ length: count }, (_, i) => i);
  const step = top === undefined ? undefined : { sampling, top, score: tokens };
  return { tokens, parents: tokens.map((i) => i - 1), cells: tokens, history: [], table: [0], step };
};
/** [rows] of numbers that tell the row, with lists of `top` each. */
const computed = (rows: number, top: number): NativeResult => ({
  finished: true,
  milliseconds: 1,
  tokens: Int32Array.from({ length: rows }, (_, i) => i),
  logprobs: Float32Array.from({ length: rows }, (_, i) => -i),
  scores: Float32Array.from({ length: rows }, (_, i) => i / 2),
  topTokens: Int32Array.from({ length: rows * top }, (_, i) => 10 * Math.floor(i / top) + (i % top)),
  topLogprobs: Float32Array.from({ length: rows * top }, (_, i) => -i),
});

test("what a pass says of several texts is given to each in arrays of its own", () => {
  const [first, filled, second] = splitResult([part(1, 3), part(4), part(2, 2)], computed(3, 3));
  expect(filled).toBeUndefined();
  expect([...first!.picks, ...second!.picks]).toEqual([0, 1, 2]);
  expect(second!.logprobs).toEqual(Float32Array.of(-1, -2));
  expect(second!.scores).toEqual(Float32Array.of(0.5, 1));
  expect(first!.topTokens).toEqual(Int32Array.of(0, 1, 2));
  expect(second!.topTokens).toEqual(Int32Array.of(10, 11, 20, 21));
  second!.picks.fill(7);
  expect(first!.picks).toEqual(Int32Array.of(0));
});

test("a text alone gets the pass's own arrays", () => {
  const result = computed(2, 3);
  const [alone] = splitResult([part(2, 3), part(4)], result);
  expect(alone!.picks).toBe(result.tokens);
  expect(alone!.topLogprobs).toBe(result.topLogprobs);
  expect(alone!.scores).toBe(result.scores);
});
