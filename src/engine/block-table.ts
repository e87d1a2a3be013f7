import { OutriderError } from "../errors.js";
import { blockSize } from "../runtime/kv-cache.js";

/** The cache's blocks with their numbers of users: a block that two sequences share must not be written. */
export class BlockPool {
  readonly #users: Uint32Array;
  readonly #free: number[];

  constructor(blocks: number) {
    this.#users = new Uint32Array(blocks);
    this.#free = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
  }

  get size(): number {
    return this.#users.length;
  }

  /** Blocks that nobody uses. */
  get free(): number {
    return this.#free.length;
  }

  /** So many blocks, used once each; all of them or none. */
  take(count: number): number[] {
    if (count > this.#free.length) throw this.full();
    const taken = this.#free.splice(this.#free.length - count, count);
    for (const block of taken) this.#users[block] = 1;
    return taken.reverse();
  }

  full(): OutriderError {
    return new OutriderError(
      "ERR_CONTEXT",
      `the key/value cache is full: all ${this.size * blockSize} positions belong to open sequences. ` +
        "Close some, or load the model with a larger context",
    );
  }

  share(block: number): void {
    this.#users[block]!++;
  }

  isShared(block: number): boolean {
    return this.#users[block]! > 1;
  }

  release(block: number): void {
    if (this.#users[block] === 0)
      throw new OutriderError("ERR_RUNTIME", `cache block ${block} was released twice`);
    if (--this.#users[block]! === 0) this.#free.push(block);
  }
}
