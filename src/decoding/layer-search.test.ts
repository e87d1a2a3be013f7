import { describe, expect, test } from "vitest";
import { Seeded } from "../../test/support/seeded.js";
import { draftGain, type LayerSearch, searchLayers } from "./layer-search.js";

/** A model in which only some layers matter, each as much. */
function search(layers: number, matter: readonly number[], seed = 1): LayerSearch {
  const random = new Seeded(seed);
  return {
    layers,
    usual: [0],
    agreement: async (kept) =>
      matter.filter((layer) => kept.includes(layer)).length / Math.max(1, matter.length),
    cost: (count) => (count + 2) / (layers + 2),
    goOn: () => true,
    random: () => random.integer(0, 2 ** 30 - 1) / 2 ** 30,
  };
}

describe("the search", () => {
  test.each([1, 2, 3, 4])("finds the layers that matter and leaves out the others: seed %d", async (seed) => {
    const matter = [0, 3, 4, 7, 11];
    const { best, tried } = await searchLayers(search(12, matter, seed));
    expect(best.kept).toEqual(matter);
    expect(best.agreement).toBe(1);
    expect(best.gain).toBeCloseTo(9 / (1 + (8 * 7) / 14));
    expect(tried).toBeLessThan(1000);
  });

  test("leaves out a quarter of the layers though all matter", async () => {
    const { best } = await searchLayers(search(8, [0, 1, 2, 3, 4, 5, 6, 7]));
    expect(best.kept.length).toBeLessThanOrEqual(6);
  });

  test("has a choice after one trial, and stops when told", async () => {
    let asked = 0;
    const goOn = (tried: number) => {
      asked++;
      return tried < 3;
    };
    expect((await searchLayers({ ...search(12, [5]), goOn: () => false })).tried).toBe(1);
    expect((await searchLayers({ ...search(12, [5]), goOn })).tried).toBe(3);
    expect(asked).toBe(3);
  });

  test("finds nothing worse than what is in use", async () => {
    const usual = [2, 3, 9];
    const { best, tried } = await searchLayers({ ...search(12, usual), usual, goOn: () => false });
    expect(best.kept).toEqual(usual);
    expect(tried).toBe(1);
  });

  test("of two layers keeps the one that matters", async () => {
    expect((await searchLayers(search(2, [1]))).best.kept).toEqual([1]);
  });
});

test("the gain is that of the best length", () => {
  expect(draftGain(0, 0.5)).toBeCloseTo(1 / 1.5);
  expect(draftGain(1, 0.5)).toBeCloseTo(9 / 5);
  expect(draftGain(0.5, 0.1)).toBeCloseTo(1.75 / 1.2); // 1: 1.5/1.1, 2: 1.75/1.2, 3: 1.875/1.3
});
