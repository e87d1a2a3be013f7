/** The last few of a series of numbers. */
export class Recent {
  readonly #values: Float64Array;
  #added = 0;
  /** The quantile that was asked for last, and its share: between two additions the same is asked for many times. */
  #share: number | undefined;
  #quantile = 0;

  constructor(capacity: number) {
    this.#values = new Float64Array(capacity);
  }

  get size(): number {
    return Math.min(this.#added, this.#values.length);
  }

  add(value: number): void {
    this.#values[this.#added++ % this.#values.length] = value;
    this.#share = undefined;
  }

  clear(): void {
    this.#added = 0;
    this.#share = undefined;
  }

  /** `share`: 0 the least, 1 the largest. Of at least one number. */
  quantile(share: number): number {
    if (share !== this.#share) this.#quantile = quantile(this.#values.slice(0, this.size), share);
    this.#share = share;
    return this.#quantile;
  }
}

/** Sorts `values` in place; at least one. Between two numbers the lower one. */
export function quantile(values: Float64Array, share: number): number {
  return values.sort()[Math.floor((values.length - 1) * share)]!;
}
