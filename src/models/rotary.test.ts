import { expect, test } from "vitest";
import { frequencies } from "./rotary.js";

const plain = { dims: 64, base: 10000, positionScale: 1, magnitude: 1 };

test("frequencies fall from 1 to nearly 1 / base; a linear scale divides all of them", () => {
  const found = frequencies(plain);
  expect(found).toHaveLength(32);
  expect(found[0]).toBe(1);
  expect(found[16]).toBeCloseTo(0.01, 8);
  expect([...frequencies({ ...plain, positionScale: 4 })]).toEqual([...found].map((f) => f / 4));
});

test("factors divide each frequency", () => {
  const factors = Float32Array.from({ length: 32 }, (_, i) => 1 + i);
  const found = frequencies(plain, factors);
  frequencies(plain).forEach((f, i) => {
    expect(found[i]).toBeCloseTo(f / (1 + i), 8);
  });
});

test("YaRN leaves fast pairs, scales slow ones, and goes evenly from one to the other", () => {
  // Qwen2.5's setting. Worked out by hand from the paper: a pair of frequency f turns f * 32768 / (2 pi) times.
  const config = { dims: 128, base: 1e6, positionScale: 4, magnitude: 1 };
  const yarn = { originalContext: 32768, fastTurns: 32, slowTurns: 1 };
  const before = frequencies({ ...config, positionScale: 1 });
  const found = frequencies({ ...config, yarn });
  const turns = (i: number) => (before[i]! * yarn.originalContext) / (2 * Math.PI);
  const share = (i: number) => (found[i]! / before[i]! - 0.25) / 0.75;
  const [low, high] = [23, 40]; // the pairs next outside 32 turns and 1 turn
  expect(turns(low)).toBeGreaterThan(32);
  expect(turns(low + 1)).toBeLessThan(32);
  expect(turns(high - 1)).toBeGreaterThan(1);
  expect(turns(high)).toBeLessThan(1);
  for (let i = 0; i < 64; i++) {
    const expected = Math.min(1, Math.max(0, 1 - (i - low) / (high - low)));
    expect(share(i), `pair ${i}`).toBeCloseTo(expected, 5);
  }
});
