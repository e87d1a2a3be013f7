import { CONTEXT, type DraftTree, type Guesses, MOST_GUESSES, type Predictor } from "./predictor.js";

/** The longest context, in tokens. */
export const ORDERS = CONTEXT;

/**
 * How often which tokens followed the last 1 to 4 tokens. A hash table of fixed size: a set of slots for every hash,
 * the rarest context of a set gives way. 24 bytes a slot; two contexts that meet in one hash only cost a wrong guess.
 */
export class NgramTable {
  readonly #tags: Int32Array;
  /** [slots × MOST_GUESSES] most frequent first, as far as it is known. */
  readonly #tokens: Int32Array;
  /** [slots × MOST_GUESSES] 0: no token. */
  readonly #counts: Uint8Array;
  readonly #mask: number;

  /** `slots`: a power of two. */
  constructor(slots = 1 << 18) {
    this.#tags = new Int32Array(slots);
    this.#tokens = new Int32Array(slots * MOST_GUESSES);
    this.#counts = new Uint8Array(slots * MOST_GUESSES);
    this.#mask = slots - 1;
  }

  /** `token` followed a context `times` times more. */
  add(tag: number, token: number, times = 1): void {
    const slot = this.#slotOf(tag);
    const first = slot * MOST_GUESSES;
    const last = first + MOST_GUESSES - 1;
    let at = first;
    while (at < last && this.#counts[at]! > 0 && this.#tokens[at] !== token) at++;
    if (this.#tokens[at] !== token || this.#counts[at] === 0) {
      this.#tokens[at] = token;
      this.#counts[at] = 0;
    }
    let count = this.#counts[at]! + times;
    if (count > MOST_TIMES) {
      for (let i = first; i <= last; i++) this.#counts[i] = this.#counts[i]! >> 1;
      count = MOST_TIMES >> 1;
    }
    // Ties go to the newer one.
    while (at > first && count >= this.#counts[at - 1]!) {
      this.#tokens[at] = this.#tokens[at - 1]!;
      this.#counts[at] = this.#counts[at - 1]!;
      at--;
    }
    this.#tokens[at] = token;
    this.#counts[at] = count;
  }

  /** The slot of a context, or -1. */
  find(tag: number): number {
    const set = (tag >>> 3) & this.#mask & ~(WAYS - 1);
    for (let slot = set; slot < set + WAYS; slot++) if (this.#tags[slot] === tag) return slot;
    return -1;
  }

  tokenAt(slot: number, rank: number): number {
    return this.#tokens[slot * MOST_GUESSES + rank]!;
  }

  /** 0: there is no such token. */
  countAt(slot: number, rank: number): number {
    return this.#counts[slot * MOST_GUESSES + rank]!;
  }

  /** Every context that was counted `least` times or more, in columns; `load` reads it. */
  save(least = 1): Buffer {
    const slots: number[] = [];
    for (let slot = 0; slot <= this.#mask; slot++) {
      let total = 0;
      for (let rank = 0; rank < MOST_GUESSES; rank++) total += this.countAt(slot, rank);
      if (this.#tags[slot] !== 0 && total >= least) slots.push(slot);
    }
    const bytes = Buffer.alloc(slots.length * SLOT_BYTES);
    for (const [i, slot] of slots.entries()) {
      bytes.writeInt32LE(this.#tags[slot]!, 4 * i);
      for (let rank = 0; rank < MOST_GUESSES; rank++) {
        const cell = rank * slots.length + i;
        const count = this.countAt(slot, rank);
        if (count > 0) bytes.writeInt32LE(this.tokenAt(slot, rank), 4 * (slots.length + cell));
        bytes[4 * slots.length * (1 + MOST_GUESSES) + cell] = count;
      }
    }
    return bytes;
  }

  /** Adds what `save` gave; false, and nothing is added, where it is not that, or speaks of tokens from `vocab` on. */
  load(bytes: Buffer, vocab: number): boolean {
    const size = bytes.length / SLOT_BYTES;
    if (!Number.isInteger(size)) return false;
    // A copy, so that the columns lie at multiples of four. All platforms with a core are little-endian, as the file is.
    const { buffer } = Uint8Array.from(bytes);
    const tags = new Int32Array(buffer, 0, size);
    const tokens = new Int32Array(buffer, 4 * size, MOST_GUESSES * size);
    const counts = new Uint8Array(buffer, 4 * size * (1 + MOST_GUESSES));
    // Plain loops: a process does this once, before it has compiled anything, and its first token waits for it.
    for (let i = 0; i < tags.length; i++) if ((tags[i]! & 1) === 0) return false;
    for (let i = 0; i < tokens.length; i++) if (tokens[i]! < 0 || tokens[i]! >= vocab) return false;
    for (let i = 0; i < size; i++) {
      const slot = this.#slotOf(tags[i]!);
      for (let rank = 0; rank < MOST_GUESSES; rank++) {
        this.#tokens[slot * MOST_GUESSES + rank] = tokens[rank * size + i]!;
        this.#counts[slot * MOST_GUESSES + rank] = counts[rank * size + i]!;
      }
    }
    return true;
  }

  /** Of a context that is known or takes a free slot, else that of the rarest. */
  #slotOf(tag: number): number {
    const set = (tag >>> 3) & this.#mask & ~(WAYS - 1);
    for (let slot = set; slot < set + WAYS; slot++) {
      if (this.#tags[slot] === 0) this.#tags[slot] = tag;
      if (this.#tags[slot] === tag) return slot;
    }
    return this.#replace(tag, set);
  }

  #replace(tag: number, set: number): number {
    let slot = set;
    for (let way = set; way < set + WAYS; way++)
      if (this.#counts[way * MOST_GUESSES]! < this.#counts[slot * MOST_GUESSES]!) slot = way;
    // Those that stay age, so that an old favourite gives way in the end.
    for (let way = set; way < set + WAYS; way++) {
      const count = this.#counts[way * MOST_GUESSES]!;
      if (way !== slot && count > 1)
        this.#counts[way * MOST_GUESSES] = Math.max(count - 1, this.#counts[way * MOST_GUESSES + 1]!);
    }
    this.#tags[slot] = tag;
    for (let at = slot * MOST_GUESSES; at < (slot + 1) * MOST_GUESSES; at++) this.#counts[at] = 0;
    return slot;
  }
}

const WAYS = 4;
const SLOT_BYTES = 4 + 5 * MOST_GUESSES;
const MOST_TIMES = 255;

/** A number for the last `order` tokens at a place of `recent`, the latest first; never 0. */
export function contextTag(recent: ArrayLike<number>, at: number, order: number): number {
  let hash = Math.imul(order, 0x9e3779b1);
  for (let i = 0; i < order; i++) {
    hash = Math.imul(hash ^ (recent[at + i]! + 1), 0x85ebca6b);
    hash ^= hash >>> 15;
  }
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 13)) | 1;
}

/**
 * What most often followed the last tokens in the model's texts, for the longest context that is known (an n-gram model
 * with backing off).
 */
export function ngrams(table: NgramTable, learns = true): Predictor {
  const last = new Int32Array(CONTEXT).fill(-1);
  const shift = (token: number) => {
    last.copyWithin(1, 0);
    last[0] = token;
  };
  return {
    name: "ngram",
    priors: PRIORS,
    strength: PRIOR_STRENGTH,
    gates: 1,
    reset(prompt) {
      last.fill(-1);
      for (const token of prompt.slice(-CONTEXT)) shift(token);
    },
    accept(tokens) {
      for (const token of tokens) {
        if (learns)
          for (let order = 1; order <= ORDERS && last[order - 1]! >= 0; order++)
            table.add(contextTag(last, 0, order), token);
        shift(token);
      }
    },
    guess(tree: DraftTree, node: number, into: Guesses): number {
      for (let order = ORDERS; order >= 1; order--) {
        const slot = table.find(contextTag(tree.recent, node * CONTEXT, order));
        if (slot < 0) continue;
        let total = 0;
        for (let rank = 0; rank < MOST_GUESSES; rank++) total += table.countAt(slot, rank);
        const size = totalBucket(total);
        for (let rank = 0; rank < MOST_GUESSES; rank++) {
          const count = table.countAt(slot, rank);
          if (count === 0) break;
          into.add(table.tokenAt(slot, rank), kindOf(order, Math.min(rank, RANKS - 1), count / total, size));
        }
        into.absent = kindOf(order, RANKS, table.countAt(slot, 0) / total, size);
        return 0;
      }
      into.absent = NOTHING;
      return 0;
    },
  };
}

const RANKS = 3;
const SHARES = 6;
const TOTALS = [1, 2, 3, 5, 9, 20] as const;

function totalBucket(total: number): number {
  let bucket = TOTALS.length - 1;
  while (TOTALS[bucket]! > total) bucket--;
  return bucket;
}

/** By length of context, rank (the last one: not among the guesses), share of the context's count, and that count. */
function kindOf(order: number, rank: number, share: number, size: number): number {
  const part = Math.min(SHARES - 1, Math.floor(SHARES * share));
  return (((order - 1) * (RANKS + 1) + rank) * SHARES + part) * TOTALS.length + size;
}
const NOTHING = ORDERS * (RANKS + 1) * SHARES * TOTALS.length;

/** What the counts say, for contexts seen rarely much less. */
const PRIORS = new Float64Array(NOTHING + 1).fill(0.1);
for (let order = 1; order <= ORDERS; order++)
  for (const [size, total] of TOTALS.entries())
    for (let part = 0; part < SHARES; part++) {
      const share = (part + 0.5) / SHARES;
      for (let rank = 0; rank < RANKS; rank++)
        PRIORS[kindOf(order, rank, share, size)] = (0.8 * share * total) / (total + 1);
      PRIORS[kindOf(order, RANKS, share, size)] = 0.04;
    }
PRIORS[NOTHING] = 0.2;
const PRIOR_STRENGTH = 4;
