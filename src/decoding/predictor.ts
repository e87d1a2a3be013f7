import type { PassInfo } from "./drafter.js";

/** How far back a predictor may look without a memory of its own. */
export const CONTEXT = 4;
/** In place of a token before the text's first one. */
export const NO_TOKEN = -1;
/** The most guesses that a predictor makes at one place. */
export const MOST_GUESSES = 4;

/**
 * A tree of guessed tokens behind a text, as it grows. Node 0 is the text's last token; every other node holds a
 * guessed token that follows its parent's.
 */
export class DraftTree {
  size = 0;
  readonly parents: Int32Array;
  /** [node × CONTEXT] the node's own token, then those before it, the text's among them. */
  readonly recent: Int32Array;

  constructor(capacity: number) {
    this.parents = new Int32Array(capacity);
    this.recent = new Int32Array(capacity * CONTEXT);
  }

  /** Only the root. `last`: the text's last `CONTEXT` tokens, the latest first. */
  begin(last: ArrayLike<number>): void {
    this.parents[0] = -1;
    this.recent.set(last, 0);
    this.size = 1;
  }

  add(parent: number, token: number): number {
    const node = this.size++;
    this.parents[node] = parent;
    this.recent[node * CONTEXT] = token;
    for (let i = 1; i < CONTEXT; i++)
      this.recent[node * CONTEXT + i] = this.recent[parent * CONTEXT + i - 1]!;
    return node;
  }

  token(node: number): number {
    return this.recent[node * CONTEXT]!;
  }
}

/** What a predictor says of one place. */
export class Guesses {
  count = 0;
  readonly tokens = new Int32Array(MOST_GUESSES);
  /** What each guess rests on: guesses of one kind come true about equally often. */
  readonly kinds = new Int32Array(MOST_GUESSES);
  /** The kind of every token that is not among the guesses. */
  absent = 0;

  add(token: number, kind: number): void {
    this.tokens[this.count] = token;
    this.kinds[this.count++] = kind;
  }

  has(token: number): boolean {
    for (let i = 0; i < this.count; i++) if (this.tokens[i] === token) return true;
    return false;
  }
}

/** Guesses at single tokens; `mixture.ts` makes a drafter of one or several. Costs microseconds a guess. */
export interface Predictor {
  readonly name: string;
  /** For each kind of guess the chance that it comes true, before anything was observed. */
  readonly priors: Float64Array;
  /** How much a prior weighs, in observations. */
  readonly strength: number;
  /** Mixing weights are learned apart for each gate, 0 to `gates` - 1. */
  readonly gates: number;
  /** With how many runners-up every row of a pass should come; default 0. */
  readonly top?: number;
  reset(prompt: readonly number[]): void;
  accept(tokens: readonly number[], pass?: PassInfo): void;
  /**
   * Guesses, likeliest first, at the token behind a node of the tree, whose ancestors it was asked about before.
   * Returns the gate.
   */
  guess(tree: DraftTree, node: number, into: Guesses): number;
}
