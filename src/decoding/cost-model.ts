import type { SharedPass } from "../engine/sequence.js";
import { quantile, Recent } from "./recent.js";

/** Passes longer than this are not planned: hardly a guess holds so long, and beyond it every token costs the same. */
const MAX_LENGTH = 16;

/**
 * What a pass over n tokens costs, as a multiple of one over a single token; index n - 1. Measured with SmolLM2-135M
 * on 2 cores with AVX-512 VNNI, without a past; it serves until the passes of this machine have been measured.
 */
const PRIOR = [1, 1.04, 1.07, 1.1, 1.18, 1.27, 1.38, 1.46, 1.66, 1.86, 2, 2.11, 2.3, 2.45, 2.6, 2.7];

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
const RATIO_QUANTILE = 0.1;

/** A length that costs so many times what the prior says may have been measured beside another process. */
const DEAR = 1.25;
const PATIENCE = 24;

/** What one position of the text's past adds to a pass, as parts of a pass over a single token without a past. */
export interface PastCost {
  /** For the pass: its keys and values are read. */
  readonly read: number;
  /** For each token of the pass: it is attended to. */
  readonly attend: number;
}

/** By the bytes of a position's keys and values, the products that attention makes of them, the bytes of all weights. */
export function pastCost(
  kvBytes: number,
  products: number,
  weightBytes: number,
  instructionSet: string,
): PastCost {
  const { read, attend } = instructionSet === "avx512" ? WIDE : NARROW;
  return { read: (read * kvBytes) / weightBytes, attend: (attend * products) / weightBytes };
}

/**
 * Measured with SmolLM2-135M (23 kB and 34,560 products a position, 98 MB) behind 64 to 1,700 positions: 0.6 and 0.12 µs a
 * position where a pass takes 2.5 ms. With AVX2 and less attention waits for its arithmetic: 0.18 and 0.33 µs.
 */
const WIDE = { read: 1, attend: 0.14 };
const NARROW = { read: 0.3, attend: 0.38 };

/**
 * Learns what passes cost on this machine, now. Two things are kept apart: the time of a single-token pass, which
 * follows the machine within a few passes when another process takes a core, and the relative cost of longer passes,
 * a low quantile for each length. What the past adds is reckoned from the model's shape and taken off before anything
 * is learned. One for a loaded model, shared by all its texts.
 */
export class CostModel {
  /** The longest pass that this model speaks of. */
  readonly maxLength: number;
  readonly #relative: Float64Array;
  /** [length - 1] the least average price of the places from this one on, whatever length is chosen. */
  readonly #prices: Float64Array;
  readonly #samples: Recent[];
  /** The last passes, a ring: `#passes` modulo `WINDOW` is the oldest. */
  readonly #lengths = new Int32Array(WINDOW);
  readonly #times = new Float64Array(WINDOW);
  readonly #pasts = new Float64Array(WINDOW);
  readonly #sampled = new Uint8Array(WINDOW); // 1: it was compared, or is not to be
  readonly #scratch = new Float64Array(WINDOW);
  /** Milliseconds of a single-token pass without a past. */
  #single: number | undefined;
  /** Passes of the window over a single token. */
  #singles = 0;
  readonly #past: PastCost;
  /** [length - 1] the pass from which on a length is to be measured again, and for how many passes it can wait. */
  readonly #dueAt: Float64Array;
  readonly #patience: Float64Array;
  #passes = 0;
  #shared: SharedPass | undefined;

  constructor(maxStep: number, past: PastCost = { read: 0, attend: 0 }) {
    this.#past = past;
    this.maxLength = Math.min(maxStep, MAX_LENGTH);
    this.#relative = Float64Array.from(PRIOR.slice(0, this.maxLength));
    this.#prices = new Float64Array(this.maxLength);
    this.#samples = PRIOR.slice(0, this.maxLength).map(() => new Recent(SAMPLES));
    this.#dueAt = new Float64Array(this.maxLength);
    this.#patience = new Float64Array(this.maxLength);
    this.#priceAll();
  }

  /**
   * The cost of a pass of `length` tokens behind `past` positions, as a multiple of one over a single token there; never
   * falls with the length. Beyond `maxLength`, where only several texts together come, every token costs what those
   * before it did.
   */
  relative(length: number, past = 0): number {
    return this.#units(length, past) / (1 + this.#pastOf(1, past));
  }

  #pastOf(length: number, past: number): number {
    return past * (this.#past.read + length * this.#past.attend);
  }

  /** A pass that had rows of several texts; each of them tells, the first one counts, with its own past. */
  observeShared(pass: SharedPass, past = 0): void {
    if (pass === this.#shared || pass.filled > 0) return;
    this.#shared = pass;
    // Where several texts write, hardly a pass is over a single token. Lengths that vouched for one another would seem ever
    // cheaper, by the low quantiles of either; what is known of them stays.
    this.#observe(pass.rows, pass.coreMs, past, this.#singles >= PROBES_EACH);
  }

  /**
   * What the last token of a pass of `length` must bring at least, if it may be the first of several that are as good:
   * long passes can be cheap where the next longer one is dear.
   */
  placePrice(length: number, past = 0): number {
    const price = length <= this.maxLength ? this.#prices[length - 1]! : this.#beyond();
    return (price + past * this.#past.attend) / (1 + this.#pastOf(1, past));
  }

  /** Milliseconds of a pass of `length` tokens behind `past` positions; undefined before the first pass. */
  ms(length: number, past = 0): number | undefined {
    if (this.#single === undefined) return undefined;
    return this.#single * this.#units(length, past);
  }

  /** A pass of `length` tokens behind `past` positions took so many milliseconds. */
  observe(length: number, ms: number, past = 0): void {
    this.#observe(length, ms, past, true);
  }

  /** `compared`: it tells what its length costs, not only how fast the machine is. */
  #observe(length: number, ms: number, past: number, compared: boolean): void {
    if (length > this.maxLength || !(ms > 0)) return;
    const slot = this.#passes % WINDOW;
    this.#lengths[slot] = length;
    this.#times[slot] = ms;
    this.#pasts[slot] = past;
    const isProbe = compared && PROBES.includes(length) && this.#isDue(length);
    this.#sampled[slot] = isProbe || !compared ? 1 : 0;
    // Probes follow one another, so the speed before them is at hand, and the next draft wants to know.
    if (isProbe) this.#sample(length, past, ms, this.#single ?? ms / this.#units(length, past));
    this.#passes++;
    this.#single = this.#present();
    if (this.#passes === SETTLED_PASSES) for (const samples of this.#samples) samples.clear();
    // A length that seems dear is not drafted, so it would never be seen to be cheap: it is tried again, ever more rarely.
    const isDear = this.#relative[length - 1]! > DEAR * PRIOR[length - 1]!;
    if (isProbe) this.#patience[length - 1] = isDear ? 2 * (this.#patience[length - 1]! || PATIENCE) : 0;
    const wait = isDear ? this.#patience[length - 1]! || PATIENCE : STALE_PASSES;
    this.#dueAt[length - 1] = this.#passes + Math.min(wait, STALE_PASSES);

    // Other passes wait until they stand in the window's middle. Compared with the speed before them, the first passes
    // after a change of speed would seem to say that their lengths had become dearer, and that would hide the change.
    const middle = (this.#passes + (WINDOW >> 1)) % WINDOW;
    if (this.#passes < WINDOW || this.#sampled[middle] === 1) return;
    this.#sample(this.#lengths[middle]!, this.#pasts[middle]!, this.#times[middle]!, this.#single);
  }

  #isDue(length: number): boolean {
    return this.#samples[length - 1]!.size < PROBES_EACH || this.#passes >= this.#dueAt[length - 1]!;
  }

  #sample(length: number, past: number, ms: number, single: number): void {
    this.#samples[length - 1]!.add(ms / single - this.#pastOf(length, past));
    this.#fit();
  }

  /** In single-token passes without a past. */
  #units(length: number, past: number): number {
    const most = this.maxLength;
    const base =
      length <= most
        ? this.#relative[length - 1]!
        : this.#relative[most - 1]! + this.#beyond() * (length - most);
    return base + this.#pastOf(length, past);
  }

  /** What each token costs in passes longer than `maxLength`. */
  #beyond(): number {
    const most = this.maxLength;
    const half = most >> 1;
    const longest = this.#relative[most - 1]!;
    return half === 0 ? longest : (longest - this.#relative[half - 1]!) / (most - half);
  }

  /** The time of a single-token pass by those of the window, or by all of it if they are too few. */
  #present(): number {
    const size = Math.min(this.#passes, WINDOW);
    let singles = 0;
    for (let i = 0; i < size; i++)
      if (this.#lengths[i] === 1)
        this.#scratch[singles++] = this.#times[i]! / (1 + this.#pastOf(1, this.#pasts[i]!));
    this.#singles = singles;
    if (singles >= PROBES_EACH) return quantile(this.#scratch.subarray(0, singles), QUANTILE);
    for (let i = 0; i < size; i++)
      this.#scratch[i] = this.#times[i]! / this.#units(this.#lengths[i]!, this.#pasts[i]!);
    return quantile(this.#scratch.subarray(0, size), QUANTILE);
  }

  /** A length worth measuring with the next pass; undefined when all are known well enough. */
  probe(): number | undefined {
    for (const length of PROBES) {
      if (length > this.maxLength) break;
      if (this.#isDue(length)) return length;
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
          ? this.#samples[above - 1]!.quantile(RATIO_QUANTILE) / PRIOR[above - 1]!
          : belowBend;
      const bend = belowBend + ((aboveBend - belowBend) * (length - below)) / (above - below);
      const straight =
        above > this.maxLength && below > 1 ? 1 + ((belowCost - 1) * (length - 1)) / (below - 1) : 1;
      // As many passes over one token would do as well.
      floor = Math.max(floor, Math.min(length, Math.max(bend * PRIOR[length - 1]!, straight)));
      this.#relative[length - 1] = floor;
      if (above === length) {
        below = length;
        belowBend = bend;
        belowCost = floor;
      }
    }
    this.#priceAll();
  }

  #priceAll(): void {
    const base = this.#relative;
    for (let length = 2; length <= this.maxLength; length++) {
      let least = Number.POSITIVE_INFINITY;
      for (let end = length; end <= this.maxLength; end++)
        least = Math.min(least, (base[end - 1]! - base[length - 2]!) / (end - length + 1));
      this.#prices[length - 1] = least;
    }
  }
}
