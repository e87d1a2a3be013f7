import { Calibration } from "./calibration.js";
import { type Draft, type Drafter, EMPTY_DRAFT, type PassInfo } from "./drafter.js";
import { LOOKUP_KINDS, lookupKind } from "./lookup.js";
import { SUCCESSOR_KINDS, Successors } from "./successors.js";
import { ROOT, SuffixAutomaton } from "./suffix-automaton.js";

/** What drafting learned from a model's texts, whichever they were; one for a loaded model. */
export class DraftMemory {
  readonly successors = new Successors();
  readonly calibration = new Calibration(PRIOR, PRIOR_STRENGTH);
}

/**
 * Token by token the likelier of two guesses: what followed the longest match in the text (lookup), and what the model
 * chose when it last stood behind the same two tokens, or the same one, in any text (token recycling). Whether the two
 * agree says much about both, so they are calibrated apart. `matches: false` leaves the first out.
 */
export function combined(memory: DraftMemory, options: { matches: boolean }): Drafter {
  const { successors, calibration } = memory;
  const automaton = new SuffixAutomaton();
  let last = -1;
  let beforeLast = -1;
  let drafted: number[] = [];
  let kinds: number[] = [];

  const append = (token: number) => {
    if (options.matches) automaton.append(token);
    beforeLast = last;
    last = token;
  };

  return {
    name: options.matches ? "combined" : "recycle",
    reset(prompt) {
      automaton.clear();
      last = -1;
      beforeLast = -1;
      for (const token of prompt) append(token);
      drafted = [];
    },
    accept(tokens, pass) {
      calibration.observeChain(drafted, kinds, tokens);
      drafted = [];
      if (pass) learn(successors, pass, beforeLast);
      for (const token of tokens) append(token);
    },
    propose(limit, floor): Draft {
      if (last < 0) return EMPTY_DRAFT;
      const tokens: number[] = [];
      const probabilities: number[] = [];
      drafted = tokens;
      kinds = [];
      let previous = beforeLast;
      let token = last;
      // Where the match goes on; undefined once the draft has left it.
      let from: number | undefined = automaton.match === ROOT ? undefined : automaton.matchEnd;
      let state: number | undefined = automaton.match;
      let length = automaton.lengthOf(automaton.match);
      let reach = 1;
      while (tokens.length < limit) {
        // A match that reaches into itself repeats with a period: beyond the text's end comes the draft's own start.
        const matched: number | undefined =
          from === undefined
            ? undefined
            : from < automaton.size
              ? automaton.tokenAt(from)
              : tokens[from - automaton.size]!;
        const slot = successors.find(previous, token);
        const recycled = slot === undefined ? undefined : successors.nextOf(slot);
        if (matched === undefined && recycled === undefined) break;
        const relation =
          matched === undefined || recycled === undefined ? ALONE : matched === recycled ? AGREE : DISAGREE;
        const matchKind: number | undefined =
          matched === undefined
            ? undefined
            : 3 * lookupKind(length, state === undefined || automaton.isUnanimous(state)) + relation;
        const recycledKind =
          slot === undefined ? undefined : 3 * (LOOKUP_KINDS + successors.kindOf(slot)) + relation;
        const matchChance = matchKind === undefined ? 0 : calibration.estimate(matchKind);
        const recycledChance = recycledKind === undefined ? 0 : calibration.estimate(recycledKind);
        const byMatch = matched !== undefined && (relation === AGREE || matchChance >= recycledChance);
        const probability = byMatch ? matchChance : recycledChance;
        reach *= probability;
        if (reach < Math.max(floor, NEGLIGIBLE)) break;
        const next = byMatch ? matched! : recycled!;
        tokens.push(next);
        kinds.push(byMatch ? matchKind! : recycledKind!);
        probabilities.push(probability);
        if (from !== undefined && next === matched) {
          from++;
          length++;
          state = state === undefined ? undefined : automaton.next(state, next);
        } else from = undefined;
        previous = token;
        token = next;
      }
      return { tokens, probabilities };
    },
    [Symbol.dispose]() {
      automaton.clear();
    },
  };
}

function learn(successors: Successors, { tokens, parents, result }: PassInfo, beforeFirst: number): void {
  for (let row = 0; row < tokens.length; row++) {
    const parent = parents[row]!;
    successors.record(parent < 0 ? beforeFirst : tokens[parent]!, tokens[row]!, result.picks[row]!);
  }
}

const ALONE = 0;
const AGREE = 1;
const DISAGREE = 2;
const NEGLIGIBLE = 0.02;

/** By kind of guess, then ALONE, AGREE, DISAGREE; a recycled guess that agrees counts as a matched one. */
const PRIOR = [
  ...Array.from({ length: LOOKUP_KINDS }, (_, kind) => [
    0.3 + 0.04 * kind,
    0.5 + 0.03 * kind,
    0.2 + 0.03 * kind,
  ]).flat(),
  ...Array.from({ length: SUCCESSOR_KINDS }, (_, kind) => [
    0.25 + 0.08 * kind,
    0.5,
    0.15 + 0.08 * kind,
  ]).flat(),
];
const PRIOR_STRENGTH = 12;
