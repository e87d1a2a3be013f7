import { native, Owned } from "./native.js";

/** Positions in a block of the cache; a cell is `block * blockSize + lane`. */
export const blockSize = 16;

/** Keys and values of all layers. Which block belongs to which sequence is the engine's business. */
export class KvCache extends Owned {
  constructor(
    readonly layers: number,
    readonly heads: number,
    readonly headDim: number,
    readonly blocks: number,
    /** float16 (default) or float32 keys and values. */
    readonly precision: "f16" | "f32",
  ) {
    super(
      native((core) => core.createCache(layers, heads, headDim, blocks, precision === "f16")),
      "key/value cache",
    );
  }

  /** Keys and values of cell `from[i]` go to cell `to[i]`, in order, when the next pass begins. None may be running. */
  copy(from: Int32Array, to: Int32Array): void {
    native((core) => core.copyCells(this.handle, from, to));
  }

  /** Bytes that one position takes in memory, over all layers. */
  static bytesPerPosition(layers: number, heads: number, headDim: number, precision: "f16" | "f32"): number {
    const padded = Math.ceil(headDim / blockSize) * blockSize;
    return layers * heads * (headDim + padded) * (precision === "f16" ? 2 : 4);
  }
}
