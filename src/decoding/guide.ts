// Guided text in decoding: what must come is drafted, drafts that may not come are cut before they cost a pass, and
// every row's pick is bounded by the mask of its own place in the tree, so that all strategies give the same text.
import type { GuideState } from "../guided/constraint.js";
import type { Draft } from "./drafter.js";

// The text is certain; how the model splits it into tokens is not quite.
const forcedChance = 0.95;

// Of a place where a value may end, or one of few words follows, counted over JSON answers of the embedded model.
const branchChance = 0.3;

/**
 * What the guide expects, as a tree of about `limit` tokens: the text that must follow and, where the model has a choice,
 * the ways on behind which more must follow (a string that ends here and the next property's name, true or false).
 */
export function guideDraft(state: GuideState, limit: number): Draft {
  const tokens: number[] = [];
  const parents: number[] = [];
  const probabilities: number[] = [];
  let end: GuideState | undefined = state;
  for (const token of limit > 0 ? state.forced(limit) : []) {
    parents.push(tokens.length - 1);
    tokens.push(token);
    probabilities.push(forcedChance);
    end = end?.advance(token);
  }
  const fork = tokens.length - 1;
  const branches = end && tokens.length < limit ? end.branches(limit - tokens.length) : [];
  for (const branch of branches)
    branch.forEach((token, i) => {
      parents.push(i === 0 ? fork : tokens.length - 1);
      tokens.push(token);
      probabilities.push(i > 0 ? forcedChance : branchChance);
    });
  return { tokens, parents, probabilities, sources: tokens.map(() => "guide") };
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
