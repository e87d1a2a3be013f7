import type { Draft, Drafter, PassInfo } from "./drafter.js";

export interface LookaheadShape {
  /** Columns of the window: places behind the text at which guesses are refined; 0: none, the pool lives on the text. */
  readonly window: number;
  /** Tokens of an n-gram, at least 2. */
  readonly ngram: number;
  /** n-grams verified in a pass, and kept for each token. */
  readonly candidates: number;
}

/**
 * Lookahead decoding (Fu et al. 2024, arXiv:2402.02057). A window of guesses is refined by Jacobi steps; what stands on
 * its diagonals are n-grams that the model likes, and those that begin with the text's last token are verified in the
 * same pass. Both branches are one tree: level 0 of the window is a chain behind the text, and the later levels of a
 * column hang below its token of level 0. The text's own n-grams go into the pool too.
 */
export function lookahead(shape: LookaheadShape): Drafter {
  const { window, ngram, candidates } = shape;
  const depth = ngram - 1;
  /** By first token the latest continuations, newest first. */
  const pool = new Map<number, number[][]>();
  const text: number[] = [];
  /** [level][column], oldest first; grows to `depth` levels. */
  let levels: number[][] = [];
  /** [column] the pass index of the newest level's node; empty where the window was not in the pass. */
  let newest: number[] = [];
  let seed = 1;

  const put = (first: number, rest: readonly number[]) => {
    const known = (pool.get(first) ?? []).filter((other) => other.some((token, i) => token !== rest[i]));
    pool.set(first, [[...rest], ...known].slice(0, candidates));
  };
  const anyToken = (): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return text[seed % text.length]!;
  };
  const append = (token: number) => {
    text.push(token);
    if (text.length >= ngram) put(text.at(-ngram)!, text.slice(1 - ngram));
  };

  return {
    name: "lookahead",
    reset(prompt) {
      text.length = 0;
      pool.clear();
      for (const token of prompt) append(token);
      levels = [];
      newest = [];
      seed = 1;
    },
    accept(tokens, pass?: PassInfo) {
      for (const token of tokens) append(token);
      const rows = newest;
      newest = [];
      // Where the planner left out a part of the window, the levels stay as they are.
      if (pass === undefined || rows.length < window || rows.some((row) => row >= pass.rows)) return;
      const next = rows.map((row) => pass.result.picks[row]!);
      for (const [column, pick] of next.entries())
        if (levels.length === depth)
          put(levels[0]![column]!, [...levels.slice(1).map((level) => level[column]!), pick]);
      levels.push(next);
      // A level stands one place further than the one before it, so the oldest gives way when the text moves by one.
      if (levels.length > depth) levels.shift();
      const skipped = tokens.length - 1;
      levels = levels.map((level) => [...level.slice(skipped), ...level.slice(0, skipped).map(anyToken)]);
    },
    propose(limit): Draft {
      const tokens: number[] = [];
      const parents: number[] = [];
      const probabilities: number[] = [];
      const add = (token: number, parent: number, probability: number): number => {
        tokens.push(token);
        parents.push(parent);
        probabilities.push(probability);
        return tokens.length - 1;
      };
      for (const rest of pool.get(text.at(-1)!) ?? []) {
        if (tokens.length + rest.length > limit) break;
        let parent = -1;
        for (const token of rest) {
          const twin = tokens.findIndex((other, i) => other === token && parents[i] === parent);
          parent = twin >= 0 ? twin : add(token, parent, CANDIDATE);
        }
      }
      newest = [];
      if (levels.length === 0) levels = [Array.from({ length: window }, anyToken)];
      if (text.length > 0 && tokens.length + window * levels.length <= limit) {
        const nodes: number[] = [];
        for (const [column, token] of levels[0]!.entries())
          nodes.push(add(token, nodes[column - 1] ?? -1, GUESS));
        for (const level of levels.slice(1))
          for (const [column, token] of level.entries()) nodes[column] = add(token, nodes[column]!, GUESS);
        newest = nodes.map((node) => node + 1);
      }
      return { tokens, parents, probabilities };
    },
    [Symbol.dispose]() {
      text.length = 0;
      pool.clear();
    },
  };
}

const CANDIDATE = 0.3;
const GUESS = 0.05;
