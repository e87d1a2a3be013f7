import { OutriderError, quote } from "../errors.js";
import { isControl, type Vocabulary } from "./vocabulary.js";

/**
 * Which two neighbours join to which token, and in what order. Ids from the number of tokens on are symbols that no
 * token is: that number plus the code point or byte.
 */
export interface Pairs {
  /** Ranks are below this. */
  readonly ranks: number;
  /** The rank of joining two symbols, the lower the sooner; -1 if they do not join. */
  rank(left: number, right: number): number;
  /** The token that two symbols of this rank make. */
  joined(rank: number, left: number, right: number): number;
}

/**
 * The merges of a byte-pair encoding: which two tokens join to which third, the earlier in the list the sooner.
 * Rows sorted by (left, right) and searched by bisection: 0.6 MB for 49,000 merges, and no file can make it slow,
 * as it could a hash table.
 */
export class Merges implements Pairs {
  /** Where the rows of each left token begin; one more entry than tokens + 1. */
  readonly #first: Int32Array;
  readonly #right: Int32Array;
  readonly #rank: Int32Array;
  /** The token that the merge of each rank makes. */
  readonly merged: Int32Array;
  readonly ranks: number;
  readonly #tokens: number;

  /**
   * @param list merges as `"left right"` or both parts, in order of rank; those that make a control token never apply
   * @param where what errors call the list
   * Throws ERR_TOKENIZER with the index of a merge that is not of this form or of tokens that do not exist.
   */
  constructor(list: readonly Merge[], { tokens, types, idOf }: Vocabulary, where: string) {
    const n = list.length;
    this.ranks = n;
    this.#tokens = tokens.length;
    const left = new Int32Array(n);
    const right = new Int32Array(n);
    this.merged = new Int32Array(n);
    let made = -1;
    for (let rank = 0; rank < n; rank++) {
      const merge = list[rank]!;
      const [a, b] = typeof merge === "string" ? splitMerge(merge) : merge;
      const fail = (problem: string) =>
        new OutriderError(
          "ERR_TOKENIZER",
          `${where}[${rank}]: ${quote(typeof merge === "string" ? merge : merge.join(" "))} ${problem}`,
        );
      if (a === "" || b === "") throw fail("is not two tokens with a space between");
      // Trained vocabularies list what merges make in order: looking at the next one first saves 10 of 40 ms.
      const next = tokens[made + 1];
      const follows = next?.length === a.length + b.length && next.startsWith(a) && next.endsWith(b);
      const leftId = idOf.get(a);
      const rightId = idOf.get(b);
      const id = follows ? made + 1 : idOf.get(a + b);
      if (leftId === undefined) throw fail(`needs the token ${quote(a)}`);
      if (rightId === undefined) throw fail(`needs the token ${quote(b)}`);
      if (id === undefined) throw fail(`needs the token ${quote(a + b)}`);
      left[rank] = leftId;
      right[rank] = rightId;
      this.merged[rank] = made = id;
    }

    // Two stable counting sorts, by right, then by left: of equal pairs the first in the list comes first.
    const ranks = left.map((_, rank) => rank).filter((rank) => !isControl(types, this.merged[rank]!));
    const byRight = countingSort(ranks, right, tokens.length).order;
    const { order, first } = countingSort(byRight, left, tokens.length);
    this.#first = first;
    this.#rank = order;
    this.#right = order.map((rank) => right[rank]!);
  }

  rank(left: number, right: number): number {
    if (left >= this.#tokens) return -1;
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

  joined(rank: number): number {
    return this.merged[rank]!;
  }
}

export type Merge = string | readonly [left: string, right: string];

function splitMerge(merge: string): [string, string] {
  const space = merge.indexOf(" ", 1);
  return space < 0 ? ["", ""] : [merge.slice(0, space), merge.slice(space + 1)];
}

/** `order` sorted by `key` (0 to `count` - 1), and where each key begins (with room for one key more, unused). */
function countingSort(order: Int32Array, key: Int32Array, count: number) {
  const first = new Int32Array(count + 2);
  for (let i = 0; i < order.length; i++) first[key[order[i]!]! + 1]!++;
  for (let k = 0; k <= count; k++) first[k + 1]! += first[k]!;
  const next = first.slice();
  const sorted = new Int32Array(order.length);
  for (let i = 0; i < order.length; i++) sorted[next[key[order[i]!]!]!++] = order[i]!;
  return { order: sorted, first };
}

/** Ranks and positions share the 53 bits of a queue entry. */
export const POSITIONS = 2 ** 29;

/** Joins between two pauses of a long word. */
const STEP = 1 << 14;

/**
 * Joins neighbours until none can be joined: always those of lowest rank, of equals the leftmost.
 * A queue of possible joins makes it n log n; words of 4 MB are allowed, and the obvious loop is quadratic.
 */
export class BytePairEncoder {
  readonly #pairs: Pairs;
  /** Cells of each token. */
  readonly #length: Int32Array;
  /**
   * The word: a cell for each byte or UTF-16 unit. The first cell of a symbol holds its id, the last the complement
   * of where it begins (unless it is also the first): neighbours without links.
   */
  #cells = new Int32Array(64);
  /** Where a symbol begins: the rank of joining it with the next one, -1 if they do not join. */
  #ranks = new Int32Array(64);
  readonly #queue: MergeQueue;

  /** @param length cells that each token takes */
  constructor(pairs: Pairs, length: Int32Array) {
    this.#pairs = pairs;
    this.#length = length;
    this.#queue = new MergeQueue(pairs.ranks);
  }

  /** Cells for a word of `n`: put the symbols there, as the class's comment on them says, then take `steps`. */
  cells(n: number): Int32Array {
    if (n > this.#cells.length) {
      this.#cells = new Int32Array(n);
      this.#ranks = new Int32Array(n);
    }
    return this.#cells;
  }

  /** Joins the symbols of the first `n` cells and appends them to `out`. Pauses after every few thousand. */
  *steps(n: number, out: number[]): Generator<void, void, undefined> {
    const cells = this.#cells;
    const ranks = this.#ranks;
    const queue = this.#queue;
    const pairs = this.#pairs;
    let pause = STEP;
    for (let at = 0; at < n; ) {
      const next = at + this.#size(cells[at]!);
      const rank = next < n ? pairs.rank(cells[at]!, cells[next]!) : -1;
      ranks[at] = rank;
      if (rank >= 0) queue.push(rank, at);
      at = next;
      if (--pause === 0) {
        pause = STEP;
        yield;
      }
    }
    for (let entry = queue.pop(); entry >= 0; entry = queue.pop()) {
      const at = entry % POSITIONS;
      const rank = (entry - at) / POSITIONS;
      if (ranks[at] !== rank) continue; // one of the two was joined to another since
      const middle = at + this.#size(cells[at]!);
      const end = middle + this.#size(cells[middle]!);
      const id = pairs.joined(rank, cells[at]!, cells[middle]!);
      ranks[middle] = -1;
      cells[at] = id;
      cells[end - 1] = ~at;
      const after = end < n ? pairs.rank(id, cells[end]!) : -1;
      ranks[at] = after;
      if (at > 0) {
        const last = cells[at - 1]!;
        const start = last < 0 ? ~last : at - 1;
        const before = pairs.rank(cells[start]!, id);
        ranks[start] = before;
        if (before >= 0) queue.push(before, start);
      }
      if (after >= 0) queue.push(after, at);
      if (--pause === 0) {
        pause = STEP;
        yield;
      }
    }
    for (let at = 0; at < n; ) {
      const id = cells[at]!;
      out.push(id);
      at += this.#size(id);
      if (--pause === 0) {
        pause = STEP;
        yield;
      }
    }
  }

  /** Cells of a symbol: a token, or what no token is, one byte or the units of one code point. */
  #size(id: number): number {
    const tokens = this.#length.length;
    return id < tokens ? this.#length[id]! : id - tokens > 0xffff ? 2 : 1;
  }
}

/**
 * Possible merges, the lowest rank first, of equals the leftmost. Within a rank they nearly always come from left
 * to right, so each rank has a list, and only what comes late goes through a heap: 4 MB of random letters take 1.6 s
 * instead of 2.1 s with one heap for all, 4 MB of spaces 0.8 s instead of 2.3 s.
 */
export class MergeQueue {
  /** First and last entry of each rank's list; no list: last is -1. */
  readonly #first: Int32Array;
  readonly #last: Int32Array;
  #position = new Int32Array(64);
  #next = new Int32Array(64);
  #used = 0;
  /** Entries that are free again, linked by `#next`. */
  #free = -1;
  /** The ranks that have a list. */
  readonly #ranks = new MinHeap();
  readonly #late = new MinHeap();

  constructor(ranks: number) {
    this.#first = new Int32Array(ranks);
    this.#last = new Int32Array(ranks).fill(-1);
  }

  push(rank: number, position: number): void {
    const last = this.#last[rank]!;
    if (last >= 0 && this.#position[last]! > position) {
      this.#late.push(rank * POSITIONS + position);
      return;
    }
    const entry = this.#allocate();
    this.#position[entry] = position;
    if (last >= 0) this.#next[last] = entry;
    else {
      this.#first[rank] = entry;
      this.#ranks.push(rank);
    }
    this.#last[rank] = entry;
  }

  /** Takes the next merge out: rank * POSITIONS + position, or -1 if there is none. */
  pop(): number {
    if (this.#ranks.size === 0) return this.#late.size === 0 ? -1 : this.#late.pop();
    const rank = this.#ranks.least;
    const entry = this.#first[rank]!;
    const listed = rank * POSITIONS + this.#position[entry]!;
    if (this.#late.size > 0 && this.#late.least < listed) return this.#late.pop();
    if (entry === this.#last[rank]) {
      this.#last[rank] = -1;
      this.#ranks.pop();
    } else this.#first[rank] = this.#next[entry]!;
    this.#next[entry] = this.#free;
    this.#free = entry;
    return listed;
  }

  #allocate(): number {
    const entry = this.#free;
    if (entry >= 0) {
      this.#free = this.#next[entry]!;
      return entry;
    }
    if (this.#used === this.#position.length) {
      this.#position = grown(this.#position, new Int32Array(this.#used * 2));
      this.#next = grown(this.#next, new Int32Array(this.#used * 2));
    }
    return this.#used++;
  }
}

/** A binary heap of numbers. */
class MinHeap {
  #items = new Float64Array(64);
  size = 0;

  get least(): number {
    return this.#items[0]!;
  }

  push(item: number): void {
    if (this.size === this.#items.length) this.#items = grown(this.#items, new Float64Array(this.size * 2));
    const items = this.#items;
    let at = this.size++;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (items[parent]! <= item) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  pop(): number {
    const items = this.#items;
    const least = items[0]!;
    const item = items[--this.size]!;
    const size = this.size;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && items[child + 1]! < items[child]!) child++;
      if (items[child]! >= item) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = item;
    return least;
  }
}

function grown<T extends Int32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
