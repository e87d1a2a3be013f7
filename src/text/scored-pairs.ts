import type { Pairs } from "./bpe.js";
import { TokenType, type Vocabulary } from "./vocabulary.js";

const CACHE_BITS = 17;

/**
 * SentencePiece's BPE: two neighbours join if what they spell is a token, that of the highest score first.
 * Which tokens spell a third is found when a pair is first seen, and remembered: to list all pairs of a vocabulary
 * of 256,000 tokens takes longer than loading the model.
 */
export class ScoredPairs implements Pairs {
  readonly ranks: number;
  readonly #vocabulary: Vocabulary;
  /** Rank of each token, equal scores alike; -1 for those that text never becomes. */
  readonly #rankOf: Int32Array;
  // A direct-mapped cache: a pair and the token that it spells, -1 if none.
  readonly #left = new Int32Array(1 << CACHE_BITS).fill(-1);
  readonly #right = new Int32Array(1 << CACHE_BITS);
  readonly #token = new Int32Array(1 << CACHE_BITS);

  /** @param scores one for each token, finite */
  constructor(vocabulary: Vocabulary, scores: ArrayLike<number>) {
    const { tokens, types } = vocabulary;
    this.#vocabulary = vocabulary;
    this.#rankOf = new Int32Array(tokens.length).fill(-1);
    const order = new Int32Array(tokens.length);
    let count = 0;
    let sorted = true;
    for (let id = 0; id < tokens.length; id++) {
      const type = types[id];
      if (type === TokenType.control || type === TokenType.unknown || type === TokenType.byte) continue;
      if (count > 0 && scores[order[count - 1]!]! < scores[id]!) sorted = false;
      order[count++] = id;
    }
    const ids = order.subarray(0, count);
    if (!sorted) ids.sort((a, b) => scores[b]! - scores[a]! || a - b);
    let rank = -1;
    for (let i = 0; i < count; i++) {
      if (i === 0 || scores[ids[i]!] !== scores[ids[i - 1]!]) rank++;
      this.#rankOf[ids[i]!] = rank;
    }
    this.ranks = rank + 1;
  }

  rank(left: number, right: number): number {
    const token = this.#spelled(left, right);
    return token < 0 ? -1 : this.#rankOf[token]!;
  }

  joined(_rank: number, left: number, right: number): number {
    return this.#spelled(left, right);
  }

  /** The token of both texts together, -1 if there is none. */
  #spelled(left: number, right: number): number {
    const slot = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) >>> (32 - CACHE_BITS);
    if (this.#left[slot] === left && this.#right[slot] === right) return this.#token[slot]!;
    const found = this.#vocabulary.idOf.get(this.#text(left) + this.#text(right)) ?? -1;
    const token = found >= 0 && this.#rankOf[found]! >= 0 ? found : -1;
    this.#left[slot] = left;
    this.#right[slot] = right;
    this.#token[slot] = token;
    return token;
  }

  #text(id: number): string {
    const { tokens } = this.#vocabulary;
    return id < tokens.length ? tokens[id]! : String.fromCodePoint(id - tokens.length);
  }
}
