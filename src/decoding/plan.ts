import type { SharedPass } from "../engine/sequence.js";
import { Calibration } from "./calibration.js";
import type { CostModel } from "./cost-model.js";
import type { Draft } from "./drafter.js";
import { Recent } from "./recent.js";

/** What a pass cost and brought. */
export interface PassCost {
  /** Tokens of the pass: the text's last one, the drafted ones, padding. */
  readonly length: number;
  /** Milliseconds inside the core. */
  readonly coreMs: number;
  /** Milliseconds inside the drafter. */
  readonly draftMs: number;
  /** Tokens that the drafter proposed, verified or not. */
  readonly proposed: number;
  /** Tokens that the pass verified. */
  readonly drafted: number;
  /** Tokens that the pass emitted. */
  readonly emitted: number;
  /** Where other texts' rows were in the pass too. */
  readonly shared?: SharedPass | undefined;
}

/** Decides how much to draft and how much of a draft is worth its pass. */
export interface Planner {
  /** The most tokens that the drafter should propose now, 0 to `most`, behind `past` positions (default 0). */
  limit(most: number, past?: number): number;
  /** The smallest chance of acceptance with which a draft's n-th best token, n from 1, may still pay for its place. */
  price(count: number): number;
  /**
   * Indices of the drafted tokens to verify, ascending, every one with its ancestors. `reach[i]`: the estimated
   * chance that token i and all its ancestors are accepted.
   */
  choose(reach: readonly number[]): number[];
  /** The length to which a pass of `length` tokens is filled up in order to learn its cost; at most `most`. */
  padTo(length: number, most: number): number;
  observe(pass: PassCost): void;
  /** So many of the passes to come would not be drafted for either, where `limit` just gave 0. */
  rest(): number;
}

/** Always drafts `length` tokens and verifies whatever is drafted. */
export function fixedLength(length: number): Planner {
  return {
    limit: (most) => Math.min(length, most),
    price: () => 0,
    choose: (reach) => reach.map((_, i) => i),
    padTo: (passLength) => passLength,
    observe() {},
    rest: () => (length === 0 ? Number.POSITIVE_INFINITY : 0),
  };
}

/**
 * Verifies as much of a draft as pays: the part that maximises expected tokens - rate × cost, where the rate is what
 * decoding yields at the moment in tokens for the cost of a single-token pass (the renewal-reward rule: maximising
 * each pass's own tokens per cost instead would favour short passes). A drafter's claims are believed as far as they
 * came true, so in a long text one that is always wrong costs less than 1 % (plan.test.ts).
 *
 * For one drafter; it keeps what it learned when the text changes. `costs` may be shared. `isLight`: a draft costs next to
 * nothing, so the first ones need not be short. `isGuided`: most of what it costs are masks, which the passes need anyway.
 */
export function adaptiveLength(
  costs: CostModel,
  {
    isLight = false,
    isGuided = false,
  }: { readonly isLight?: boolean | undefined; readonly isGuided?: boolean | undefined } = {},
): Planner {
  let tokens = RATE_WINDOW;
  let cost = RATE_WINDOW;
  // The first calls of a drafter run unoptimised, a hundred times slower: no mean.
  const draftMsPerToken = new Recent(DRAFT_SAMPLES);
  /** Of a drafted token in the next pass, in single-token passes. */
  let each = 0;
  let idle = 0;
  let claimed = 0;
  let accepted = 0;
  // What the next pass stakes on the draft, for `observe`.
  let stake = 0;
  // Texts that made a step in the last pass, and the rows beside this one's own: what the next pass will have too.
  let texts = 1;
  let others = 0;
  let past = 0;
  // What drafting brought in shared passes, in tokens, over what its time and its rows cost all of their texts.
  let sharedGain = 0;
  let sharedPasses = 0;
  const byDepth = new Calibration(new Array<number>(costs.maxLength).fill(DEPTH_PRIOR), DEPTH_STRENGTH);

  /** In tokens for the cost of a single-token pass; plain decoding has 1, of several texts at a time more. */
  const rate = () => Math.max(texts / costs.relative(texts, past), (CAUTION * tokens) / cost);
  const draftCost = () => {
    const single = costs.ms(1, past);
    const known = draftMsPerToken.size;
    if (single === undefined || known === 0 || (isLight && known < FIRST_DRAFTS)) return 0;
    // What makes a light drafter slow is cold code, not the draft.
    const cost = draftMsPerToken.quantile(isLight ? 0 : 0.5) / single;
    // Of a cheap drafter most is the call's own price, however short the draft; as the price of its tokens it would cut
    // drafts that pay. Beside other texts, where drafts are short, it would end drafting for good: there `sharedGain`
    // weighs it.
    return cost < (others > 0 || isGuided ? CHEAP_CALL : FREE_DRAFT) ? 0 : cost;
  };

  // The other texts' rows would be measured too.
  const probe = () => (others === 0 ? costs.probe() : undefined);

  const price = (count: number) =>
    count >= costs.maxLength ? 1 : Math.min(1, rate() * (each + costs.placePrice(others + count + 1, past)));

  return {
    limit(most, now = 0) {
      stake = 0;
      past = now;
      each = draftCost();
      // Not even what is sure to be accepted would pay for its row.
      if (others > 0 && price(1) >= 1) return 0;
      if (others > 0 && sharedGain < 0 && sharedPasses % SHARED_RETRY !== 0) return 0;
      // A longer draft would push the length that is to be measured out of reach.
      const longest = Math.min(most, (probe() ?? costs.maxLength) - 1);
      if (longest === 0) return 0;
      const known = draftMsPerToken.size;
      if (each === 0 && (isLight || known > 0)) return longest;
      // What cold code takes says little, and to look again costs little.
      if (isLight && idle >= LIGHT_RETRY) return longest;
      if (known < FIRST_DRAFTS || idle >= RETRY_PASSES) return Math.min(longest, FIRST_DRAFT);
      // A drafter that pays for each token must decide before it sees the draft: reckon with the usual acceptance.
      const reach: number[] = [];
      for (let depth = 0; depth < longest; depth++) {
        reach.push((reach[depth - 1] ?? 1) * byDepth.estimate(depth));
      }
      return bestCount(reach, rate(), costs, others, past, each);
    },
    price,
    choose(reach) {
      const order = reach.map((_, i) => i).sort((a, b) => reach[b]! - reach[a]! || a - b);
      const trust = Math.min(1, (accepted + TRUST_STRENGTH) / (claimed + TRUST_STRENGTH));
      const sorted = order.slice(0, costs.maxLength - 1).map((i) => trust * reach[i]!);
      // A length that is to be measured is filled with drafts first.
      const count = Math.max(bestCount(sorted, rate(), costs, others, past, 0), (probe() ?? 1) - 1);
      const chosen = order.slice(0, count);
      stake = chosen.reduce((sum, i) => sum + reach[i]!, 0);
      return chosen.sort((a, b) => a - b);
    },
    rest() {
      const decided =
        !isLight && others === 0 && probe() === undefined && draftMsPerToken.size >= FIRST_DRAFTS;
      return decided ? Math.max(0, RETRY_PASSES - 1 - idle) : 0;
    },
    padTo(length, most) {
      const wanted = probe() ?? 0;
      return wanted <= most ? Math.max(length, wanted) : length;
    },
    observe(pass) {
      const { shared } = pass;
      if (shared === undefined) costs.observe(pass.length, pass.coreMs, past);
      else costs.observeShared(shared, past);
      texts = shared?.steps ?? 1;
      others = shared === undefined ? 0 : shared.rows + shared.filled - pass.length;
      const single = costs.ms(1, past);
      const right = pass.emitted - 1;
      const spent = single === undefined ? 0 : pass.draftMs / single;
      // A drafter that runs a model has done so even if it proposes nothing.
      const tried = pass.proposed > 0 || (!isLight && spent > FREE_DRAFT);
      if (shared !== undefined) sharedPasses++;
      if (shared !== undefined && tried && single !== undefined) {
        const rows = costs.relative(shared.rows, past) - costs.relative(shared.rows - pass.drafted, past);
        sharedGain = RATE_KEPT * sharedGain + right - rate() * (rows + spent);
      }
      tokens = RATE_KEPT * tokens + pass.emitted;
      cost =
        RATE_KEPT * cost +
        // Of a pass with others' steps each bears its part.
        (shared === undefined
          ? costs.relative(Math.min(pass.drafted + 1, costs.maxLength), past)
          : costs.relative(shared.rows, past) / texts) +
        spent;
      claimed = TRUST_KEPT * claimed + stake;
      accepted = TRUST_KEPT * accepted + right;
      idle = tried ? 0 : idle + 1;
      if (tried) draftMsPerToken.add(pass.draftMs / Math.max(1, pass.proposed));
      byDepth.fade(TRUST_KEPT);
      // It was asked for what was not worth verifying.
      if (tried && !isLight && pass.drafted === 0) byDepth.observe(0, false);
      for (let depth = 0; depth < Math.min(pass.drafted, right + 1, costs.maxLength); depth++) {
        byDepth.observe(depth, depth < right);
      }
    },
  };
}

/** Of the best part of a draft the estimates are too high: chosen for being so. Simulated over 235 answers, 1.1 to 1.3 is best. */
const CAUTION = 1.2;
const RATE_WINDOW = 24;
const RATE_KEPT = 1 - 1 / RATE_WINDOW;
/** Distrust halves in about 140 passes; then the drafter is tried again. */
const TRUST_KEPT = 0.995;
const TRUST_STRENGTH = 4;
const DEPTH_PRIOR = 0.7;
const DEPTH_STRENGTH = 4;
const DRAFT_SAMPLES = 9;
/** So many drafts, of unknown cost, tell what they cost; every later try of a drafter that did not pay is as long. */
const FIRST_DRAFTS = 3;
const FIRST_DRAFT = 1;
const RETRY_PASSES = 512;
const LIGHT_RETRY = 4;
/** A drafter whose token costs less than this part of a pass is no model of its own. */
const CHEAP_CALL = 0.3;
/** Where drafts do not pay in passes that other texts share, every so many passes have one. */
const SHARED_RETRY = 16;
/** A drafter whose token costs less than this part of a pass may always look; only verifying is weighed. */
const FREE_DRAFT = 0.03;

/**
 * How many of these tokens, best first, to put in a pass that has `others` rows beside this text's; `each` is what a
 * token costs beside the pass.
 */
function bestCount(
  reach: readonly number[],
  rate: number,
  costs: CostModel,
  others: number,
  past: number,
  each: number,
): number {
  let best = 0;
  let bestGain = 0;
  let expected = 0;
  for (let count = 1; count <= reach.length; count++) {
    expected += reach[count - 1]!;
    const more = costs.relative(others + count + 1, past) - costs.relative(others + 1, past);
    const gain = expected - rate * (more + each * count);
    if (gain > bestGain) {
      best = count;
      bestGain = gain;
    }
  }
  return best;
}

/** [k] for each drafted token the chance that it and all its ancestors are accepted. */
export function reachOf(draft: Draft): number[] {
  const reach: number[] = [];
  for (let i = 0; i < draft.tokens.length; i++) {
    const parent = draft.parents === undefined ? i - 1 : draft.parents[i]!;
    // A drafter is anybody's code: what is not a probability counts as the nearest one, NaN as 0.
    const probability = Math.min(1, Math.max(0, draft.probabilities[i]! || 0));
    reach.push((parent < 0 ? 1 : reach[parent]!) * probability);
  }
  return reach;
}
