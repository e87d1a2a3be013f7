import { OutriderError, quote } from "../errors.js";
import { isControl, type Vocabulary } from "./vocabulary.js";

/**
 * The merges of a byte-pair encoding: which two tokens join to which third, the earlier in the list the sooner.
 * Rows sorted by (left, right) and searched by bisection: 0.6 MB for 49,000 merges, and no file can make it slow,
 * as it could a hash table.
 */
export class Merges {
  /** Where the rows of each left token begin; one more entry than tokens + 1. */
  readonly #first: Int32Array;
  readonly #right: Int32Array;
  readonly #rank: Int32Array;
  /** The token that the merge of each rank makes. */
  readonly merged: Int32Array;

  /**
   * @param list merges as `"left right"` in order of rank; those that make a control token never apply
   * Throws ERR_TOKENIZER with the index of a merge that is not of this form or of tokens that do not exist.
   */
  constructor(list: readonly string[], { tokens, types, idOf }: Vocabulary) {
    const n = list.length;
    const left = new Int32Array(n);
    const right = new Int32Array(n);
    this.merged = new Int32Array(n);
    for (let rank = 0; rank < n; rank++) {
      const text = list[rank]!;
      const space = text.indexOf(" ", 1);
      const a = text.slice(0, space);
      const b = text.slice(space + 1);
      if (space < 0 || b === "") throw badMerge(rank, text, "is not two tokens with a space between");
      const ids = [idOf.get(a), idOf.get(b), idOf.get(a + b)];
      const unknown = ids.indexOf(undefined);
      if (unknown >= 0) throw badMerge(rank, text, `needs the token ${quote([a, b, a + b][unknown]!)}`);
      left[rank] = ids[0]!;
      right[rank] = ids[1]!;
      this.merged[rank] = ids[2]!;
    }

    // Two stable counting sorts, by right, then by left: of equal pairs the first in the list comes first.
    const ranks = left.map((_, rank) => rank).filter((rank) => !isControl(types, this.merged[rank]!));
    const byRight = countingSort(ranks, right, tokens.length).order;
    const { order, first } = countingSort(byRight, left, tokens.length);
    this.#first = first;
    this.#rank = order;
    this.#right = order.map((rank) => right[rank]!);
  }

  /** The rank of the merge of two tokens, -1 if there is none. Ids from 0 to the number of tokens. */
  rank(left: number, right: number): number {
    let low = this.#first[left]!;
    const end = this.#first[left + 1]!;
    let high = end;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#right[middle]! < right) low = middle + 1;
      else high = middle;
    }
    return low < end && this.#right[low] === right ? this.#rank[low]! : -1;
  }
}

/** `order` sorted by `key` (0 to `count` - 1), and where each key begins (with room for one key more, unused). */
function countingSort(order: Int32Array, key: Int32Array, count: number) {
  const first = new Int32Array(count + 2);
  for (const k of key) first[k + 1]!++;
  for (let k = 0; k <= count; k++) first[k + 1]! += first[k]!;
  const next = first.slice();
  const sorted = new Int32Array(order.length);
  for (const item of order) sorted[next[key[item]!]!++] = item;
  return { order: sorted, first };
}

function badMerge(rank: number, text: string, problem: string): OutriderError {
  return new OutriderError("ERR_TOKENIZER", `tokenizer.ggml.merges[${rank}]: ${quote(text)} ${problem}`);
}

/** Ranks and positions share the 53 bits of a queue entry. */
const POSITIONS = 2 ** 29;
const DEAD = -(2 ** 31);

/**
 * Joins tokens until no merge applies: always the merge of lowest rank, of equals the leftmost.
 * A queue of possible merges makes it n log n; words of 4 MB are allowed, and the obvious loop is quadratic.
 */
export class BytePairEncoder {
  readonly #merges: Merges;
  /** Bytes in each token. */
  readonly #length: Int32Array;
  /**
   * The word, a cell a byte. The first cell of a token holds its id, the last the complement of where it begins
   * (unless it is also the first), any other first cell of old is DEAD: neighbours without links.
   */
  #cells = new Int32Array(64);
  readonly #queue = new MinQueue();

  /** @param length bytes in each token, and 1 for the id after the last, which stands for a byte without a token */
  constructor(merges: Merges, length: Int32Array) {
    this.#merges = merges;
    this.#length = length;
  }

  /** Cells for a word of `n` bytes: put the id of each byte's token there, then call `encode`. */
  cells(n: number): Int32Array {
    if (n > this.#cells.length) this.#cells = new Int32Array(n);
    return this.#cells;
  }

  /** Merges the first `n` cells and appends the tokens to `out`; bytes without a token are left out. */
  encode(n: number, out: number[]): void {
    const cells = this.#cells;
    const length = this.#length;
    const queue = this.#queue;
    const merges = this.#merges;
    for (let at = 0; at + 1 < n; at++) {
      const rank = merges.rank(cells[at]!, cells[at + 1]!);
      if (rank >= 0) queue.append(rank * POSITIONS + at);
    }
    queue.order();
    while (queue.size > 0) {
      const entry = queue.pop();
      const at = entry % POSITIONS;
      const rank = (entry - at) / POSITIONS;
      const left = cells[at]!;
      if (left < 0) continue;
      const next = at + length[left]!;
      // The tokens here may have been joined to others since.
      if (next >= n || merges.rank(left, cells[next]!) !== rank) continue;
      const id = merges.merged[rank]!;
      const end = at + length[id]!;
      cells[next] = DEAD;
      cells[end - 1] = ~at;
      cells[at] = id;
      if (at > 0) {
        const before = cells[at - 1]!;
        const start = before < 0 ? ~before : at - 1;
        const joined = merges.rank(cells[start]!, id);
        if (joined >= 0) queue.push(joined * POSITIONS + start);
      }
      if (end < n) {
        const joined = merges.rank(id, cells[end]!);
        if (joined >= 0) queue.push(joined * POSITIONS + at);
      }
    }
    const missing = length.length - 1;
    for (let at = 0; at < n; ) {
      const id = cells[at]!;
      if (id !== missing) out.push(id);
      at += length[id]!;
    }
    // One huge word must not hold its memory for ever.
    if (n > 1 << 16) {
      this.#cells = new Int32Array(64);
      queue.release();
    }
  }
}

/** A binary heap of numbers, the least first. */
class MinQueue {
  #items = new Float64Array(64);
  size = 0;

  /** Adds without ordering; call `order` before the next `pop`. */
  append(item: number): void {
    if (this.size === this.#items.length) {
      const grown = new Float64Array(this.size * 2);
      grown.set(this.#items);
      this.#items = grown;
    }
    this.#items[this.size++] = item;
  }

  order(): void {
    for (let at = (this.size >>> 1) - 1; at >= 0; at--) this.#sink(at, this.#items[at]!);
  }

  push(item: number): void {
    this.append(item);
    const items = this.#items;
    let at = this.size - 1;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (items[parent]! <= item) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  pop(): number {
    const least = this.#items[0]!;
    const last = this.#items[--this.size]!;
    if (this.size > 0) this.#sink(0, last);
    return least;
  }

  release(): void {
    this.#items = new Float64Array(64);
  }

  #sink(start: number, item: number): void {
    const items = this.#items;
    const size = this.size;
    let at = start;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && items[child + 1]! < items[child]!) child++;
      if (items[child]! >= item) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = item;
  }
}
