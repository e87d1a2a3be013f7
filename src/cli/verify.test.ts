import { expect, test } from "vitest";
import { firstDifference, hashOf } from "./verify.js";

test("ids and every bit of log-probabilities count", () => {
  const text = { tokens: [1, 2, 3], logprobs: [-1, -0.5, 0] };
  expect(firstDifference(text, structuredClone(text))).toBeUndefined();
  expect(firstDifference(text, { ...text, tokens: [1, 2, 4] })).toBe(2);
  expect(firstDifference(text, { ...text, logprobs: [-1, -0.5000000596046448, 0] })).toBe(1);
  expect(firstDifference(text, { ...text, logprobs: [-1, -0.5, -0] })).toBe(2);
  expect(firstDifference(text, { tokens: [1, 2], logprobs: [-1, -0.5] })).toBe(2);
  expect(firstDifference({ tokens: [], logprobs: [] }, { tokens: [], logprobs: [] })).toBeUndefined();
});

test("the hash is of ids and of every bit of log-probabilities", () => {
  const text = { tokens: [1, 2, 3], logprobs: [-1, -0.5, 0] };
  const hashes = [
    [text],
    [{ ...text, tokens: [1, 2, 4] }],
    [{ ...text, logprobs: [-1, -0.5000000596046448, 0] }],
    [{ ...text, logprobs: [-1, -0.5, -0] }],
    [text, text],
  ].map(hashOf);
  expect(new Set(hashes).size).toBe(hashes.length);
  expect(hashOf([structuredClone(text)])).toBe(hashes[0]);
});
