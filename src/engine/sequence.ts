import type { DraftRun } from "./draft-layers.js";
import type { Code, Sampling } from "./sampling.js";

/** Positions that texts take from the cache at a time. */
export { blockSize } from "../runtime/kv-cache.js";

/** Most tokens that one step may take. */
export const maxStep = 64;
/** Most rows of a pass whose logits are wanted, over all its steps; untouched rows of the logits take no memory. */
export const maxOutputs = 128;

/** Parents of tokens that follow each other: `[-1, 0, 1, …]`. */
export function chainParents(length: number): number[] {
  return Array.from({ length }, (_, i) => i - 1);
}

/** What one pass asks of the engine, beside the tokens themselves. */
export interface StepOptions {
  /**
   * For each token of the pass the index, in the pass, of the token before it; -1: it follows the sequence's last
   * cached token. Parents stand before their children. Default: a chain, `[-1, 0, 1, …]`.
   */
  readonly parents?: readonly number[];
  readonly sampling: Sampling;
  /** Draws by this point where the temperature is not 0; the pass's first row is meant. */
  readonly code?: Code | undefined;
  /** Give the `top` best tokens of every row with their log-probabilities too; 0 (default) to 64. */
  readonly top?: number;
  /** [n] tokens whose log-probabilities are wanted, whatever is drawn; default: none. */
  readonly score?: readonly number[];
  /** [n] for each token which ones may be picked after it, as bits; undefined: all. Default: all, everywhere. */
  readonly masks?: readonly (Int32Array | undefined)[];
  /** Give every row's logits too (a copy of vocab numbers each). */
  readonly logits?: boolean;
  /**
   * Run the model as its own drafter. What such a pass writes into the cache is not the model's: it may be continued
   * by other draft passes, and must be truncated before the next exact one.
   */
  readonly draft?: DraftRun | undefined;
  /**
   * For a step over one token: up to so many more passes may follow in the core, each over the token that the one before
   * drew, until that is one of `ends` or all have taken `ms`. How many did, `picks` tells; none where other texts wait or
   * draws need more than `sampling` and `code` say. They are pending like the tokens of a chain.
   */
  readonly follow?:
    | { readonly passes: number; readonly ms: number; readonly ends: ReadonlySet<number> }
    | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Row i speaks of the token that follows token i of the pass; behind them come the rows of passes that followed. Fresh
 * arrays, the caller's to keep.
 */
export interface StepResult {
  /** [n] the token ids that the sampler draws (temperature 0: the arg-max, ties to the lowest id). */
  readonly picks: Int32Array;
  /** [n] natural log-probability of each pick under the model's own distribution, before temperature and penalties. */
  readonly logprobs: Float32Array;
  /** [n × top] best first, ties to the lowest id. */
  readonly topTokens: Int32Array;
  /** [n × top] */
  readonly topLogprobs: Float32Array;
  /** [n] log-probabilities of the tokens of `score`. */
  readonly scores?: Float32Array;
  /** [n × 2] point and resolution for the token after each pick, where a code was given. */
  readonly codes?: Float64Array;
  /** [n × vocab] where asked for, else empty. */
  readonly logits?: Float32Array;
  /** Milliseconds inside the native core, of all passes where some followed. */
  readonly coreMs: number;
  /** Where the pass had rows of other sequences too: one object for all of its steps. */
  readonly shared?: SharedPass;
}

/** A pass over rows of several sequences. */
export interface SharedPass {
  /** Sequences that made a step, and the rows of all these steps. */
  readonly steps: number;
  readonly rows: number;
  /** Rows of prompts. */
  readonly filled: number;
  readonly coreMs: number;
}

/**
 * One text's place in the key/value cache. Invariant while decoding: the cache holds all tokens of the text but the
 * last. Calls on one sequence must not overlap.
 */
export interface Sequence extends Disposable {
  /** Token ids whose keys and values are in the cache, by position; its length is the next pass's first position. */
  readonly tokens: readonly number[];
  /** Most positions that this sequence may hold. */
  readonly context: number;
  /** Most tokens that one `step` may take. */
  readonly maxStep: number;
  /** Appends tokens without asking for picks, in chunks; what was appended before an abort stays. */
  prefill(tokens: readonly number[], signal?: AbortSignal): Promise<void>;
  /**
   * One pass over tokens that follow the cached ones. Afterwards the pass's tokens are pending: `keep` must say which
   * of them stay before the next call.
   */
  step(tokens: readonly number[], options: StepOptions): Promise<StepResult>;
  /**
   * Keeps the path of pass tokens given by their indices (each the child of the one before), drops the others.
   * `keep([])` drops all.
   */
  keep(path: readonly number[]): void;
  /** Forgets all positions from `length` on. */
  truncate(length: number): void;
  /**
   * A second sequence that shares this one's first `length` positions without copying them, with memory reserved for
   * `positions` in all (default: none). `ERR_BUSY` where there is not so much.
   */
  fork(length?: number, positions?: number): Sequence;
}
