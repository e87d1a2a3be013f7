/**
 * What the model wanted to say after a token, and after a pair of tokens, when it last stood there: also in rows of
 * rejected drafts, which are paid for anyway. Token recycling (Luo et al. 2024, arXiv:2408.08696) keeps the runners-up
 * of every row as well, for trees; chains need the first choice only, which the pass gives for nothing.
 *
 * Fixed tables, one entry a slot, the newest wins: 1.6 MB, for a model's whole life.
 */
export class Successors {
  readonly #previous = new Int32Array(SLOTS).fill(EMPTY);
  readonly #token = new Int32Array(SLOTS).fill(EMPTY);
  readonly #next = new Int32Array(SLOTS);
  readonly #times = new Uint8Array(SLOTS);

  /** The model's choice after `token`, which stood behind `previous`, was `next`. */
  record(previous: number, token: number, next: number): void {
    this.#put(ANY, token, next);
    this.#put(previous, token, next);
  }

  /** The slot of the pair, else of the token alone; undefined where neither is known. */
  find(previous: number, token: number): number | undefined {
    for (const before of [previous, ANY]) {
      const slot = slotOf(before, token);
      if (this.#previous[slot] === before && this.#token[slot] === token) return slot;
    }
    return undefined;
  }

  nextOf(slot: number): number {
    return this.#next[slot]!;
  }

  /** 0 to 5: known by the token alone, once, twice or more often in a row; known by the pair, likewise. */
  kindOf(slot: number): number {
    return (this.#previous[slot] === ANY ? 0 : 3) + this.#times[slot]! - 1;
  }

  #put(previous: number, token: number, next: number): void {
    const slot = slotOf(previous, token);
    const same =
      this.#previous[slot] === previous && this.#token[slot] === token && this.#next[slot] === next;
    this.#times[slot] = same ? Math.min(MOST_TIMES, this.#times[slot]! + 1) : 1;
    this.#previous[slot] = previous;
    this.#token[slot] = token;
    this.#next[slot] = next;
  }
}

export const SUCCESSOR_KINDS = 6;

const SLOTS = 1 << 17;
const EMPTY = -2;
/** In place of the token before: whatever it was. */
const ANY = -1;
const MOST_TIMES = 3;

function slotOf(previous: number, token: number): number {
  const hash = Math.imul(previous + 1, 0x9e3779b1) ^ Math.imul(token + 1, 0x85ebca6b);
  return ((hash ^ (hash >>> 15)) >>> 0) & (SLOTS - 1);
}
