import { OutriderError } from "../errors.js";
import type { NativePass, NativeResult } from "../runtime/native.js";
import type { DraftRun } from "./draft-layers.js";
import { assemblePass, type Part, splitResult } from "./pass.js";
import type { StepResult } from "./sequence.js";

/** What a sequence wants of the next passes: one step, or a prompt to fill in. */
export interface Job {
  readonly kind: "step" | "prefill";
  /** Rows still to be computed, counted down here. A step's go into one pass, a prefill's into as many as it takes. */
  rows: number;
  readonly signal: AbortSignal | undefined;
  /** A step of the model as its own drafter; such steps have passes of their own. */
  readonly draft?: DraftRun | undefined;
  /** The next `count` rows, with cells for them; `alone`: nobody waits. What it throws is this job's failure alone. */
  place(count: number, alone: boolean): Part;
  /** The placed rows were computed; once `rows` is 0 the job is over. */
  computed(part: Part, result: StepResult | undefined): void;
  /** The job is over without its result; the placed rows, if any, were not computed, or nobody wants them any more. */
  failed(error: unknown, part: Part | undefined): void;
}

export interface BatchLimits {
  /** Most rows of a pass, at least `maxOutputs` and `prefillChunk`. */
  readonly maxRows: number;
  /** Most rows of steps. */
  readonly maxOutputs: number;
  /** Most rows of prompts in a pass without steps. */
  readonly prefillChunk: number;
}

export type RunPass = (
  pass: NativePass,
  signal: AbortSignal | undefined,
  draft: DraftRun | undefined,
) => Promise<NativeResult>;

/**
 * Most rows of prompts in a pass that also has steps. A row costs about the same in any chunk of this size or more, so
 * small chunks cost a long prompt little, and the texts that are being written wait that much less.
 */
const CHUNK_BESIDE_STEPS = 64;
/** The oldest prompt gets this part of a chunk at least, whatever shorter ones come. */
const OLDEST_SHARE = 1 / 4;

/**
 * Runs passes one after another, each over all that sequences ask for when it starts. Every text is a loop of its own
 * that asks for its next step once it has the last one's result. The next pass starts as soon as all sequences of the
 * last one have asked again, at the latest one turn of the event loop after the first has: a sequence whose consumer
 * takes its time misses a pass and holds nobody up, and a single sequence never waits.
 */
export class Batcher {
  readonly #limits: BatchLimits;
  readonly #run: RunPass;
  /** In order of age. */
  #waiting: Entry[] = [];
  #arrivals = 0;
  /** Sequences of the last pass that may ask for the next one. */
  readonly #expected = new Set<object>();
  #running = false;
  #idle: Promise<unknown> = Promise.resolve();
  #turn: NodeJS.Immediate | undefined;
  #closed: OutriderError | undefined;

  constructor(limits: BatchLimits, run: RunPass) {
    this.#limits = limits;
    this.#run = run;
  }

  /** `owner`: the sequence that asks; it may have one job at a time. */
  submit(owner: object, job: Job): void {
    this.#waiting.push({ owner, job, arrival: this.#arrivals++ });
    this.#expected.delete(owner);
    this.#startSoon();
  }

  /** The sequence will not ask again. */
  leave(owner: object): void {
    if (this.#expected.delete(owner)) this.#startSoon();
  }

  /** Fails whatever waits, and ends with the running pass. */
  async close(error: OutriderError): Promise<void> {
    this.#closed = error;
    clearImmediate(this.#turn);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { job } of waiting) job.failed(error, undefined);
    await this.#idle;
  }

  #startSoon(): void {
    if (this.#running || this.#waiting.length === 0) return;
    if (this.#expected.size === 0) this.#start();
    else
      this.#turn ??= setImmediate(() => {
        this.#turn = undefined;
        if (!this.#running && this.#waiting.length > 0) this.#start();
      });
  }

  #start(): void {
    if (this.#turn) clearImmediate(this.#turn);
    this.#turn = undefined;
    this.#running = true;
    const alone = this.#waiting.length === 1 && this.#expected.size === 0;
    const placed = this.#place(this.#select(), alone);
    this.#expected.clear();
    this.#idle = this.#pass(placed);
  }

  /** Entries of the next pass with their numbers of rows: steps as they came, then prompts. */
  #select(): [Entry, number][] {
    const selected: [Entry, number][] = [];
    let steps = 0;
    // The oldest step says which kind of pass it is, so no kind waits for long.
    const draft = draftOf(this.#waiting.find(({ job }) => job.kind === "step"));
    for (const entry of this.#waiting) {
      if (entry.job.kind !== "step" || draftOf(entry) !== draft) continue;
      if (steps + entry.job.rows > this.#limits.maxOutputs) break;
      selected.push([entry, entry.job.rows]);
      steps += entry.job.rows;
    }
    if (draft) return selected;
    const { maxRows, prefillChunk } = this.#limits;
    // A sequence that writes may just have missed this pass.
    const writing = steps > 0 || this.#expected.size > 0;
    const chunk = Math.min(maxRows - steps, prefillChunk, writing ? CHUNK_BESIDE_STEPS : prefillChunk);
    const prompts = this.#waiting.filter(({ job }) => job.kind === "prefill");
    for (const [entry, rows] of sharePrefill(prompts, ({ job }) => job.rows, chunk))
      selected.push([entry, rows]);
    return selected;
  }

  #place(selected: readonly [Entry, number][], alone: boolean): Placed[] {
    const placed: Placed[] = [];
    const entries = new Set(selected.map(([entry]) => entry));
    this.#waiting = this.#waiting.filter((entry) => !entries.has(entry));
    for (const [entry, rows] of selected) {
      const { job } = entry;
      try {
        if (job.signal?.aborted) throw aborted(job.signal);
        placed.push({ entry, part: job.place(rows, alone) });
      } catch (error) {
        job.failed(error, undefined);
      }
    }
    return placed;
  }

  async #pass(placed: readonly Placed[]): Promise<void> {
    const settle = placed.length === 0 ? [] : await this.#compute(placed);
    for (const tell of settle) tell();
    this.#running = false;
    this.#startSoon();
  }

  /** Runs the pass; gives what is to be told to its jobs. */
  async #compute(placed: readonly Placed[]): Promise<(() => void)[]> {
    const parts = placed.map(({ part }) => part);
    const { signal, release } = allAborted(placed.map(({ entry }) => entry.job.signal));
    try {
      const results = splitResult(
        parts,
        await this.#run(assemblePass(parts), signal, draftOf(placed[0]?.entry)),
      );
      return placed.map((one, i) => () => this.#computed(one, results[i], placed.length > 1));
    } catch (error) {
      if (placed.length === 1 || signal?.aborted)
        return placed.map(
          ({ entry: { job }, part }) =>
            () =>
              job.failed(job.signal?.aborted ? aborted(job.signal) : error, part),
        );
    } finally {
      release();
    }
    // One sequence's rows are at fault, by a token or a number that is none. Alone, each gets what is its own.
    const told: (() => void)[] = [];
    for (const one of placed) told.push(...(await this.#compute([one])));
    return told;
  }

  #computed({ entry, part }: Placed, result: StepResult | undefined, shared: boolean): void {
    const { job, owner } = entry;
    if (shared && job.signal?.aborted) {
      job.failed(aborted(job.signal), part);
      return;
    }
    job.rows -= part.tokens.length;
    // It may ask again while it is told.
    if (job.rows === 0) this.#expected.add(owner);
    job.computed(part, result);
    if (job.rows === 0) return;
    if (this.#closed) {
      job.failed(this.#closed, undefined);
      return;
    }
    const place = this.#waiting.findIndex(({ arrival }) => arrival > entry.arrival);
    this.#waiting.splice(place < 0 ? this.#waiting.length : place, 0, entry);
  }
}

interface Entry {
  readonly owner: object;
  readonly job: Job;
  readonly arrival: number;
}

const draftOf = (entry: Entry | undefined) => entry?.job.draft;

interface Placed {
  readonly entry: Entry;
  readonly part: Part;
}

/** Rows of a chunk for each prompt, by age: the shortest first, but the oldest always some. */
export function sharePrefill<T>(
  prompts: readonly T[],
  rowsOf: (prompt: T) => number,
  chunk: number,
): Map<T, number> {
  const [oldest] = prompts;
  const shares = new Map<T, number>();
  if (oldest === undefined || chunk < 1) return shares;
  shares.set(oldest, Math.min(rowsOf(oldest), Math.ceil(chunk * OLDEST_SHARE)));
  let left = chunk - shares.get(oldest)!;
  for (const prompt of prompts.toSorted((a, b) => rowsOf(a) - rowsOf(b))) {
    const had = shares.get(prompt) ?? 0;
    const more = Math.min(rowsOf(prompt) - had, left);
    if (had + more > 0) shares.set(prompt, had + more);
    left -= more;
  }
  return shares;
}

/** A signal that is aborted when all of these are; undefined when that cannot be. */
function allAborted(signals: readonly (AbortSignal | undefined)[]): {
  signal: AbortSignal | undefined;
  release: () => void;
} {
  const nothing = () => undefined;
  if (signals.length === 1) return { signal: signals[0], release: nothing };
  if (signals.includes(undefined)) return { signal: undefined, release: nothing };
  const distinct = [...new Set(signals as AbortSignal[])];
  if (distinct.length === 1) return { signal: distinct[0], release: nothing };
  const all = new AbortController();
  const check = () => {
    if (distinct.every((signal) => signal.aborted)) all.abort();
  };
  for (const signal of distinct) signal.addEventListener("abort", check);
  return {
    signal: all.signal,
    release: () => {
      for (const signal of distinct) signal.removeEventListener("abort", check);
    },
  };
}

function aborted(signal: AbortSignal): OutriderError {
  return new OutriderError("ERR_ABORTED", "the generation was aborted", { cause: signal.reason });
}
