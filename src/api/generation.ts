import type { PassTrace } from "../decoding/decode.js";
import type { DecodeStats } from "../decoding/stats.js";
import { OutriderError } from "../errors.js";

/** What one pass added to the text, or those of 16 ms where nothing is drafted. */
export interface Piece {
  /** Whole characters only; empty while a character or a stop string may still be growing. */
  readonly text: string;
  /** At least one, but none at the end of a text that may not grow. */
  readonly tokens: readonly number[];
  /** Natural logarithms of the tokens' probabilities under the model's own distribution. */
  readonly logprobs: readonly number[];
  /** Drafted tokens that the pass verified, and how many of `tokens` came from the draft. */
  readonly drafted: number;
  readonly accepted: number;
  readonly drafter: string;
  /** With `trace`: the pass as it was, tokens behind a stop string included. */
  readonly pass?: PassTrace;
}

export interface GenerationResult {
  promptTokens: readonly number[];
  tokens: number[];
  logprobs: number[];
  /** [tokens][top] of [token id, log-probability], where asked for. */
  topTokens: (readonly (readonly [number, number])[])[];
  text: string;
  /** "stop": an end token or a stop string; "length": maxTokens or the context; "abort": the signal, or the loop was left. */
  finishReason: "stop" | "length" | "abort";
  seed: number;
  /** The point that drew the text, where it was one of arithmetic sampling. */
  code?: number;
  strategy: string;
  stats: DecodeStats;
  /** How many of the prompt's positions were still in the cache. */
  cachedTokens: number;
  warnings: readonly string[];
}

/**
 * A generation under way. It advances when it is iterated over, and leaving the loop ends it; when only `result` is
 * awaited it runs to its end by itself.
 */
export class Generation<
  P = Piece,
  R extends Pick<GenerationResult, "text" | "finishReason"> = GenerationResult,
> implements AsyncIterable<P>
{
  readonly #start: () => AsyncGenerator<P, void, undefined>;
  #iterated = false;
  readonly #settled: Promise<R>;
  #settle!: { resolve(result: R): void; reject(reason: unknown): void };

  /** @internal `partial` is filled in by the pieces' generator as they come. */
  constructor(
    readonly partial: R,
    start: () => AsyncGenerator<P, void, undefined>,
  ) {
    this.#start = start;
    this.#settled = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#settled.catch(() => undefined); // whoever only iterates gets the error there
  }

  /**
   * Everything about the generation once it is over. An aborted one, or one whose loop was left, resolves too, with
   * `finishReason: "abort"` and what there was; iterating over an aborted one throws `ERR_ABORTED`.
   */
  get result(): Promise<R> {
    if (!this.#iterated) void this.#drain();
    return this.#settled;
  }

  async #drain(): Promise<void> {
    try {
      for await (const _ of this) {
        // `partial` collects the pieces
      }
    } catch {
      // `result` rejects, or resolves with what an abort left
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<P, void, undefined> {
    if (this.#iterated) throw new OutriderError("ERR_BAD_REQUEST", "a generation can be iterated over once");
    this.#iterated = true;
    let whole = false;
    try {
      yield* this.#start();
      whole = true;
    } catch (error) {
      if (!(error instanceof OutriderError && error.code === "ERR_ABORTED")) this.#settle.reject(error);
      throw error;
    } finally {
      if (!whole) this.partial.finishReason = "abort";
      this.#settle.resolve(this.partial);
    }
  }

  /** The whole text. */
  async text(): Promise<string> {
    return (await this.result).text;
  }
}
