import { OutriderError } from "../errors.js";
import type { LoadedWeights, ModelPlan } from "../models/load.js";
import type { Core } from "../runtime/core.js";
import { blockSize, KvCache } from "../runtime/kv-cache.js";
import type { NativePass } from "../runtime/native.js";
import { type Program, ProgramBuilder } from "../runtime/program.js";

/** How a text's hidden states become one vector: their mean, or the last one. */
export type Pooling = "mean" | "last";

/** Rows of a pass; the hidden state of each may be wanted. */
const chunk = 128;

/**
 * The model up to its final hidden states, with a cache of its own. It shares the weights and the core with whatever
 * generates; passes take turns in the core's pool.
 */
export class Embedder implements Disposable {
  readonly #cache: KvCache;
  readonly #program: Program;
  readonly #context: number;
  readonly #width: number;
  readonly #table: Int32Array;
  /** Texts take turns: each begins at the cache's first cell. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    core: Core,
    weights: LoadedWeights,
    { architecture, config }: ModelPlan,
    options: { context: number; precise: boolean },
  ) {
    this.#context = options.context;
    this.#width = config.width;
    this.#table = Int32Array.from({ length: Math.ceil(options.context / blockSize) }, (_, block) => block);
    const precision = options.precise ? "f32" : "f16";
    this.#cache = new KvCache(
      config.layers,
      config.numKvHeads,
      config.headDim,
      this.#table.length,
      precision,
    );
    const builder = new ProgramBuilder({
      vocab: config.vocab,
      maxRows: chunk,
      maxOutputs: chunk,
      maxPosition: options.context,
      precise: options.precise,
    });
    try {
      const { hidden } = architecture.program(builder, config, weights);
      this.#program = builder.finish(core, this.#cache, hidden);
    } catch (error) {
      this.#cache[Symbol.dispose]();
      throw error;
    }
  }

  /** [width] of Euclidean length 1. `tokens`: at least one, as many as the context holds. */
  embed(tokens: readonly number[], pooling: Pooling, signal?: AbortSignal): Promise<Float32Array> {
    if (tokens.length === 0 || tokens.length > this.#context)
      throw new OutriderError(
        tokens.length === 0 ? "ERR_BAD_REQUEST" : "ERR_CONTEXT",
        `a text of ${tokens.length} tokens cannot be embedded, expected 1 to ${this.#context}`,
        { param: "input", details: { n_prompt_tokens: tokens.length, n_ctx: this.#context } },
      );
    const embedded = this.#turn.then(() => this.#embed(tokens, pooling, signal));
    this.#turn = embedded.catch(() => undefined);
    return embedded;
  }

  async #embed(tokens: readonly number[], pooling: Pooling, signal?: AbortSignal): Promise<Float32Array> {
    const sum = new Float64Array(this.#width);
    for (let first = 0; first < tokens.length; first += chunk) {
      const part = tokens.slice(first, first + chunk);
      const wanted = (i: number) => pooling === "mean" || first + i === tokens.length - 1;
      const { logits: hidden } = await this.#program.run(this.#pass(part, first, wanted), signal);
      for (let i = 0; i < (hidden?.length ?? 0); i++) sum[i % this.#width]! += hidden![i]!;
    }
    const length = Math.sqrt(sum.reduce((all, x) => all + x * x, 0));
    return Float32Array.from(sum, (x) => (length === 0 ? 0 : x / length));
  }

  #pass(tokens: readonly number[], first: number, wanted: (i: number) => boolean): NativePass {
    const rows = tokens.flatMap((token, i) => [token, 0, first + i, i - 1, first + i, wanted(i) ? 1 : 0]);
    const outputs = tokens.filter((_, i) => wanted(i)).length;
    return {
      rows: Int32Array.from(rows),
      tables: this.#table,
      tableOffsets: Int32Array.of(0, this.#table.length),
      settings: Float64Array.from({ length: outputs * 5 }, (_, i) => (i % 5 === 2 ? 1 : 0)), // greedy; nobody looks
      top: 0,
      wantLogits: true,
    };
  }

  /** Waits for the texts that are being embedded. */
  async settled(): Promise<void> {
    await this.#turn;
  }

  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
    this.#cache[Symbol.dispose]();
  }
}
