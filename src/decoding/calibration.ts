/**
 * How often guesses of each kind come true, learned while decoding. A kind's estimate starts at its prior, which
 * weighs as much as `strength` observations; older observations fade, since texts change their habits.
 */
export class Calibration {
  readonly #prior: ArrayLike<number>;
  readonly #strength: number;
  readonly #right: Float64Array;
  readonly #seen: Float64Array;

  /** `prior`: [kinds] probabilities. */
  constructor(prior: ArrayLike<number>, strength: number) {
    this.#prior = prior;
    this.#strength = strength;
    this.#right = new Float64Array(prior.length);
    this.#seen = new Float64Array(prior.length);
  }

  estimate(kind: number): number {
    const strength = this.#strength;
    return (this.#right[kind]! + strength * this.#prior[kind]!) / (this.#seen[kind]! + strength);
  }

  observe(kind: number, right: boolean): void {
    this.#right[kind] = REMEMBERED * this.#right[kind]! + (right ? 1 : 0);
    this.#seen[kind] = REMEMBERED * this.#seen[kind]! + 1;
  }

  /** What was observed: right guesses, then all, both fading; [2 × kinds]. */
  save(): number[] {
    return [...this.#right, ...this.#seen];
  }

  /** Takes what `save` gave; numbers that cannot be such are ignored. */
  load(saved: readonly number[]): void {
    const kinds = this.#seen.length;
    if (saved.length !== 2 * kinds) return;
    for (let kind = 0; kind < kinds; kind++) {
      const [right, seen] = [saved[kind]!, saved[kinds + kind]!];
      if (!(right >= 0 && right <= seen && seen <= 1 / (1 - REMEMBERED))) continue;
      this.#right[kind] = right;
      this.#seen[kind] = seen;
    }
  }

  /** Weighs all that was observed so far by `kept`, 0 to 1: nearer to the priors again. */
  fade(kept: number): void {
    for (let kind = 0; kind < this.#seen.length; kind++) {
      this.#right[kind] = kept * this.#right[kind]!;
      this.#seen[kind] = kept * this.#seen[kind]!;
    }
  }

  /**
   * Scores a drafted chain of tokens of these kinds against what was emitted. Whether it was verified does not
   * matter: the emitted tokens tell the truth up to the first wrong guess.
   */
  observeChain(draft: readonly number[], kinds: readonly number[], emitted: readonly number[]): void {
    for (let i = 0; i < draft.length && i < emitted.length; i++) {
      const right = draft[i] === emitted[i];
      this.observe(kinds[i]!, right);
      if (!right) return;
    }
  }
}

const REMEMBERED = 0.995;
