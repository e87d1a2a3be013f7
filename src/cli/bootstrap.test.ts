import { expect, test } from "vitest";
import { ratioInterval } from "./bootstrap.js";

const of = (values: readonly number[]) => new Map(values.map((value, i) => [i, value]));

test("the interval holds the ratio, and is wider where prompts differ more", () => {
  const base = of([100, 110, 90, 105, 95, 100, 98, 102]);
  const even = ratioInterval(base, of([50, 55, 45, 53, 47, 50, 49, 51]))!;
  const uneven = ratioInterval(base, of([20, 110, 30, 105, 20, 100, 25, 40]))!;
  expect(even.low).toBeGreaterThan(1.95);
  expect(even.high).toBeLessThan(2.05);
  expect(uneven.low).toBeLessThan(800 / 450);
  expect(uneven.high).toBeGreaterThan(800 / 450);
  expect(uneven.high - uneven.low).toBeGreaterThan(5 * (even.high - even.low));
});

test("two prompts tell nothing about others", () => {
  expect(ratioInterval(of([1, 2]), of([1, 2]))).toBeUndefined();
});
