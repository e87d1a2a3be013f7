import { OutriderError } from "../errors.js";
import type { LayerGroups, ModelConfig } from "../models/architecture.js";
import { LoadedWeights, type ModelPlan, planModel } from "../models/load.js";
import { availableMemory, checkMemory, judgeMemory, memoryNeeded } from "../models/memory.js";
import { Core, type InstructionSet } from "../runtime/core.js";
import { blockSize, KvCache } from "../runtime/kv-cache.js";
import { type Program, ProgramBuilder } from "../runtime/program.js";
import type { ModelSource } from "../weights/model-source.js";
import { Batcher, type Job } from "./batcher.js";
import { BlockPool } from "./block-table.js";
import { CachedSequence } from "./cached-sequence.js";
import { type DraftRun, defaultDraftLayers, parallelLayers } from "./draft-layers.js";
import { Embedder, type Pooling } from "./embedder.js";
import { PrefixTree } from "./prefix-tree.js";
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
  /**
   * Texts of full length that the key/value cache has room for, 1 to 1,024; default 4. Shorter texts share the room, and
   * what was never touched takes no memory. Finished texts keep up to a quarter for those who begin in the same way.
   */
  readonly sequences?: number | undefined;
  /**
   * Bytes of memory that the model may take, with one full context; more is ERR_MODEL_LIMIT before anything is loaded.
   * Default: what this machine, or its container, has available. Infinity: whatever it takes.
   */
  readonly memoryLimit?: number | undefined;
  /** Hears the bytes of weights loaded so far and in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

const defaultContext = 8192;
const defaultChunk = 512;
export const defaultSequences = 4;
/** The part of the cache that finished texts may fill for those who begin in the same way. */
const KEPT_SHARE = 1 / 4;

/**
 * A model in the core: passes over rows, and a key/value cache that sequences share. What several sequences ask for at
 * a time goes into one pass.
 */
export class Engine implements AsyncDisposable {
  readonly #owned: Disposable[];
  readonly #program: Program;
  readonly #createProgram: (draft?: DraftRun) => Program;
  /** Each from its first pass on. */
  readonly #draftPrograms = new Map<DraftRun, Program>();
  #draftLayers: readonly number[];
  readonly #blocks: BlockPool;
  readonly #cache: KvCache;
  readonly config: ModelConfig;
  /** Most positions of one sequence. */
  readonly context: number;
  readonly prefillChunk: number;
  /** Bytes: packed weights, and the cache of one full context. */
  readonly memory: { readonly weights: number; readonly cache: number };
  /** Part of the weights that a pass reads which lies in the layers, about. */
  readonly layerShare: number;
  readonly core: Core;
  readonly #finished: PrefixTree;
  readonly #open = new Set<CachedSequence>();
  /** Who waits for memory, in order. */
  #admissions: { readonly blocks: number; readonly enter: () => void }[] = [];
  #copies: { from: number[]; to: number[] } = { from: [], to: [] };
  readonly #batcher: Batcher;
  readonly #createEmbedder: () => Embedder;
  #embedder: Embedder | undefined;
  #closed = false;

  private constructor(core: Core, weights: LoadedWeights, plan: ModelPlan, options: EngineOptions) {
    const config = plan.config;
    this.core = core;
    this.config = config;
    this.context = options.context ?? Math.min(config.context, defaultContext);
    this.prefillChunk = options.prefillChunk ?? defaultChunk;
    const precision = options.precise ? "f32" : "f16";
    this.memory = memoryNeeded(plan, this.context, precision);
    this.layerShare = layerShare(plan);
    const blocks = (options.sequences ?? defaultSequences) * blocksOf(this.context);
    this.#cache = new KvCache(config.layers, config.numKvHeads, config.headDim, blocks, precision);
    this.#blocks = new BlockPool(blocks);
    this.#finished = new PrefixTree(this.#blocks, Math.ceil(KEPT_SHARE * blocks));
    const maxRows = Math.max(this.prefillChunk, maxOutputs);
    this.#batcher = new Batcher(
      { maxRows, maxOutputs, prefillChunk: this.prefillChunk },
      (pass, signal, draft) => {
        this.#applyCopies();
        return (draft ? this.#draftProgram(draft) : this.#program).run(pass, signal);
      },
    );
    this.#createProgram = (draft) => {
      const builder = new ProgramBuilder({
        vocab: config.vocab,
        maxRows: draft ? maxOutputs : maxRows,
        maxOutputs,
        maxPosition: this.context,
        precise: options.precise ?? false,
      });
      const layerGroups = draft && this.#groupsOf(draft);
      const { logits } = plan.architecture.program(builder, { ...config, layerGroups }, weights);
      return builder.finish(core, this.#cache, logits);
    };
    this.#draftLayers = defaultDraftLayers(config.layers);
    try {
      this.#program = this.#createProgram();
    } catch (error) {
      this.#cache[Symbol.dispose]();
      throw error;
    }
    this.#owned = [this.#program, this.#cache, weights, core];
    const precise = options.precise ?? false;
    this.#createEmbedder = () => new Embedder(core, weights, plan, { context: this.context, precise });
  }

  /** Loads the weights of a checked file. The file stays the caller's and may be closed afterwards. */
  static async load(file: ModelSource, options: EngineOptions = {}): Promise<Engine> {
    const plan = planModel(file);
    checkOptions(options, plan.config);
    const verdict = judgeMemory(
      plan,
      options.context ?? Math.min(plan.config.context, defaultContext),
      options.precise ? "f32" : "f16",
      options.memoryLimit ?? availableMemory(),
    );
    checkMemory(file.path, verdict);
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
   * A sequence that already holds as many of `tokens`' first positions as earlier, finished sequences left in the
   * cache; at most all but the last. Append the others, from `sequence.tokens.length` on. Dispose it to leave its
   * positions for a later one.
   *
   * With `positions` it can count on memory for so many in all, or is refused with `ERR_BUSY`; without, it takes what
   * there is as it grows, and gets `ERR_CONTEXT` where there is none.
   */
  open(tokens: readonly number[] = [], positions = 0): Sequence {
    this.#checkOpen();
    const reserved = this.#blocksFor(positions);
    if (reserved > this.#spare(reserved)) throw noRoom(positions);
    const { length, table } = this.#finished.find(tokens, tokens.length - 1);
    // Blocks that others count on are not for one that reserves nothing.
    if (this.#spare(0) >= 0) return this.#opened(tokens.slice(0, length), table, reserved);
    for (const block of table) this.#blocks.release(block);
    return this.#opened([], [], reserved);
  }

  /** The same, but waits in a queue until there is memory. `ERR_ABORTED` when given up meanwhile. */
  admit(tokens: readonly number[], positions: number, signal?: AbortSignal): Promise<Sequence> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#admissions = this.#admissions.filter((one) => one !== admission);
        reject(new OutriderError("ERR_ABORTED", "the generation was aborted", { cause: signal?.reason }));
        this.#admitNext();
      };
      const enter = () => {
        signal?.removeEventListener("abort", leave);
        try {
          resolve(this.open(tokens, positions));
        } catch (error) {
          reject(error);
        }
      };
      const admission = { blocks: this.#blocksFor(positions), enter };
      this.#admissions.push(admission);
      signal?.addEventListener("abort", leave, { once: true });
      if (signal?.aborted) leave();
      else this.#admitNext();
    });
  }

  /** @internal A sequence with the given blocks, one use of each handed over. */
  fork(tokens: readonly number[], table: readonly number[], positions: number): Sequence {
    const reserved = this.#blocksFor(positions);
    const more = reserved - table.length;
    if (more > this.#spare(more)) {
      for (const block of table) this.#blocks.release(block);
      throw noRoom(positions);
    }
    return this.#opened(tokens, table, reserved);
  }

  /** Blocks that a text of so many positions may need: a draft that reaches beyond its end and a copied block too. */
  #blocksFor(positions: number): number {
    return positions === 0 ? 0 : blocksOf(Math.min(positions, this.context));
  }

  #opened(tokens: readonly number[], table: readonly number[], reserved: number): CachedSequence {
    const sequence = new CachedSequence(this, this.#blocks, tokens, table, reserved);
    this.#open.add(sequence);
    return sequence;
  }

  /** @internal A disposed sequence leaves its positions. */
  retire(sequence: CachedSequence, tokens: readonly number[], table: readonly number[]): void {
    this.#open.delete(sequence);
    this.#batcher.leave(sequence);
    this.#finished.insert(tokens, table);
    if (this.#closed) this.forget();
    this.#admitNext();
  }

  /** Blocks that nobody uses or counts on, as far as `wanted` needs them. */
  #spare(wanted: number): number {
    let spare = this.#blocks.free;
    for (const sequence of this.#open) spare -= sequence.promised;
    return spare >= wanted ? spare : spare + this.#finished.evictable;
  }

  /** @internal Blocks for a sequence, those of finished texts if need be. */
  take(count: number, sequence: CachedSequence): number[] {
    if (count > sequence.promised && count - sequence.promised > this.#spare(count))
      throw this.#blocks.full();
    if (this.#blocks.free < count) this.#finished.evict(count - this.#blocks.free);
    return this.#blocks.take(count);
  }

  #admitNext(): void {
    for (;;) {
      const [next] = this.#admissions;
      if (next === undefined || (!this.#closed && next.blocks > this.#spare(next.blocks))) return;
      this.#admissions.shift();
      next.enter();
    }
  }

  #draftProgram(draft: DraftRun): Program {
    const program = this.#draftPrograms.get(draft) ?? this.#createProgram(draft);
    this.#draftPrograms.set(draft, program);
    return program;
  }

  #groupsOf(draft: DraftRun): LayerGroups {
    return draft === "parallel" ? parallelLayers(this.config.layers) : this.#draftLayers.map((i) => [i]);
  }

  /** The layers that a draft of fewer layers runs, in order; default: `defaultDraftLayers`. Meant to be set between passes. */
  get draftLayers(): readonly number[] {
    return this.#draftLayers;
  }
  set draftLayers(layers: readonly number[]) {
    this.#checkOpen();
    this.#draftPrograms.get("fewer")?.[Symbol.dispose]();
    this.#draftPrograms.delete("fewer");
    this.#draftLayers = layers;
  }

  /** Positions of the cache: all, those of open texts (shared ones once), those kept of finished texts alone. */
  get usage(): { readonly positions: number; readonly used: number; readonly kept: number } {
    const kept = this.#finished.evictable;
    const { size, free } = this.#blocks;
    return {
      positions: size * blockSize,
      used: (size - free - kept) * blockSize,
      kept: kept * blockSize,
    };
  }

  /** [width] the text as a vector of length 1, from its final hidden states; `tokens`: 1 to as many as the context holds. */
  embed(tokens: readonly number[], pooling: Pooling, signal?: AbortSignal): Promise<Float32Array> {
    this.#checkOpen();
    this.#embedder ??= this.#createEmbedder();
    return this.#embedder.embed(tokens, pooling, signal);
  }

  /** Forgets the positions that finished sequences left in the cache. */
  forget(): void {
    this.#finished.clear();
  }

  /** @internal What a sequence wants of the next passes. */
  submit(sequence: CachedSequence, job: Job): void {
    this.#checkOpen();
    this.#batcher.submit(sequence, job);
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
    this.#admitNext();
    await this.#batcher.close(closed());
    await this.#embedder?.settled();
    this.#embedder?.[Symbol.dispose]();
    this.forget();
    for (const program of this.#draftPrograms.values()) program[Symbol.dispose]();
    for (const owned of this.#owned) owned[Symbol.dispose]();
  }
}

function closed(): OutriderError {
  return new OutriderError("ERR_DISPOSED", "the model was used after it was closed");
}

function blocksOf(positions: number): number {
  return Math.ceil(positions / blockSize) + Math.ceil(maxStep / blockSize) + 1;
}

function layerShare({ tensors }: ModelPlan): number {
  let layers = 0;
  let all = 0;
  for (const [name, { info }] of tensors) {
    // A few rows of the embeddings are read where the output has a matrix of its own.
    if (name === "token_embd.weight" && tensors.has("output.weight")) continue;
    all += info.bytes;
    if (name.startsWith("blk.")) layers += info.bytes;
  }
  return layers / all;
}

function noRoom(positions: number): OutriderError {
  return new OutriderError(
    "ERR_BUSY",
    `the key/value cache has no room for ${positions} positions beside the texts under way. Try again later, or load ` +
      "the model with room for more sequences",
  );
}

function checkOptions(options: EngineOptions, config: ModelConfig): void {
  const { memoryLimit } = options;
  if (memoryLimit !== undefined && !(typeof memoryLimit === "number" && memoryLimit > 0))
    throw new OutriderError("ERR_BAD_REQUEST", `memoryLimit is ${memoryLimit}, expected bytes, more than 0`, {
      param: "memoryLimit",
    });
  const check = (name: "threads" | "context" | "prefillChunk" | "sequences", least: number, most: number) => {
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
  check("sequences", 1, 1024);
}
