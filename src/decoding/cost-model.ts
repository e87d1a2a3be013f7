import type { SharedPass } from "../engine/sequence.js";
import { quantile, Recent } from "./recent.js";

/** Passes longer than this are not planned: hardly a guess holds so long, and beyond it every token costs the same. */
const MAX_LENGTH = 16;

/**
 * What a pass over n tokens costs, as a multiple of one over a single token; index n - 1. Measured with SmolLM2-135M
 * on 2 cores with AVX-512 VNNI; it serves until the passes of this machine have been measured.
 */
const PRIOR = [1, 1.02, 1.08, 1.2, 1.3, 1.42, 1.6, 1.75, 2, 2.13, 2.28, 2.42, 2.6, 2.8, 3, 3.2];

/** Measured on purpose; the lengths between follow their neighbours. */
const PROBES: readonly number[] = [1, 2, 4, 8];
const PROBES_EACH = 3;
/** A probed length that has not been seen for so many passes is measured again. */
const STALE_PASSES = 512;

/** The first measurements meet cold caches and a processor that is waking up: they are taken again after so many passes. */
const SETTLED_PASSES = 64;

/** Where an added token costs more than this part of a pass, hardly a draft pays, nor does measuring longer passes. */
const STEEP = 0.5;

const SAMPLES = 15;
/** Passes that tell the machine's present speed. */
const WINDOW = 15;
/** Other processes only ever make a pass slower, so the quicker ones tell what it costs. */
const QUANTILE = 0.25;

/**
 * Learns what passes cost on this machine, now. Two things are kept apart: the time of a single-token pass, which
 * follows the machine within a few passes when another process takes a core, and the relative cost of longer passes,
 * a low quantile for each length. One for a loaded model, shared by all its texts.
 */
export class CostModel {
  /** The longest pass that this model speaks of. */
  readonly maxLength: number;
  readonly #relative: Float64Array;
  readonly #samples: Recent[];
  /** The last passes, a ring: `#passes` modulo `WINDOW` is the oldest. */
  readonly #lengths = new Int32Array(WINDOW);
  readonly #times = new Float64Array(WINDOW);
  readonly #sampled = new Uint8Array(WINDOW);
  readonly #scratch = new Float64Array(WINDOW);
  #single: number | undefined;
  readonly #seenAt: Float64Array;
  #passes = 0;
  #shared: SharedPass | undefined;

  constructor(maxStep: number) {
    this.maxLength = Math.min(maxStep, MAX_LENGTH);
    this.#relative = Float64Array.from(PRIOR.slice(0, this.maxLength));
    this.#samples = PRIOR.slice(0, this.maxLength).map(() => new Recent(SAMPLES));
    this.#seenAt = new Float64Array(this.maxLength);
  }

  /**
   * The cost of a pass of `length` tokens, as a multiple of one over a single token; never falls with n. Beyond
   * `maxLength`, where only several texts together come, every token costs what those before it did.
   */
  relative(length: number): number {
    const most = this.maxLength;
    if (length <= most) return this.#relative[length - 1]!;
    const half = most >> 1;
    const longest = this.#relative[most - 1]!;
    const each = half === 0 ? longest : (longest - this.#relative[half - 1]!) / (most - half);
    return longest + each * (length - most);
  }

  /** Milliseconds of a pass of 1 to `maxLength` tokens; undefined before the first pass. */
  ms(length: number): number | undefined {
    return this.#single === undefined ? undefined : this.#single * this.relative(length);
  }

  /** A pass that had rows of several texts; each of them tells, the first one counts. */
  observeShared(pass: SharedPass): void {
    if (pass === this.#shared || pass.filled > 0) return;
    this.#shared = pass;
    this.observe(pass.rows, pass.coreMs);
  }

  /** A pass of `length` tokens took so many milliseconds. */
  observe(length: number, ms: number): void {
    if (length > this.maxLength || !(ms > 0)) return;
    const slot = this.#passes % WINDOW;
    this.#lengths[slot] = length;
    this.#times[slot] = ms;
    const isProbe = PROBES.includes(length) && this.#samples[length - 1]!.size < PROBES_EACH;
    this.#sampled[slot] = isProbe ? 1 : 0;
    // Probes follow one another, so the speed before them is at hand, and the next draft wants to know.
    if (isProbe) this.#sample(length, ms / (this.#single ?? ms / this.relative(length)));
    this.#passes++;
    this.#seenAt[length - 1] = this.#passes;
    this.#single = this.#present();
    for (const probe of PROBES) {
      if (probe > this.maxLength) continue;
      if (this.#passes - this.#seenAt[probe - 1]! < STALE_PASSES && this.#passes !== SETTLED_PASSES) continue;
      this.#samples[probe - 1]!.clear();
      this.#seenAt[probe - 1] = this.#passes;
    }

    // Other passes wait until they stand in the window's middle. Compared with the speed before them, the first passes
    // after a change of speed would seem to say that their lengths had become dearer, and that would hide the change.
    const middle = (this.#passes + (WINDOW >> 1)) % WINDOW;
    if (this.#passes < WINDOW || this.#sampled[middle] === 1) return;
    this.#sample(this.#lengths[middle]!, this.#times[middle]! / this.#single);
  }

  #sample(length: number, ratio: number): void {
    this.#samples[length - 1]!.add(ratio);
    this.#fit();
  }

  /** The time of a single-token pass by those of the window, or by all of it if they are too few. */
  #present(): number {
    const size = Math.min(this.#passes, WINDOW);
    let singles = 0;
    for (let i = 0; i < size; i++) if (this.#lengths[i] === 1) this.#scratch[singles++] = this.#times[i]!;
    if (singles >= PROBES_EACH) return quantile(this.#scratch.subarray(0, singles), QUANTILE);
    for (let i = 0; i < size; i++) this.#scratch[i] = this.#times[i]! / this.relative(this.#lengths[i]!);
    return quantile(this.#scratch.subarray(0, size), QUANTILE);
  }

  /** A length worth measuring with the next pass; undefined when all are known well enough. */
  probe(): number | undefined {
    for (const length of PROBES) {
      if (length > this.maxLength) break;
      if (this.#samples[length - 1]!.size < PROBES_EACH) return length;
      if (this.relative(length) - 1 > STEEP * (length - 1)) break;
    }
    return undefined;
  }

  /**
   * What was measured, where a length was often enough; between them the prior, bent to meet its neighbours; beyond them the prior
   * or the average price of a token so far, whichever is more.
   */
  #fit(): void {
    let below = 1;
    let belowBend = 1;
    let belowCost = 1;
    let floor = 1;
    for (let length = 2; length <= this.maxLength; length++) {
      let above = length;
      while (above <= this.maxLength && this.#samples[above - 1]!.size < PROBES_EACH) above++;
      const aboveBend =
        above <= this.maxLength
          ? this.#samples[above - 1]!.quantile(QUANTILE) / PRIOR[above - 1]!
          : belowBend;
      const bend = belowBend + ((aboveBend - belowBend) * (length - below)) / (above - below);
      const straight =
        above > this.maxLength && below > 1 ? 1 + ((belowCost - 1) * (length - 1)) / (below - 1) : 1;
      floor = Math.max(floor, bend * PRIOR[length - 1]!, straight);
      this.#relative[length - 1] = floor;
      if (above === length) {
        below = length;
        belowBend = bend;
        belowCost = floor;
      }
    }
  }
}
