import { CONTEXT, type DraftTree, type Guesses, type Predictor } from "./predictor.js";
import { ROOT, SuffixAutomaton } from "./suffix-automaton.js";

/**
 * What followed the same words before, in the prompt or the answer: prompt lookup (Saxena 2023) for matches of any
 * length, by a suffix automaton as in SAM decoding (Hu et al. 2024, arXiv:2411.10666). A draft that leaves the match
 * goes on with the longest match of its own.
 */
export function matches(most: number): Predictor {
  const automaton = new SuffixAutomaton();
  // For each node of the tree the state of its longest match, and the match's length.
  const states = new Int32Array(most);
  const lengths = new Int32Array(most);
  const found = { count: 0, tokens: new Int32Array(MOST) };

  return {
    name: "lookup",
    priors: PRIORS,
    strength: PRIOR_STRENGTH,
    gates: LENGTHS.length + 1,
    reset(prompt) {
      automaton.clear();
      for (const token of prompt) automaton.append(token);
    },
    accept(tokens) {
      for (const token of tokens) automaton.append(token);
    },
    guess(tree: DraftTree, node: number, into: Guesses): number {
      if (node === 0) {
        states[0] = automaton.match;
        lengths[0] = automaton.lengthOf(automaton.match);
      } else {
        const parent = tree.parents[node]!;
        const token = tree.recent[node * CONTEXT]!;
        let state = states[parent]!;
        let length = lengths[parent]!;
        let next = automaton.next(state, token);
        while (next === undefined && state !== ROOT) {
          state = automaton.linkOf(state);
          length = automaton.lengthOf(state);
          next = automaton.next(state, token);
        }
        // What the text ends with has not been continued yet: its longest suffix that has.
        if (next !== undefined) length++;
        while (next !== undefined && next !== ROOT && automaton.isLeaf(next)) {
          next = automaton.linkOf(next);
          length = automaton.lengthOf(next);
        }
        states[node] = next ?? ROOT;
        lengths[node] = next === undefined || next === ROOT ? 0 : length;
      }
      const state = states[node]!;
      if (state === ROOT || lengths[node] === 0) {
        into.absent = NOTHING;
        return 0;
      }
      const bucket = bucketOf(lengths[node]!);
      automaton.continuations(state, node === 0 ? automaton.matchEnd : automaton.lastEndOf(state), found);
      const unanimous = found.count === 1 ? 1 : 0;
      for (let i = 0; i < found.count; i++)
        into.add(
          found.tokens[i]!,
          i === 0 ? 2 * bucket + unanimous : SECOND + (i - 1) * LENGTHS.length + bucket,
        );
      into.absent = ABSENT + 2 * bucket + unanimous;
      // Shorter matches know other continuations.
      let link = automaton.linkOf(state);
      for (let i = 0; i < LINKS && into.count < MOST && link !== ROOT; i++) {
        automaton.continuations(link, automaton.lastEndOf(link), found);
        for (let j = 0; j < found.count && into.count < MOST; j++)
          if (!into.has(found.tokens[j]!))
            into.add(found.tokens[j]!, SHORTER + bucketOf(automaton.lengthOf(link)));
        link = automaton.linkOf(link);
      }
      return bucket + 1;
    },
  };
}

const MOST = 3;
const LINKS = 3;

/** Match lengths are told apart from these on. */
const LENGTHS = [1, 2, 3, 4, 6, 9, 16] as const;
const NUM = LENGTHS.length;
const SECOND = 2 * NUM;
const SHORTER = SECOND + 2 * NUM;
const ABSENT = SHORTER + NUM;
const NOTHING = ABSENT + 2 * NUM;

function bucketOf(length: number): number {
  let bucket = NUM - 1;
  while (LENGTHS[bucket]! > length) bucket--;
  return bucket;
}

const PRIORS = Float64Array.from([
  ...[0.14, 0.31, 0.45, 0.65, 0.45, 0.76, 0.5, 0.77, 0.55, 0.8, 0.6, 0.87, 0.75, 0.93],
  ...[0.06, 0.1, 0.14, 0.16, 0.16, 0.16, 0.12],
  ...[0.04, 0.06, 0.08, 0.1, 0.1, 0.1, 0.06],
  ...[0.06, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
  ...[0.1, 0.1, 0.08, 0.05, 0.06, 0.04, 0.05, 0.03, 0.05, 0.02, 0.04, 0.02, 0.02, 0.01],
  0.2,
]);
const PRIOR_STRENGTH = 12;
