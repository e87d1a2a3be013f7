import { expect, test } from "vitest";
import { CostModel } from "./cost-model.js";
import { openStrategy, strategies, strategyNames } from "./strategies.js";
import { fakeSequence } from "./testing.js";

test.each(strategyNames)("%s opens, limits its drafts and closes", (name) => {
  const draft = fakeSequence();
  const context = { costs: new CostModel(16), draftLength: 3, draftSequence: () => draft };
  using strategy = openStrategy(name, context);
  expect(strategy.planner.limit(9)).toBe(name === "none" ? 0 : 3);
  expect(strategies[name].summary).toMatch(/\.$/);
});

test("a strategy without a fixed length follows the costs", () => {
  using strategy = openStrategy("lookup", { costs: new CostModel(16) });
  // The first pass measures plain decoding.
  expect(strategy.planner.limit(9)).toBe(0);
});

test("a draft model's strategy refuses to open without one", () => {
  expect(() => openStrategy("draft-model", { costs: new CostModel(16) })).toThrow(TypeError);
});
