import { Recent } from "./recent.js";

/** Passes longer than this are not planned: a draft of 15 that is all accepted gains no more than one of 31. */
const MAX_LENGTH = 16;

/**
 * What a pass over n tokens costs, as a multiple of one over a single token; index n - 1. Measured with SmolLM2-135M
 * on 2 cores with AVX-512 VNNI; it serves until the passes of this machine have been measured.
 */
const PRIOR = [1, 1, 1.02, 1.07, 1.16, 1.25, 1.29, 1.33, 1.46, 1.6, 1.73, 1.86, 2, 2.13, 2.27, 2.4];

/** Measured on purpose; the lengths between follow their neighbours. Longest first: it decides most. */
const PROBES = [1, 8, 4, 2] as const;
const PROBES_EACH = 3;
/** A probed length that has not been seen for so many passes is measured again. */
const STALE_PASSES = 512;

const SAMPLES = 7;
const SCALE_SAMPLES = 15;

/**
 * Learns what passes cost on this machine, now. Two things are kept apart: the time of a single-token pass, which
 * follows the machine within a few passes when another process takes a core, and the relative cost of longer passes,
 * a median for each length. One for a loaded model, shared by all its texts.
 */
export class CostModel {
  /** The longest pass that this model speaks of. */
  readonly maxLength: number;
  readonly #relative: Float64Array;
  readonly #samples: Recent[];
  readonly #singles = new Recent(SCALE_SAMPLES);
  readonly #seenAt: Float64Array;
  #passes = 0;

  constructor(maxStep: number) {
    this.maxLength = Math.min(maxStep, MAX_LENGTH);
    this.#relative = Float64Array.from(PRIOR.slice(0, this.maxLength));
    this.#samples = PRIOR.slice(0, this.maxLength).map(() => new Recent(SAMPLES));
    this.#seenAt = new Float64Array(this.maxLength);
  }

  /** The cost of a pass of 1 to `maxLength` tokens, as a multiple of one over a single token; never falls with n. */
  relative(length: number): number {
    return this.#relative[length - 1]!;
  }

  /** Milliseconds of a pass of 1 to `maxLength` tokens; undefined before the first pass. */
  ms(length: number): number | undefined {
    return this.#singles.size === 0 ? undefined : this.#singles.median() * this.relative(length);
  }

  /** A pass of `length` tokens took so many milliseconds. */
  observe(length: number, ms: number): void {
    this.#passes++;
    if (length > this.maxLength || !(ms > 0)) return;
    // The ratio is taken against the machine's speed before this pass; the first passes have nothing but the prior.
    const single = this.#singles.size === 0 ? ms / this.relative(length) : this.#singles.median();
    this.#seenAt[length - 1] = this.#passes;
    if (length > 1) {
      this.#samples[length - 1]!.add(ms / single);
      this.#fit();
    } else {
      this.#samples[0]!.add(1);
    }
    this.#singles.add(ms / this.relative(length));
  }

  /** A length worth measuring with the next pass; undefined when all are known well enough. */
  probe(): number | undefined {
    let least: number | undefined;
    for (const length of PROBES) {
      if (length > this.maxLength) continue;
      const { size } = this.#samples[length - 1]!;
      if (size >= PROBES_EACH && this.#passes - this.#seenAt[length - 1]! < STALE_PASSES) continue;
      if (least === undefined || size < this.#samples[least - 1]!.size) least = length;
    }
    return least;
  }

  /** Medians where a length was measured; between and beyond them the prior, bent to meet the measured neighbours. */
  #fit(): void {
    let below = 1;
    let belowBend = 1;
    let floor = 1;
    for (let length = 2; length <= this.maxLength; length++) {
      let above = length;
      while (above <= this.maxLength && this.#samples[above - 1]!.size === 0) above++;
      const aboveBend =
        above <= this.maxLength ? this.#samples[above - 1]!.median() / PRIOR[above - 1]! : belowBend;
      const bend = belowBend + ((aboveBend - belowBend) * (length - below)) / (above - below);
      floor = Math.max(floor, bend * PRIOR[length - 1]!);
      this.#relative[length - 1] = floor;
      if (above === length) {
        below = length;
        belowBend = bend;
      }
    }
  }
}
