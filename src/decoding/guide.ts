// Guided text in decoding: what must come is drafted, drafts that may not come are cut before they cost a pass, and
// every row's pick is bounded by the mask of its own place in the tree, so that all strategies give the same text.
import type { GuideState, Way } from "../guided/constraint.js";
import { Calibration } from "./calibration.js";
import type { Draft } from "./drafter.js";
import { type DraftTree, type Guesses, MOST_GUESSES } from "./predictor.js";

// The text is certain; how the model splits its last token is not quite.
const forcedChance = 0.95;

// Of a place where a value may end, or one of few words follows, counted over JSON answers of the embedded model.
const wayChance = 0.3;

/**
 * What the guide expects, as a tree of about `limit` tokens: the text that must follow and, where the model has a choice,
 * the ways on behind which more must follow (a string that ends here and the next property's name, true or false).
 */
export function guideDraft(state: GuideState, limit: number): Draft {
  let draft: Draft = { tokens: [], parents: [], probabilities: [], sources: [] };
  let fork: GuideState | undefined = state;
  const certain: number[] = [];
  while (fork && certain.length < limit && fork.forced(2).length === 2) {
    certain.push(fork.forced(1)[0]!);
    fork = fork.advance(certain.at(-1)!);
  }
  const chains = fork ? [fork.forced(1), ...fork.ways.map(({ tokens }) => tokens)] : [[]];
  for (const [i, chain] of chains.entries()) {
    const tokens = [...certain, ...chain].slice(0, Math.max(0, limit));
    const probabilities = tokens.map((_, at) => (i > 0 && at === certain.length ? wayChance : forcedChance));
    draft = mergedDraft(draft, { tokens, probabilities }, ["guide", "guide"]);
  }
  return draft;
}

/** Both trees as one; what both have counts once, with the better chance. */
export function mergedDraft(a: Draft, b: Draft, names: readonly [string, string]): Draft {
  const tokens: number[] = [];
  const parents: number[] = [];
  const probabilities: number[] = [];
  const sources: string[] = [];
  const known = new Map<string, number>();
  for (const [draft, name] of [
    [a, names[0]],
    [b, names[1]],
  ] as const) {
    const place = new Map([[-1, -1]]);
    draft.tokens.forEach((token, i) => {
      const parent = place.get(draft.parents?.[i] ?? i - 1)!;
      const key = `${parent},${token}`;
      let at = known.get(key);
      if (at === undefined) {
        at = tokens.length;
        known.set(key, at);
        tokens.push(token);
        parents.push(parent);
        probabilities.push(draft.probabilities[i]!);
        sources.push(draft.sources?.[i] ?? name);
      } else probabilities[at] = Math.max(probabilities[at]!, draft.probabilities[i]!);
      place.set(i, at);
    });
  }
  return { tokens, parents, probabilities, sources };
}

/** The part of a draft that the guide lets stand. */
export function allowedDraft(draft: Draft, state: GuideState): Draft {
  const states = new Map<number, GuideState | undefined>([[-1, state]]);
  const place = new Map([[-1, -1]]);
  const kept: number[] = [];
  const parents: number[] = [];
  draft.tokens.forEach((token, i) => {
    const parent = draft.parents?.[i] ?? i - 1;
    const before = states.get(parent);
    const allowed = before && ((before.mask[token >> 5] ?? 0) >>> (token & 31)) & 1;
    if (!allowed) return;
    states.set(i, before.advance(token));
    place.set(i, kept.length);
    parents.push(place.get(parent)!);
    kept.push(i);
  });
  return {
    tokens: kept.map((i) => draft.tokens[i]!),
    parents,
    probabilities: kept.map((i) => draft.probabilities[i]!),
    ...(draft.sources && { sources: kept.map((i) => draft.sources![i]!) }),
  };
}

/** A guide beside the predictors of a mixture: it knows what may follow, and what often does. */
export interface GuideGuesser {
  /** The text stands here, before anything is asked. */
  begin(state: GuideState): void;
  /** The token that must follow a node, or guesses at it. Asked about a node after its parent. */
  guess(tree: DraftTree, node: number, into: Guesses): number | undefined;
  allows(node: number, token: number): boolean;
  /** The chance of a guess, by its kind and by what the predictors give it. */
  chance(kind: number, estimate: number): number;
  observe(kind: number, estimate: number, right: boolean): void;
}

/** What guesses of guides come to, for a loaded model. */
export const guideCalibration = () => new Calibration(PRIORS, PRIOR_STRENGTH);

/** `most` nodes of a tree. */
export function guideGuesser(most: number, calibration: Calibration): GuideGuesser {
  const states: (GuideState | undefined)[] = new Array(most).fill(undefined);
  let root: GuideState | undefined;
  return {
    begin(state) {
      root = state;
    },
    guess(tree, node, into) {
      const state = node === 0 ? root : states[tree.parents[node]!]?.advance(tree.token(node));
      states[node] = state;
      into.count = 0;
      const forced = state?.forced(2) ?? [];
      if (!state || forced.length === 2) return forced[0];
      const { ways } = state;
      if (forced.length > 0) {
        const agreed = ways.length > 0 && ways.every(({ tokens }) => tokens[0] === forced[0]);
        into.add(forced[0]!, ways.length === 0 ? ALONE : agreed ? AGREED : OWN + classOf(ways[0]!));
      }
      for (const way of ways)
        if (into.count < MOST_GUESSES && !into.has(way.tokens[0]!))
          into.add(way.tokens[0]!, classOf(way) === WORD ? WORDS + ways.length - 1 : classOf(way));
      return undefined;
    },
    allows(node, token) {
      const mask = states[node]?.mask;
      return mask !== undefined && ((mask[token >> 5]! >>> (token & 31)) & 1) === 1;
    },
    chance: (kind, estimate) => calibration.estimate(kind * LEVELS.length + levelOf(estimate)),
    observe: (kind, estimate, right) => calibration.observe(kind * LEVELS.length + levelOf(estimate), right),
  };
}

/** What a way on begins with: the end of a string, of an item, of a list or an object, a digit, or a word. */
const CLASSES: readonly string[] = ['"', ",", "}]", "0123456789"];
const WORD = CLASSES.length;

function classOf({ byte }: Way): number {
  const found = CLASSES.findIndex((characters) => characters.includes(String.fromCharCode(byte)));
  return found < 0 ? WORD : found;
}

/** What the predictors say of a guess is told apart from these estimates on. */
const LEVELS: readonly number[] = [0, 0.1, 0.35];
const levelOf = (estimate: number) => (estimate < LEVELS[1]! ? 0 : estimate < LEVELS[2]! ? 1 : 2);

// Kinds of guesses: ways on by their class, words by how many there are; the token that must follow, where ways on
// before which it stands begin otherwise, where they all begin with it, and where there are none.
const WORDS = WORD;
const OWN = WORDS + MOST_GUESSES;
const AGREED = OWN + CLASSES.length + 1;
const ALONE = AGREED + 1;
/** [kinds × levels] roughly as counted over ten JSON answers of the embedded model. */
const PRIORS = Float64Array.from(
  [
    [0.06, 0.18, 0.7],
    [0.4, 0.6, 0.75],
    [0.3, 0.5, 0.75],
    [0.03, 0.15, 0.3],
    [0.9, 0.95, 0.98],
    [0.4, 0.5, 0.7],
    [0.25, 0.4, 0.6],
    [0.2, 0.4, 0.6],
    [0.3, 0.7, 0.95],
    [0.25, 0.5, 0.8],
    [0.25, 0.5, 0.8],
    [0.9, 0.95, 0.98],
    [0.35, 0.5, 0.5],
    [0.97, 0.98, 0.99],
    [0.8, 0.95, 0.95],
  ].flat(),
);
const PRIOR_STRENGTH = 8;

/** The mask of every row of a pass; undefined for rows that the guide does not reach (padding, what follows an end). */
export function masksOf(
  tokens: readonly number[],
  parents: readonly number[],
  state: GuideState,
): (Int32Array | undefined)[] {
  const states: (GuideState | undefined)[] = [state];
  for (let row = 1; row < tokens.length; row++) states.push(states[parents[row]!]?.advance(tokens[row]!));
  return states.map((s) => s?.mask);
}
