import { expect, test } from "vitest";
import { type Run, speeds } from "./decoding-speed.js";
import { median } from "./median.js";

test("rates are of whole repetitions, speed-ups of the same one, medians of both", () => {
  const run = (
    repetition: number,
    strategy: Run["strategy"],
    category: string,
    passes: number,
    ms: number,
  ): Run => ({
    strategy,
    category,
    repetition,
    prompt: 0,
    tokens: 100,
    passes,
    ms,
    draftMs: ms / 100,
    drafted: [10, 4],
    accepted: [5, 1],
    exact: true,
  });
  const runs = [
    ...[run(0, "none", "a", 100, 1000), run(0, "lookup", "a", 50, 500)],
    ...[run(0, "none", "b", 100, 3000), run(0, "lookup", "b", 100, 3500)],
    // A slow moment hits both alike.
    ...[run(1, "none", "a", 100, 9000), run(1, "lookup", "a", 50, 4500)],
    ...[run(1, "none", "b", 100, 9000), run(1, "lookup", "b", 100, 4500)],
    ...[run(2, "none", "a", 100, 1000), run(2, "lookup", "a", 50, 500)],
    ...[run(2, "none", "b", 100, 3000), run(2, "lookup", "b", 100, 3500)],
  ];
  const found = speeds(runs, ["none", "lookup"]);
  expect(found.map((s) => [s.category, s.strategy, s.prompts])).toEqual([
    ["a", "none", 1],
    ["a", "lookup", 1],
    ["b", "none", 1],
    ["b", "lookup", 1],
    ["all", "none", 2],
    ["all", "lookup", 2],
  ]);
  const a = found[1]!;
  expect(a.tokensPerSecond).toEqual({ median: 200, values: [200, 100_000 / 4500, 200] });
  expect(a.tokensPerPass.median).toBe(2);
  expect(a.speedup).toEqual({ median: 2, values: [2, 2, 2] });
  expect(a.acceptedByPosition).toEqual([0.5, 0.25]);
  expect(a.draftShare).toBeCloseTo(0.01);
  expect([a.exact, a.answers]).toEqual([3, 3]);
  const all = found[5]!;
  expect(all.tokensPerSecond.median).toBe(50);
  expect(all.tokensPerPass.median).toBeCloseTo(200 / 150);
  expect(all.speedup).toEqual({ median: 1, values: [1, 2, 1] });
});

test("median", () => {
  expect(median([3])).toBe(3);
  expect(median([9, 1, 5])).toBe(5);
  expect(median([4, 1, 3, 2])).toBe(2.5);
});
