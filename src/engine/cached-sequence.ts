import { OutriderError } from "../errors.js";
import { blockSize } from "../runtime/kv-cache.js";
import type { BlockPool } from "./block-table.js";
import type { DraftRun } from "./draft-layers.js";
import type { Engine } from "./engine.js";
import type { Part } from "./pass.js";
import { adjusts } from "./sampling.js";
import { chainParents, maxStep, type Sequence, type StepOptions, type StepResult } from "./sequence.js";

interface Pending {
  readonly tokens: readonly number[];
  readonly parents: readonly number[];
  readonly cells: readonly number[]; // of the tokens of the step; those of passes that followed are in their own
  readonly draft: DraftRun | undefined;
  readonly scratch: readonly number[]; // blocks for nodes off the main chain
}

/** A sequence in the engine's cache: a table of blocks of 16 positions, the last one partly filled. */
export class CachedSequence implements Sequence {
  readonly maxStep = maxStep;
  readonly #engine: Engine;
  readonly #blocks: BlockPool;
  readonly #reserved: number;
  #table: number[];
  #tokens: number[];
  #pending: Pending | undefined;
  /** So many of the last tokens are in the cache as draft passes left them. */
  #drafted = 0;
  #running = false;
  #open = true;

  /** `table` holds the blocks of `tokens`, one use of each handed over; `reserved`: blocks that it may count on. */
  constructor(
    engine: Engine,
    blocks: BlockPool,
    tokens: readonly number[],
    table: readonly number[],
    reserved: number,
  ) {
    this.#engine = engine;
    this.#blocks = blocks;
    this.#tokens = [...tokens];
    this.#table = [...table];
    this.#reserved = reserved;
  }

  get tokens(): readonly number[] {
    return this.#tokens;
  }

  get context(): number {
    return this.#engine.context;
  }

  prefill(tokens: readonly number[], signal?: AbortSignal): Promise<void> {
    return this.#exclusive(tokens.length, (done, failed) => {
      this.#checkExact(this.#tokens.length);
      if (tokens.length === 0) return done();
      let at = 0;
      this.#engine.submit(this, {
        kind: "prefill",
        rows: tokens.length,
        signal,
        place: (count) => {
          const chunk = tokens.slice(at, at + count);
          const parents = chainParents(count);
          return this.#part(chunk, parents, this.#place(chunk, parents).cells, undefined);
        },
        computed: (part) => {
          this.#tokens.push(...part.tokens);
          at += part.tokens.length;
          if (at === tokens.length) done();
        },
        failed,
      });
    });
  }

  step(tokens: readonly number[], options: StepOptions): Promise<StepResult> {
    const { draft } = options;
    return this.#exclusive(tokens.length, (done, failed) => {
      if (!draft) this.#checkExact(this.#tokens.length);
      if (tokens.length === 0 || tokens.length > maxStep)
        throw new OutriderError(
          "ERR_BAD_REQUEST",
          `a step takes 1 to ${maxStep} tokens, not ${tokens.length}`,
        );
      const parents = options.parents ?? chainParents(tokens.length);
      let scratch: readonly number[] = [];
      this.#engine.submit(this, {
        kind: "step",
        draft,
        rows: tokens.length,
        signal: options.signal,
        place: (_, alone) => {
          const placed = this.#place(tokens, parents);
          scratch = placed.scratch;
          const follow = alone && tokens.length === 1 ? this.#placeFollow(options) : 0;
          return { ...this.#part(tokens, parents, placed.cells, options), follow };
        },
        computed: (part, result) => {
          const followed = result!.picks.subarray(0, result!.picks.length - tokens.length);
          this.#pending = {
            tokens: [...tokens, ...followed],
            parents: followed.length > 0 ? chainParents(1 + followed.length) : parents,
            cells: part.cells,
            draft,
            scratch,
          };
          done(result!);
        },
        failed: (error) => {
          for (const block of scratch) this.#blocks.release(block);
          failed(error);
        },
      });
    });
  }

  keep(path: readonly number[]): void {
    const pending = this.#pending;
    if (!pending) throw new OutriderError("ERR_BAD_REQUEST", "keep: no step is pending");
    path.forEach((row, i) => {
      if (pending.parents[row] !== (i === 0 ? -1 : path[i - 1]))
        throw new OutriderError(
          "ERR_BAD_REQUEST",
          `keep: token ${row} does not follow the one before it in the path`,
        );
    });
    const from: number[] = [];
    const to: number[] = [];
    path.forEach((row, i) => {
      const home = this.#cell(this.#tokens.length + i);
      const cell = pending.cells[row] ?? home;
      if (cell !== home) {
        from.push(cell);
        to.push(home);
      }
    });
    this.#engine.copyCells(from, to);
    for (const row of path) this.#tokens.push(pending.tokens[row]!);
    if (pending.draft) this.#drafted += path.length;
    for (const block of pending.scratch) this.#blocks.release(block);
    this.#pending = undefined;
    this.#trim();
  }

  truncate(length: number): void {
    this.#check(0);
    if (!Number.isInteger(length) || length < 0 || length > this.#tokens.length)
      throw new OutriderError("ERR_BAD_REQUEST", `truncate: ${length}, expected 0 to ${this.#tokens.length}`);
    this.#drafted = Math.max(0, this.#drafted - (this.#tokens.length - length));
    this.#tokens.length = length;
    this.#trim();
  }

  fork(length = this.#tokens.length, positions = 0): Sequence {
    this.#check(0);
    if (!Number.isInteger(length) || length < 0 || length > this.#tokens.length)
      throw new OutriderError("ERR_BAD_REQUEST", `fork: ${length}, expected 0 to ${this.#tokens.length}`);
    this.#checkExact(length);
    const table = this.#table.slice(0, Math.ceil(length / blockSize));
    for (const block of table) this.#blocks.share(block);
    return this.#engine.fork(this.#tokens.slice(0, length), table, positions);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    if (this.#running)
      throw new OutriderError("ERR_BAD_REQUEST", "a sequence was disposed of while a pass runs on it");
    if (this.#pending) this.keep([]);
    this.#open = false;
    this.#tokens.length -= this.#drafted;
    this.#trim();
    this.#engine.retire(this, this.#tokens, this.#table);
  }

  /** @internal Blocks that it may still take of those reserved for it. */
  get promised(): number {
    return Math.max(0, this.#reserved - this.#table.length);
  }

  /** Nothing exact may be made from what draft passes left. */
  #checkExact(length: number): void {
    if (length > this.#tokens.length - this.#drafted)
      throw new OutriderError("ERR_BAD_REQUEST", `${this.#drafted} drafted tokens were not truncated`);
  }

  #check(more: number): void {
    if (!this.#open)
      throw new OutriderError("ERR_DISPOSED", "the sequence was used after it was disposed of");
    if (this.#running) throw new OutriderError("ERR_BAD_REQUEST", "two calls on one sequence overlap");
    if (this.#pending) throw new OutriderError("ERR_BAD_REQUEST", "keep must follow a step");
    if (this.#tokens.length + more > this.context)
      throw new OutriderError(
        "ERR_CONTEXT",
        `${this.#tokens.length + more} tokens do not fit the context of ${this.context}`,
      );
  }

  async #exclusive<T = void>(
    more: number,
    start: (done: (value: T) => void, failed: (error: unknown) => void) => void,
  ): Promise<T> {
    this.#check(more);
    this.#running = true;
    try {
      return await new Promise<T>(start);
    } finally {
      this.#running = false;
    }
  }

  #cell(position: number): number {
    return this.#table[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
  }

  /**
   * A cell for each new token. The first token at a depth gets the position's own cell, so a chain needs no copying
   * afterwards; its siblings get cells of scratch blocks.
   */
  #place(tokens: readonly number[], parents: readonly number[]): { cells: number[]; scratch: number[] } {
    const base = this.#tokens.length;
    const depths: number[] = [];
    let height = 0;
    for (const [i, parent] of parents.entries()) {
      if (parent < -1 || parent >= i || !Number.isInteger(parent))
        throw new OutriderError("ERR_BAD_REQUEST", `parent ${parent} of token ${i} does not stand before it`);
      const depth = parent < 0 ? 0 : depths[parent]! + 1;
      depths.push(depth);
      height = Math.max(height, depth + 1);
    }
    if (parents.length !== tokens.length)
      throw new OutriderError("ERR_BAD_REQUEST", `${tokens.length} tokens with ${parents.length} parents`);
    const length = base + height;
    const siblings = tokens.length - height;
    // An aborted pass may have left more blocks in the table than the tokens need.
    const more = Math.max(0, Math.ceil(length / blockSize) - this.#table.length);
    const copies = this.#writesShared(base) ? 1 : 0;
    const wanted = more + copies + Math.ceil(siblings / blockSize);
    const scratch = this.#engine.take(wanted, this);
    if (copies > 0) this.#own(base, scratch.pop()!);
    this.#table.push(...scratch.splice(0, more));
    // The first token at a depth comes behind the first above it.
    let deepest = -1;
    let spare = 0;
    const cells = depths.map((depth) => {
      if (depth > deepest) {
        deepest = depth;
        return this.#cell(base + depth);
      }
      const cell = scratch[Math.floor(spare / blockSize)]! * blockSize + (spare % blockSize);
      spare++;
      return cell;
    });
    return { cells, scratch };
  }

  /** Passes that may follow a step over one placed token, with blocks for theirs: no more than were reserved. */
  #placeFollow({ follow, sampling, masks, score, logits }: StepOptions): number {
    if (!follow || adjusts(sampling) || masks || score || logits) return 0;
    const next = this.#tokens.length + 1;
    const most = Math.min((this.#table.length + this.promised) * blockSize, this.context);
    const passes = Math.min(follow.passes, most - next);
    const more = Math.ceil((next + passes) / blockSize) - this.#table.length;
    if (more > 0) this.#table.push(...this.#engine.take(more, this));
    return passes;
  }

  #writesShared(position: number): boolean {
    const block = this.#table[Math.floor(position / blockSize)];
    return block !== undefined && this.#blocks.isShared(block);
  }

  /** Puts a copy of its own in place of the shared block that the next position falls into. */
  #own(position: number, copy: number): void {
    const index = Math.floor(position / blockSize);
    const block = this.#table[index]!;
    const lanes = Array.from({ length: position % blockSize }, (_, lane) => lane);
    this.#engine.copyCells(
      lanes.map((lane) => block * blockSize + lane),
      lanes.map((lane) => copy * blockSize + lane),
    );
    this.#blocks.release(block);
    this.#table[index] = copy;
  }

  #trim(): void {
    const needed = Math.ceil(this.#tokens.length / blockSize);
    while (this.#table.length > needed) this.#blocks.release(this.#table.pop()!);
  }

  #part(
    tokens: readonly number[],
    parents: readonly number[],
    cells: readonly number[],
    step: StepOptions | undefined,
  ): Part {
    return { tokens, parents, cells, history: this.#tokens, table: this.#table, step };
  }
}
