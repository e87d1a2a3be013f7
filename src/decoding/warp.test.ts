import { expect, test } from "vitest";
import { GREEDY } from "./testing.js";
import { warped } from "./warp.js";

const LOGITS = [2, 1, 0, -1, 1];
const kept = (p: Float64Array) => [...p.keys()].filter((token) => p[token]! > 0);
const warm = { ...GREEDY, temperature: 1 };

test("is the softmax at a temperature", () => {
  const p = warped(LOGITS, { ...warm, temperature: 0.5 }, []);
  expect(p.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
  expect(p[0]! / p[1]!).toBeCloseTo(Math.exp(2), 9);
});

test("cuts as the core does: top-k with ties to the lowest id, top-p of what top-k left, min-p", () => {
  expect(kept(warped(LOGITS, { ...warm, topK: 2 }, []))).toEqual([0, 1]);
  expect(kept(warped(LOGITS, { ...warm, topP: 0.5 }, []))).toEqual([0]);
  expect(kept(warped(LOGITS, { ...warm, topP: 0.95 }, []))).toEqual([0, 1, 2, 4]);
  expect(kept(warped(LOGITS, { ...warm, topK: 3, topP: 0.75 }, []))).toEqual([0, 1]);
  expect(kept(warped(LOGITS, { ...warm, minP: 0.2 }, []))).toEqual([0, 1, 4]);
});

test("penalties and biases come first", () => {
  const p = warped(LOGITS, { ...warm, repetitionPenalty: 2, logitBias: new Map([[3, 5]]) }, [0, 3]);
  expect(p[0]! / p[1]!).toBeCloseTo(1, 9);
  expect(p[3]! / p[1]!).toBeCloseTo(Math.exp(-2 + 5 - 1), 9);
});
