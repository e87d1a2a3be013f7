/** The last few of a series of numbers. */
export class Recent {
  readonly #values: Float64Array;
  #added = 0;

  constructor(capacity: number) {
    this.#values = new Float64Array(capacity);
  }

  get size(): number {
    return Math.min(this.#added, this.#values.length);
  }

  add(value: number): void {
    this.#values[this.#added++ % this.#values.length] = value;
  }

  clear(): void {
    this.#added = 0;
  }

  /** Of at least one number. */
  median(): number {
    return median(this.#values.slice(0, this.size));
  }
}

/** Sorts `values` in place; at least one. Of an even number the lower middle one. */
export function median(values: Float64Array): number {
  return values.sort()[(values.length - 1) >> 1]!;
}
