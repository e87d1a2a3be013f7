/**
 * What the model wanted to say behind a token, a pair and a triple of tokens, when it last stood there: also in rows of
 * rejected drafts, which are paid for anyway. Token recycling (Luo et al. 2024, arXiv:2408.08696) keeps the runners-up
 * of every row as well, for trees; chains need the first choice only, which the pass gives for nothing.
 *
 * One table with one entry a slot, the newest wins: 3.4 MB, for a model's whole life.
 */
export class Successors {
  readonly #context = new Int32Array(SLOTS).fill(EMPTY);
  readonly #token = new Int32Array(SLOTS).fill(EMPTY);
  readonly #next = new Int32Array(SLOTS);
  readonly #times = new Uint8Array(SLOTS);

  /** The model's choice after `token`, which stood behind `second` and that behind `first`, was `next`. */
  record(first: number, second: number, token: number, next: number): void {
    this.#put(ANY, token, next);
    this.#put(pair(ANY, second), token, next);
    this.#put(pair(first, second), token, next);
  }

  /** Where the longest known context of these tokens is kept: `kind` and `next` tell more. */
  find(
    first: number,
    second: number,
    token: number,
  ): { readonly kind: number; readonly next: number } | undefined {
    for (let order = 2; order >= 0; order--) {
      const context = order === 2 ? pair(first, second) : order === 1 ? pair(ANY, second) : ANY;
      const slot = slotOf(context, token);
      if (this.#context[slot] === context && this.#token[slot] === token)
        return { kind: MOST_TIMES * order + this.#times[slot]! - 1, next: this.#next[slot]! };
    }
    return undefined;
  }

  #put(context: number, token: number, next: number): void {
    const slot = slotOf(context, token);
    const same = this.#context[slot] === context && this.#token[slot] === token && this.#next[slot] === next;
    this.#times[slot] = same ? Math.min(MOST_TIMES, this.#times[slot]! + 1) : 1;
    this.#context[slot] = context;
    this.#token[slot] = token;
    this.#next[slot] = next;
  }
}

const SLOTS = 1 << 18;
const EMPTY = -2;
/** In place of the tokens before: whatever they were. */
const ANY = -1;
const MOST_TIMES = 3;

/** By tokens of context (1, 2, 3), then by how often in a row the model chose the same (once, twice, more often). */
export const SUCCESSOR_KINDS = 3 * MOST_TIMES;

/** Two tokens as one number, 0 or more; that two pairs meet in one is rare, and only costs a wrong guess. */
function pair(first: number, second: number): number {
  return (Math.imul(first + 2, 0x9e3779b1) ^ Math.imul(second + 2, 0x27d4eb2f)) >>> 1;
}

function slotOf(context: number, token: number): number {
  const hash = Math.imul(context + 1, 0x9e3779b1) ^ Math.imul(token + 1, 0x85ebca6b);
  return ((hash ^ (hash >>> 15)) >>> 0) & (SLOTS - 1);
}
