import { describe, expect, test } from "vitest";
import { CostModel } from "./cost-model.js";
import { adaptiveLength, fixedLength, type Planner, reachOf } from "./plan.js";

const FLAT = [1, 1, 1.02, 1.07, 1.16, 1.25, 1.29, 1.33, 1.46, 1.6, 1.73, 1.86, 2, 2.13, 2.27, 2.4];
const STEEP = FLAT.map((_, i) => 1 + 0.9 * i);
const SINGLE_MS = 3.5;

function measured(curve: readonly number[]): CostModel {
  const costs = new CostModel(curve.length);
  for (let i = 0; i < 3; i++) for (const n of [1, 2, 4, 8, 16]) costs.observe(n, SINGLE_MS * curve[n - 1]!);
  return costs;
}

/** A chain whose tokens come true with this probability each. */
const chain = (probability: number, length = 15) => Array.from({ length }, (_, i) => probability ** (i + 1));

interface World {
  readonly curve: readonly number[];
  readonly claimed: number;
  readonly actual: number;
  readonly draftMsPerToken?: number;
  readonly passes?: number;
}

/** Decodes with chains; the actual acceptance is spread evenly over the passes. Returns the gain over plain decoding. */
function live(planner: Planner, { curve, claimed, actual, draftMsPerToken = 0, passes = 2000 }: World) {
  let tokens = 0;
  let cost = 0;
  let verified = 0;
  let draw = 0.5;
  for (let i = 0; i < passes; i++) {
    const limit = planner.limit(curve.length - 1);
    const reach = chain(claimed, limit);
    const drafted = limit > 0 ? planner.choose(reach).length : 0;
    const length = planner.padTo(drafted + 1, curve.length);
    let accepted = 0;
    for (; accepted < drafted; accepted++) {
      draw = (draw + 0.6180339887498949) % 1;
      if (draw >= actual) break;
    }
    const draftMs = draftMsPerToken * limit;
    const coreMs = SINGLE_MS * curve[length - 1]!;
    planner.observe({
      length,
      coreMs,
      draftMs,
      proposed: limit,
      drafted,
      emitted: accepted + 1,
    });
    tokens += accepted + 1;
    cost += coreMs + draftMs;
    verified += drafted;
  }
  return { gain: (tokens * SINGLE_MS) / cost, drafted: verified / passes };
}

describe("rest", () => {
  test("is all passes without drafting, none with a fixed length, and those until a heavy drafter is tried again", () => {
    expect(fixedLength(0).rest()).toBe(Number.POSITIVE_INFINITY);
    expect(fixedLength(3).rest()).toBe(0);
    const light = adaptiveLength(measured(FLAT), { isLight: true });
    live(light, { curve: FLAT, claimed: 0.5, actual: 0 });
    expect(light.rest()).toBe(0);
    const heavy = adaptiveLength(measured(FLAT));
    expect(heavy.rest()).toBe(0);
    live(heavy, { curve: FLAT, claimed: 0.5, actual: 0, draftMsPerToken: SINGLE_MS, passes: 100 });
    const rest = heavy.rest();
    expect(rest).toBeGreaterThan(300);
    const pass = { length: 1, coreMs: SINGLE_MS, draftMs: 0, proposed: 0, drafted: 0, emitted: 1 };
    let tried = 0;
    for (let i = 0; i <= rest; i++) {
      if (heavy.limit(8) > 0) tried++;
      heavy.observe(pass);
    }
    expect(tried).toBe(0);
    expect(heavy.limit(8)).toBe(1);
    expect(heavy.rest()).toBe(0);
  });
});

describe("reachOf", () => {
  test("multiplies along a chain", () => {
    expect(reachOf({ tokens: [1, 2], probabilities: [0.5, 0.5] })).toEqual([0.5, 0.25]);
  });
  test("multiplies along the branches of a tree", () => {
    expect(reachOf({ tokens: [1, 2, 3], parents: [-1, -1, 0], probabilities: [0.5, 0.25, 0.5] })).toEqual([
      0.5, 0.25, 0.25,
    ]);
  });
  test("reads nonsense as the nearest probability", () => {
    expect(reachOf({ tokens: [1, 2, 3], parents: [-1, -1, -1], probabilities: [7, -1, Number.NaN] })).toEqual(
      [1, 0, 0],
    );
  });
});

describe("fixedLength", () => {
  test("takes what there is, up to its length", () => {
    const planner = fixedLength(3);
    expect(planner.limit(8)).toBe(3);
    expect(planner.limit(2)).toBe(2);
    expect(planner.choose([0, 0, 0])).toEqual([0, 1, 2]);
    expect(planner.padTo(2, 8)).toBe(2);
  });
});

describe("adaptiveLength", () => {
  test("verifies nothing where each token costs a pass", () => {
    const planner = adaptiveLength(measured(STEEP));
    expect(planner.choose(chain(0.7))).toEqual([]);
  });

  test("verifies 7 and more where 8 tokens cost 1.33 and the draft is good", () => {
    const planner = adaptiveLength(measured(FLAT));
    expect(planner.choose(chain(0.95)).length).toBeGreaterThanOrEqual(7);
    expect(planner.choose(chain(0.3)).length).toBeLessThanOrEqual(3);
  });

  test("prefers a likely branch to an unlikely deep one, ancestors first", () => {
    const planner = adaptiveLength(measured(FLAT.map((c, i) => c + 0.3 * i)));
    const reach = reachOf({
      tokens: [1, 2, 3, 4],
      parents: [-1, 0, -1, 2],
      probabilities: [0.3, 0.1, 0.65, 0.9],
    });
    expect(planner.choose(reach)).toEqual([2, 3]);
  });

  test("never takes more than the limit allows or the curve reaches", () => {
    const planner = adaptiveLength(new CostModel(4));
    for (let i = 0; i < 20; i++) {
      expect(planner.limit(9)).toBeLessThanOrEqual(3);
      expect(planner.choose(chain(1, 40)).length).toBeLessThanOrEqual(3);
      planner.observe({ length: 1, coreMs: 1, draftMs: 0, proposed: 0, drafted: 0, emitted: 1 });
    }
  });

  test.each([
    // The best constant length for the curve, from the design: 1.36, 1.75, 2.4, 4.3.
    [0.3, 1.34],
    [0.5, 1.7],
    [0.7, 2.35],
    [0.9, 4.2],
  ])("an acceptance of %d brings a gain of about %d", (acceptance, gain) => {
    const world = { curve: FLAT, claimed: acceptance, actual: acceptance };
    expect(live(adaptiveLength(measured(FLAT)), world).gain).toBeGreaterThan(gain);
  });

  test("a drafter that is sure and always wrong costs less than 1 %", () => {
    const lies = { claimed: 0.99, actual: 0 };
    expect(live(adaptiveLength(measured(FLAT)), { curve: FLAT, ...lies }).gain).toBeGreaterThan(0.99);
    expect(live(adaptiveLength(measured(STEEP)), { curve: STEEP, ...lies }).gain).toBeGreaterThan(0.97);
  });

  test("a drafter that is too dear is asked rarely", () => {
    const dear = { curve: FLAT, claimed: 0.5, actual: 0.5, draftMsPerToken: SINGLE_MS };
    expect(live(adaptiveLength(measured(FLAT)), dear).gain).toBeGreaterThan(0.97);
  });

  test.each([0.1, 0.3, 0.5, 0.8, 1, 3])(
    "a drafter that takes %d passes to say nothing is asked rarely",
    (share) => {
      const planner = adaptiveLength(measured(FLAT));
      let cost = 0;
      for (let i = 0; i < 2000; i++) {
        const draftMs = planner.limit(15) > 0 ? share * SINGLE_MS : 0;
        planner.observe({ length: 1, coreMs: SINGLE_MS, draftMs, proposed: 0, drafted: 0, emitted: 1 });
        cost += SINGLE_MS + draftMs;
      }
      expect(cost / (2000 * SINGLE_MS)).toBeLessThan(1.02);
    },
  );

  test("a drafter that could not be asked for a while is no cheaper for it", () => {
    const planner = adaptiveLength(measured(FLAT));
    const costly = { curve: FLAT, claimed: 0.9, actual: 0.9, draftMsPerToken: 0.3 * SINGLE_MS };
    live(planner, { ...costly, passes: 50 });
    for (let i = 0; i < 50; i++)
      planner.observe({ length: 1, coreMs: SINGLE_MS, draftMs: 0, proposed: 0, drafted: 0, emitted: 1 });
    expect(planner.limit(15)).toBeLessThan(4);
    expect(planner.price(1)).toBeGreaterThan(0.3);
  });

  test("a drafter that was too dear is tried again and used once it is cheap", () => {
    const planner = adaptiveLength(measured(FLAT));
    const world = { curve: FLAT, claimed: 0.9, actual: 0.9 };
    expect(live(planner, { ...world, draftMsPerToken: 2 * SINGLE_MS, passes: 100 }).drafted).toBeLessThan(
      0.1,
    );
    expect(live(planner, { ...world, passes: 10_000 }).gain).toBeGreaterThan(1.5);
  });

  test("a drafter whose first draft took long, as cold code does, is used at once", () => {
    const planner = adaptiveLength(measured(FLAT));
    const world = { curve: FLAT, claimed: 0.9, actual: 0.9 };
    live(planner, { ...world, draftMsPerToken: 4 * SINGLE_MS, passes: 1 });
    expect(live(planner, { ...world, passes: 50 }).gain).toBeGreaterThan(2);
  });

  test.each([false, true])("a light drafter whose code was cold is used soon, guided: %s", (isGuided) => {
    const planner = adaptiveLength(measured(FLAT), { isLight: true, isGuided });
    const world = { curve: FLAT, claimed: 0.9, actual: 0.9 };
    live(planner, { ...world, draftMsPerToken: 2 * SINGLE_MS, passes: 4 });
    expect(live(planner, { ...world, passes: 30 }).gain).toBeGreaterThan(2.5);
  });

  test("a dear drafter that is worth it is used", () => {
    const good = { curve: FLAT, claimed: 0.9, actual: 0.9, draftMsPerToken: 0.15 * SINGLE_MS };
    expect(live(adaptiveLength(measured(FLAT)), good).gain).toBeGreaterThan(1.9);
  });

  test("finds out by itself that length is dear", () => {
    const world = { curve: STEEP, claimed: 0.5, actual: 0.5 };
    const { gain, drafted } = live(adaptiveLength(new CostModel(STEEP.length)), world);
    expect(gain).toBeGreaterThan(0.98);
    expect(drafted).toBeLessThan(0.05);
  });

  test.each([
    [8, 0],
    [2, 1],
  ])("beside %i texts that share its passes it asks for %i tokens", (texts, wanted) => {
    const planner = adaptiveLength(new CostModel(16));
    for (let i = 0; i < 200; i++) {
      const shared = { steps: texts, rows: texts, filled: 0, coreMs: SINGLE_MS };
      planner.limit(15);
      planner.observe({
        length: 1,
        coreMs: SINGLE_MS,
        draftMs: 0,
        proposed: 0,
        drafted: 0,
        emitted: 1,
        shared,
      });
    }
    expect(planner.limit(15)).toBe(wanted);
  });
});
