import { describe, expect, test } from "vitest";
import type { GuideState, Way } from "../guided/constraint.js";
import type { Draft, Drafter } from "./drafter.js";
import { guideDraft, guideGuesser } from "./guide.js";
import { matches } from "./matches.js";
import { DraftMemory } from "./memory.js";
import { mixed } from "./mixture.js";

interface Place {
  readonly allowed: readonly number[];
  readonly forced?: readonly number[];
  readonly ways?: readonly Way[];
}

/** A guide by hand: what may follow each text, its tokens joined by spaces; elsewhere the tokens 0 to 9. */
function guide(places: Readonly<Record<string, Place>>, text: readonly number[] = []): GuideState {
  const { allowed, forced = [], ways = [] } = places[text.join(" ")] ?? { allowed: [...Array(10).keys()] };
  return {
    mask: Int32Array.of(allowed.reduce((bits, token) => bits | (1 << token), 0)),
    forced: (limit) => forced.slice(0, limit),
    ways,
    advance: (token) => (allowed.includes(token) ? guide(places, [...text, token]) : undefined),
  };
}

/** Lookup with the guide; the prompt's continuation of 1 2 3 is 4 5 6. */
function lookup(memory = new DraftMemory()): Drafter {
  const predictors = [matches(65)];
  const drafter = mixed(
    "lookup",
    predictors,
    memory.mixture("lookup", predictors),
    guideGuesser(65, memory.guides),
  );
  void drafter.reset([1, 2, 3, 4, 5, 6, 9, 1, 2, 3], {} as never);
  return drafter;
}
const free = () => 0;

describe("a mixture with a guide", () => {
  const certain = {
    "": { allowed: [7], forced: [7, 1, 2] },
    "7": { allowed: [1], forced: [1, 2, 3] },
    "7 1": { allowed: [2], forced: [2, 3] },
    "7 1 2": { allowed: [3, 8], forced: [3] },
  };

  test("drafts what must follow and goes on behind it", () => {
    const draft = lookup().propose(6, free, guide(certain)) as Draft;
    expect(draft.tokens.slice(0, 3)).toEqual([7, 1, 2]);
    expect(draft.parents!.slice(0, 3)).toEqual([-1, 0, 1]);
    expect(Math.min(...draft.probabilities.slice(0, 3))).toBeGreaterThan(0.99);
    expect(draft.tokens.slice(3)).toContain(3);
    // The text before "7 1 2 3" is no match, "1 2 3" is one.
    expect(draft.tokens.slice(3)).toContain(4);
    expect(draft.sources!.slice(0, 3)).toEqual(["guide", "guide", "guide"]);
    expect(draft.sources![draft.tokens.indexOf(4)]).toBe("lookup");
  });

  test("drafts nothing that the guide forbids", () => {
    const places = { "": { allowed: [0, 5] }, "5": { allowed: [8] } };
    expect((lookup().propose(6, free, guide(places)) as Draft).tokens).toEqual([]);
    expect((lookup().propose(6, free, guide({})) as Draft).tokens).toContain(4);
  });

  test("learns how often a way on is taken", () => {
    const memory = new DraftMemory();
    const ways = [{ byte: 0x22, tokens: [8, 9] }];
    const chance = (drafter: Drafter) => {
      const draft = drafter.propose(6, free, guide({ "": { allowed: [0, 8], ways } })) as Draft;
      return draft.probabilities[draft.tokens.indexOf(8)]!;
    };
    const before = chance(lookup(memory));
    for (let i = 0; i < 20; i++) {
      const drafter = lookup(memory);
      chance(drafter);
      drafter.accept([8]);
    }
    const often = chance(lookup(memory));
    for (let i = 0; i < 60; i++) {
      const drafter = lookup(memory);
      chance(drafter);
      drafter.accept([0]);
    }
    expect(often).toBeGreaterThan(before + 0.2);
    expect(chance(lookup(memory))).toBeLessThan(often - 0.2);
  });
});

test("what other drafters are given has each token once, ways on beside the token that must follow", () => {
  const places = {
    "": { allowed: [7], forced: [7, 1] },
    "7": {
      allowed: [1, 5, 6],
      forced: [1],
      ways: [
        { byte: 0x74, tokens: [5, 2] },
        { byte: 0x66, tokens: [1, 3] },
      ],
    },
  };
  const draft = guideDraft(guide(places), 4);
  expect(draft.tokens).toEqual([7, 1, 5, 2, 3]);
  expect(draft.parents).toEqual([-1, 0, 0, 2, 1]);
  expect(guideDraft(guide(places), 0).tokens).toEqual([]);
});
