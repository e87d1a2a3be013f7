import { OutriderError } from "../errors.js";
import type { ModelConfig } from "../models/architecture.js";
import { LoadedWeights, type ModelPlan, memoryNeeded, planModel } from "../models/load.js";
import { Core, type InstructionSet } from "../runtime/core.js";
import { blockSize, KvCache } from "../runtime/kv-cache.js";
import { type Program, ProgramBuilder } from "../runtime/program.js";
import type { ModelSource } from "../weights/model-source.js";
import { Batcher, type Job } from "./batcher.js";
import { BlockPool } from "./block-table.js";
import { CachedSequence } from "./cached-sequence.js";
import { maxOutputs, maxStep, type Sequence } from "./sequence.js";

export interface EngineOptions {
  /** Threads of the native core, 1 to 64; default: one a processor core, at most 8. Never changes a result. */
  readonly threads?: number | undefined;
  /** Default: the best that this processor has. Never changes a result. */
  readonly instructionSet?: InstructionSet | undefined;
  /** Most positions of one sequence; default: what the model was trained for, at most 8,192. */
  readonly context?: number | undefined;
  /** Activations and cache in float32: slower, for comparison. */
  readonly precise?: boolean | undefined;
  /** Most tokens of a prompt that go through one pass, 1 to 2,048; default 512. Never changes a result. */
  readonly prefillChunk?: number | undefined;
  /** Hears the bytes of weights loaded so far and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

const defaultContext = 8192;
const defaultChunk = 512;
// Sequences beside the one that generates: a conversation each, kept for its prefix. Untouched blocks take no memory.
const sequencesPerCache = 4;
const maxIdle = 8;

/**
 * A model in the core: passes over rows, and a key/value cache that sequences share. What several sequences ask for at
 * a time goes into one pass.
 */
export class Engine implements AsyncDisposable {
  readonly #owned: Disposable[];
  readonly #program: Program;
  readonly #blocks: BlockPool;
  readonly #cache: KvCache;
  readonly config: ModelConfig;
  /** Most positions of one sequence. */
  readonly context: number;
  readonly prefillChunk: number;
  /** Bytes in memory when every sequence is full. */
  readonly memory: { readonly weights: number; readonly cache: number };
  readonly core: Core;
  #idle: CachedSequence[] = [];
  #copies: { from: number[]; to: number[] } = { from: [], to: [] };
  readonly #batcher: Batcher;
  #closed = false;

  private constructor(core: Core, weights: LoadedWeights, plan: ModelPlan, options: EngineOptions) {
    const config = plan.config;
    this.core = core;
    this.config = config;
    this.context = options.context ?? Math.min(config.context, defaultContext);
    this.prefillChunk = options.prefillChunk ?? defaultChunk;
    const precision = options.precise ? "f32" : "f16";
    this.memory = memoryNeeded(plan, this.context, precision);
    const blocks =
      sequencesPerCache * (Math.ceil(this.context / blockSize) + Math.ceil(maxStep / blockSize) + 1);
    this.#cache = new KvCache(config.layers, config.numKvHeads, config.headDim, blocks, precision);
    this.#blocks = new BlockPool(blocks);
    const maxRows = Math.max(this.prefillChunk, maxOutputs);
    this.#batcher = new Batcher({ maxRows, maxOutputs, prefillChunk: this.prefillChunk }, (pass, signal) => {
      this.#applyCopies();
      return this.#program.run(pass, signal);
    });
    const builder = new ProgramBuilder({
      vocab: config.vocab,
      maxRows,
      maxOutputs,
      maxPosition: this.context,
      precise: options.precise ?? false,
    });
    try {
      const { logits } = plan.architecture.program(builder, config, weights);
      this.#program = builder.finish(core, this.#cache, logits);
    } catch (error) {
      this.#cache[Symbol.dispose]();
      throw error;
    }
    this.#owned = [this.#program, this.#cache, weights, core];
  }

  /** Loads the weights of a checked file. The file stays the caller's and may be closed afterwards. */
  static async load(file: ModelSource, options: EngineOptions = {}): Promise<Engine> {
    const plan = planModel(file);
    checkOptions(options, plan.config);
    const core = new Core(options.threads, options.instructionSet);
    let weights: LoadedWeights | undefined;
    try {
      weights = await LoadedWeights.load(file, plan, options.onProgress);
      return new Engine(core, weights, plan, options);
    } catch (error) {
      weights?.[Symbol.dispose]();
      core[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * A sequence that already holds as many of `tokens`' first positions as some earlier, finished sequence left in the
   * cache; at most all but the last. Append the others, from `sequence.tokens.length` on. Dispose it to leave its
   * positions for a later one.
   */
  open(tokens: readonly number[] = []): Sequence {
    this.#checkOpen();
    let best: CachedSequence | undefined;
    let shared = 0;
    for (const idle of this.#idle) {
      const length = Math.min(commonPrefix(idle.tokens, tokens), tokens.length - 1);
      if (length > shared) [best, shared] = [idle, length];
    }
    if (!best) return new CachedSequence(this, this.#blocks);
    // Another conversation with the same beginning stays for its own next turn.
    if (shared < best.tokens.length / 2) return best.share(shared);
    this.#idle = this.#idle.filter((s) => s !== best);
    return best.revive(shared);
  }

  /** @internal A disposed sequence comes back for its prefix. */
  retire(sequence: CachedSequence): void {
    if (this.#closed || sequence.tokens.length === 0) {
      sequence.free();
      return;
    }
    this.#idle.push(sequence);
    while (this.#idle.length > maxIdle) this.#idle.shift()!.free();
  }

  /** @internal Frees the oldest idle sequences until so many blocks are free. */
  reserve(blocks: number): void {
    while (this.#blocks.free < blocks && this.#idle.length > 0) this.#idle.shift()!.free();
  }

  /** Forgets the positions that finished sequences left in the cache. */
  forget(): void {
    for (const idle of this.#idle) idle.free();
    this.#idle = [];
  }

  /** @internal What a sequence wants of the next passes. */
  submit(sequence: CachedSequence, job: Job): void {
    this.#checkOpen();
    this.#batcher.submit(sequence, job);
  }

  /** @internal The sequence asks for nothing more. */
  leave(sequence: CachedSequence): void {
    this.#batcher.leave(sequence);
  }

  /**
   * @internal Copies cells before the next pass starts. Passes alone read and write the cache, so that is soon enough,
   * and it never meets a running one.
   */
  copyCells(from: readonly number[], to: readonly number[]): void {
    this.#copies.from.push(...from);
    this.#copies.to.push(...to);
  }

  #applyCopies(): void {
    const { from, to } = this.#copies;
    if (from.length === 0) return;
    this.#copies = { from: [], to: [] };
    this.#cache.copy(Int32Array.from(from), Int32Array.from(to));
  }

  #checkOpen(): void {
    if (this.#closed) throw closed();
  }

  /** Waits for the running pass, then frees everything. A second call is harmless. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#batcher.close(closed());
    this.forget();
    for (const owned of this.#owned) owned[Symbol.dispose]();
  }
}

function closed(): OutriderError {
  return new OutriderError("ERR_DISPOSED", "the model was used after it was closed");
}

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return n;
}

function checkOptions(options: EngineOptions, config: ModelConfig): void {
  const check = (name: "threads" | "context" | "prefillChunk", least: number, most: number) => {
    const value = options[name];
    if (value !== undefined && (!Number.isInteger(value) || value < least || value > most))
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `${name} is ${value}, expected a whole number from ${least} to ${most}`,
        {
          param: name,
        },
      );
  };
  check("threads", 1, 64);
  check("context", 8, config.context);
  check("prefillChunk", 1, 2048);
}
