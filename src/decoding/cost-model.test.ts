import { describe, expect, test } from "vitest";
import { CostModel } from "./cost-model.js";

const FLAT = [1, 1, 1.02, 1.07, 1.16, 1.25, 1.29, 1.33];
const STEEP = [1, 1.9, 2.8, 3.7, 4.6, 5.5, 6.4, 7.3];
const noisy = (i: number) => (i % 5 === 3 ? 6 : 1 + 0.02 * ((i * 7) % 3));

/** Follows the probes of a machine with this curve until there are none; returns their lengths. */
function measure(costs: CostModel, curve: readonly number[], single = 3.5): number[] {
  const lengths: number[] = [];
  for (let length = costs.probe(); length !== undefined && lengths.length < 100; length = costs.probe()) {
    costs.observe(length, single * curve[length - 1]!);
    lengths.push(length);
  }
  return lengths;
}

describe("CostModel", () => {
  test("begins with a curve and no time", () => {
    const costs = new CostModel(64);
    expect(costs.maxLength).toBe(16);
    expect(costs.relative(1)).toBe(1);
    expect(costs.relative(16)).toBe(2.7);
    expect(costs.ms(1)).toBeUndefined();
  });

  test("speaks of no more tokens than a step takes", () => {
    const costs = new CostModel(3);
    expect(costs.maxLength).toBe(3);
    expect(measure(costs, FLAT)).toEqual([1, 1, 1, 2, 2, 2]);
  });

  test("measures 1, 2, 4 and 8 tokens on a machine where length is cheap", () => {
    const costs = new CostModel(64);
    expect(measure(costs, FLAT)).toEqual([1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8]);
    expect(costs.ms(1)).toBeCloseTo(3.5);
    expect(costs.relative(8)).toBeCloseTo(1.33);
  });

  test("does not pay for long passes on a machine where two tokens cost twice", () => {
    const costs = new CostModel(64);
    expect(measure(costs, STEEP)).toEqual([1, 1, 1, 2, 2, 2]);
    expect(costs.relative(2)).toBeCloseTo(1.9);
    expect(costs.relative(8)).toBeGreaterThan(7);
  });

  test("never falls with the length, whatever is observed", () => {
    const costs = new CostModel(16);
    for (let i = 0; i < 200; i++) costs.observe(1 + ((i * 7) % 16), 1 + ((i * 13) % 11));
    for (let n = 2; n <= 16; n++) expect(costs.relative(n)).toBeGreaterThanOrEqual(costs.relative(n - 1));
  });

  test("is not misled by single slow passes", () => {
    const costs = new CostModel(16);
    for (let i = 0; i < 60; i++)
      costs.observe([1, 2, 4, 8][i % 4]!, 3.5 * noisy(i) * FLAT[[1, 2, 4, 8][i % 4]! - 1]!);
    expect(costs.ms(1)).toBeGreaterThan(3.4);
    expect(costs.ms(1)).toBeLessThan(3.8);
    expect(costs.relative(8)).toBeGreaterThan(1.25);
    expect(costs.relative(8)).toBeLessThan(1.45);
  });

  test("follows the machine's speed and keeps the curve", () => {
    const costs = new CostModel(16);
    measure(costs, FLAT);
    for (let i = 0; i < 20; i++) costs.observe(1 + (i % 4), 9 * FLAT[i % 4]!);
    expect(costs.ms(1)).toBeCloseTo(9, 0);
    for (let i = 0; i < 20; i++) costs.observe([1, 8][i % 2]!, 9 * FLAT[[1, 8][i % 2]! - 1]!);
    expect(costs.relative(8)).toBeCloseTo(1.33, 1);
  });

  test("tells a slower machine from a dearer length when all passes have one length", () => {
    const costs = new CostModel(16);
    measure(costs, FLAT);
    for (let i = 0; i < 40; i++) costs.observe(8, 9 * FLAT[7]!);
    expect(costs.ms(1)).toBeCloseTo(9, 0);
    expect(costs.relative(8)).toBeCloseTo(1.33, 1);
  });

  test("keeps what several texts' passes cost beside one over a single token while all passes are theirs", () => {
    const costs = new CostModel(16);
    for (let i = 0; i < 100; i++) costs.observe(1, 3.5);
    measure(costs, FLAT);
    // 8 texts, some of which draft two tokens every fourth pass, on a busy machine.
    for (let i = 0; i < 600; i++) {
      const drafts = i % 4 === 0;
      const coreMs = (drafts ? 1.3 : 1) * (1 + 0.05 * ((i * 7) % 9)) * 3.5 * FLAT[7]!;
      costs.observeShared({ steps: 8, rows: drafts ? 10 : 8, filled: 0, coreMs });
    }
    expect(costs.relative(8)).toBeCloseTo(1.33);
    expect(costs.relative(10) / costs.relative(8)).toBeGreaterThan(1.2);
    expect(costs.ms(8)).toBeLessThan(1.4 * 3.5 * FLAT[7]!);
  });

  test("learns that a length became dearer though most passes have it", () => {
    const costs = new CostModel(16);
    measure(costs, FLAT);
    for (let i = 0; i < 120; i++) costs.observe(i % 4 === 0 ? 1 : 8, i % 4 === 0 ? 3.5 : 3.5 * 2.6);
    expect(costs.relative(8)).toBeCloseTo(2.6, 1);
    expect(costs.ms(1)).toBeCloseTo(3.5, 1);
  });

  test("measures again what has not been seen for long", () => {
    const costs = new CostModel(16);
    measure(costs, FLAT);
    expect(costs.probe()).toBeUndefined();
    for (let i = 0; i < 600; i++) costs.observe(3, 3.5);
    expect(costs.probe()).toBe(1);
  });

  test("tries again soon what seemed dear beside another process", () => {
    const costs = new CostModel(16);
    for (let i = 0; i < 100; i++) costs.observe(1 + (i % 2), 3.5);
    for (const length of [1, 2, 4, 8])
      for (let i = 0; i < 15; i++) costs.observe(length, 3.5 * (length > 2 ? 3 : 1));
    expect(costs.relative(8)).toBeGreaterThan(2.5);
    // From now on the other process is gone, and the planner drafts one token at most.
    let probes = 0;
    for (let i = 0; i < 600; i++) {
      const length = costs.probe() ?? 1 + (i % 2);
      if (length > 2) probes++;
      costs.observe(length, 3.5 * FLAT[length - 1]!);
    }
    expect(costs.relative(8)).toBeLessThan(1.5);
    expect(probes).toBeLessThan(30);
  });

  test("ignores times that are no times", () => {
    const costs = new CostModel(16);
    for (const ms of [0, -1, Number.NaN]) costs.observe(1, ms);
    expect(costs.ms(1)).toBeUndefined();
  });

  test("takes the past off what it learns from, and adds it again", () => {
    const past = { read: 0.0005, attend: 0.0001 };
    const ms = (length: number, position: number) =>
      2 * (FLAT[length - 1]! + position * (past.read + length * past.attend));
    const costs = new CostModel(8, past);
    for (let i = 0; i < 100; i++) {
      const length = [1, 2, 4, 8][i % 4]!;
      costs.observe(length, ms(length, 17 * i), 17 * i);
    }
    for (const length of [1, 2, 4, 8])
      for (const position of [0, 300, 4000]) {
        expect(costs.ms(length, position)).toBeCloseTo(ms(length, position), 4);
        expect(costs.relative(length, position)).toBeCloseTo(ms(length, position) / ms(1, position), 4);
      }
    // A place costs more of a pass where every token looks back far.
    expect(costs.placePrice(2, 4000)).toBeGreaterThan(costs.placePrice(2, 0) + 0.1);
  });

  test("the price of a place is the least average price of those from there on", () => {
    const costs = new CostModel(4);
    for (let i = 0; i < 3; i++) for (const n of [1, 2, 4]) costs.observe(n, [1, 1.5, 0, 1.6][n - 1]!);
    expect(costs.placePrice(2)).toBeCloseTo(0.2, 1);
    expect(costs.placePrice(4)).toBeLessThan(0.2);
  });
});
