import type { Sampling } from "../engine/sampling.js";
import type { Sequence, StepResult } from "../engine/sequence.js";
import type { GuideState } from "../guided/constraint.js";

/** A guess at the tokens that follow the text so far: a chain, or a tree when `parents` is given. */
export interface Draft {
  readonly tokens: readonly number[];
  /**
   * For each drafted token the index of the drafted token before it; -1: it follows the text's last token. Parents
   * stand before their children. Default: a chain, `[-1, 0, 1, …]`.
   */
  readonly parents?: readonly number[];
  /** For each drafted token the estimated chance, 0 to 1, that it is accepted once its parent is. */
  readonly probabilities: readonly number[];
  /** For each drafted token the distribution that it was drawn from, where `TextInfo` asks for it and there is one. */
  readonly proposals?: readonly Float64Array[];
  /** For each drafted token where the guess came from, for people who look at traces. Default: the drafter's name. */
  readonly sources?: readonly string[];
}

/** What a finished pass computed, for drafters that learn from more than the emitted tokens. */
export interface PassInfo {
  /** The tokens of the pass: the text's last token, then what was drafted, or what passes that followed went over. */
  readonly tokens: readonly number[];
  /** For each token of the pass the index of the one before it; -1 for the first. */
  readonly parents: readonly number[];
  /** Tokens of the pass without the padding at its end. */
  readonly rows: number;
  /** Indices of the pass tokens that stayed, from the first on. */
  readonly path: readonly number[];
  /** How many of every row's best tokens `result` holds. */
  readonly top: number;
  readonly result: StepResult;
}

/** How a text will be decoded. */
export interface TextInfo {
  readonly sampling: Sampling;
  /** Drafts that are drawn at random should come with `proposals`. */
  readonly proposals?: boolean;
  /**
   * The text's own place in the cache, for a model that drafts for itself: it holds all of the text but its last token.
   * `propose` may run draft passes on it, and leaves it as long as it was.
   */
  readonly sequence?: Sequence;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Guesses what a model will say next. A wrong guess costs time and never changes the text, so a drafter may be as
 * crude as it likes. It sees the prompt once and then every emitted token, in order.
 */
export interface Drafter extends Disposable {
  readonly name: string;
  /** Every row of a pass should come with so many of its best tokens, 0 (default) to 64. */
  readonly top?: number;
  /** Its drafts hold what a guide says of the text; default: the guide's own draft is added, and what it forbids is cut. */
  readonly guided?: boolean;
  /** Begins a new text. `prompt` is borrowed: copy what must outlive the call. */
  reset(prompt: readonly number[], text: TextInfo): void | Promise<void>;
  /**
   * The tokens that the pass after the last `propose` emitted, or several passes without a draft; at least one. Only some
   * of the proposal may have been verified, or none of it.
   */
  accept(tokens: readonly number[], pass?: PassInfo): void;
  /**
   * At most `limit` tokens, perhaps none. A draft's n-th token, taken best first, can only be worth its place in the
   * pass if the chance that it is reached and accepted is `price(n)` or more. `guide`: where the text stands, if it is
   * guided.
   */
  propose(limit: number, price: (count: number) => number, guide?: GuideState): Draft | Promise<Draft>;
}

export const EMPTY_DRAFT: Draft = { tokens: [], probabilities: [] };

/** Plain decoding: it drafts nothing, not even what a guide leaves no choice about. */
export function noDrafter(): Drafter {
  return {
    name: "none",
    guided: true,
    reset() {},
    accept() {},
    propose: () => EMPTY_DRAFT,
    [Symbol.dispose]() {},
  };
}
