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

  median(): number {
    const sorted = this.#values.slice(0, this.size).sort();
    const middle = sorted.length >> 1;
    return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  }
}
