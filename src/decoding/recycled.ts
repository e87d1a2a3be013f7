import type { PassInfo } from "./drafter.js";
import { contextTag } from "./ngrams.js";
import {
  CONTEXT,
  type DraftTree,
  type Guesses,
  MOST_GUESSES,
  NO_TOKEN,
  type Predictor,
} from "./predictor.js";

/** The longest context, in tokens. */
const ORDERS = 3;

/**
 * What the model wanted to say behind the last one, two and three tokens when it last stood there, also in rows of
 * rejected drafts, which are paid for anyway: the newest wins. 21 bytes a slot, one table for a model's whole life.
 */
export class RecycledTable {
  readonly #tags = new Int32Array(SLOTS);
  /** [slots × MOST_GUESSES] the model's choice, then the runners-up. */
  readonly #tokens = new Int32Array(SLOTS * MOST_GUESSES);
  /** How often in a row the choice was the same. */
  readonly #times = new Uint8Array(SLOTS);

  /** The slot of a context, or -1. */
  find(tag: number): number {
    const slot = (tag >>> 3) & (SLOTS - 1);
    return this.#tags[slot] === tag ? slot : -1;
  }

  tokenAt(slot: number, rank: number): number {
    return this.#tokens[slot * MOST_GUESSES + rank]!;
  }

  timesAt(slot: number): number {
    return this.#times[slot]!;
  }

  /** `pick` was chosen; `top` holds the best tokens of the same row from `at` on. */
  record(tag: number, pick: number, top: Int32Array, at: number, count: number): void {
    const slot = (tag >>> 3) & (SLOTS - 1);
    const first = slot * MOST_GUESSES;
    const same = this.#tags[slot] === tag && this.#tokens[first] === pick;
    this.#times[slot] = same ? Math.min(MOST_TIMES, this.#times[slot]! + 1) : 1;
    this.#tags[slot] = tag;
    this.#tokens[first] = pick;
    let rank = 1;
    for (let i = 0; i < count && rank < MOST_GUESSES; i++)
      if (top[at + i] !== pick) this.#tokens[first + rank++] = top[at + i]!;
    if (count > 0 || !same) this.#tokens.fill(NO_TOKEN, first + rank, first + MOST_GUESSES);
  }
}

const SLOTS = 1 << 17;
const MOST_TIMES = 3;

/**
 * Token recycling (Luo et al. 2024, arXiv:2408.08696). `runnersUp`: how many of a row's best tokens are kept beside its
 * choice, which comes for nothing.
 */
export function recycled(table: RecycledTable, runnersUp: number): Predictor {
  const top = runnersUp === 0 ? 0 : runnersUp + 1;
  const context = new Int32Array(CONTEXT);
  let text: number[] = [];
  const before = ({ tokens, parents }: PassInfo, row: number, steps: number): number => {
    for (; steps > 0 && row > 0; steps--) row = parents[row]!;
    return row > 0 || steps === 0 ? tokens[row]! : (text.at(-1 - steps) ?? NO_TOKEN);
  };
  return {
    name: "recycle",
    priors: PRIORS,
    strength: PRIOR_STRENGTH,
    gates: 1,
    top,
    reset(prompt) {
      text = prompt.slice(-ORDERS);
    },
    accept(tokens, pass) {
      for (let row = 0; pass !== undefined && row < pass.rows; row++) {
        for (let steps = 0; steps < ORDERS; steps++) context[steps] = before(pass, row, steps);
        for (let order = 1; order <= ORDERS && context[order - 1] !== NO_TOKEN; order++)
          table.record(
            contextTag(context, 0, order),
            pass.result.picks[row]!,
            pass.result.topTokens,
            row * pass.top,
            Math.min(pass.top, top),
          );
      }
      text = [...text, ...tokens].slice(-ORDERS);
    },
    guess(tree: DraftTree, node: number, into: Guesses): number {
      for (let order = ORDERS; order >= 1; order--) {
        const slot = table.find(contextTag(tree.recent, node * CONTEXT, order));
        if (slot < 0) continue;
        const times = table.timesAt(slot);
        for (let rank = 0; rank < MOST_GUESSES; rank++) {
          const token = table.tokenAt(slot, rank);
          if (token === NO_TOKEN) break;
          into.add(token, kindOf(order, rank, times));
        }
        into.absent = kindOf(order, MOST_GUESSES, times);
        return 0;
      }
      into.absent = NOTHING;
      return 0;
    },
  };
}

function kindOf(order: number, rank: number, times: number): number {
  return ((order - 1) * (MOST_GUESSES + 1) + rank) * MOST_TIMES + times - 1;
}
const NOTHING = ORDERS * (MOST_GUESSES + 1) * MOST_TIMES;

/** By context; in it by rank, the last one "not among them"; in it by times in a row. */
const PRIORS = Float64Array.from([
  ...[0.14, 0.15, 0.32, 0.08, 0.08, 0.1, 0.05, 0.05, 0.06, 0.03, 0.03, 0.04, 0.1, 0.1, 0.1],
  ...[0.18, 0.35, 0.6, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03, 0.1, 0.08, 0.05],
  ...[0.36, 0.57, 0.82, 0.12, 0.1, 0.06, 0.06, 0.05, 0.03, 0.04, 0.03, 0.02, 0.08, 0.05, 0.03],
  0.2,
]);
const PRIOR_STRENGTH = 12;
