/**
 * Speculative sampling by modified rejection (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023,
 * arXiv:2302.01318): whatever was drafted, the emitted tokens are distributed as the model's own samples. Other drafts
 * give other tokens; `verify.ts`, which couples draft and model by the same noise, gives the same ones.
 */
import type { Verified } from "./verify.js";

/** A pass that is to be verified: root first, parents before children. */
export interface DrawnPass {
  readonly tokens: readonly number[];
  readonly parents: readonly number[];
  /** The model's distribution behind a token of the pass; [vocab], adds up to 1. Fresh: it is overwritten. */
  probabilities(row: number): Float64Array;
  /**
   * What a drafted token was drawn from; undefined: the drafter would have proposed it in any case. A draft model's
   * output may be narrower than the model's: what is missing is 0.
   */
  proposal?(node: number): Float64Array | undefined;
  /** Uniform over 0 to 1, independent for every call. */
  uniform(): number;
}

/**
 * Tries the children of a token one after another: one that was drawn from q is accepted with probability
 * min(1, p/q), one that was not drawn with probability p; after a refusal p loses what the child stood for.
 */
export function verifyByRejection(pass: DrawnPass, endIds: ReadonlySet<number>, padding = 0): Verified {
  const { tokens, parents } = pass;
  const end = tokens.length - padding;
  const emitted: number[] = [];
  const path = [0];
  for (let row = 0; ; ) {
    const p = pass.probabilities(row);
    let next = -1;
    for (let node = row + 1; node < end && next < 0; node++) {
      if (parents[node] !== row) continue;
      const token = tokens[node]!;
      const q = pass.proposal?.(node);
      if (pass.uniform() * (q === undefined ? 1 : q[token]!) < p[token]!) next = node;
      else if (q === undefined) without(p, token);
      else residual(p, q, 1);
    }
    if (next < 0) {
      emitted.push(draw(p, pass.uniform()));
      return { tokens: emitted, path };
    }
    emitted.push(tokens[next]!);
    if (endIds.has(tokens[next]!)) return { tokens: emitted, path };
    path.push(next);
    row = next;
  }
}

/**
 * Block verification of a chain (Sun et al. 2024, arXiv:2403.10444): all tokens are judged together, so that never fewer
 * are accepted on average. For drafts without a proposal it comes to the same as token by token.
 */
export function verifyBlock(pass: DrawnPass, endIds: ReadonlySet<number>, padding = 0): Verified {
  const { tokens } = pass;
  const length = tokens.length - 1 - padding;
  let accepted = 0;
  let weight = 1; // of the longest accepted part so far
  let last = 1;
  for (let i = 1; i <= length; i++) {
    const token = tokens[i]!;
    const before = pass.probabilities(i - 1);
    const q = pass.proposal?.(i);
    weight = Math.min(1, (weight * before[token]!) / (q === undefined ? 1 : q[token]!));
    let chance = weight;
    if (i < length) {
      const p = pass.probabilities(i);
      const next = pass.proposal?.(i + 1);
      let rest = 0;
      for (let t = 0; t < p.length; t++)
        rest += Math.max(
          0,
          weight * p[t]! - (next === undefined ? (t === tokens[i + 1] ? 1 : 0) : (next[t] ?? 0)),
        );
      chance = rest === 0 && weight === 1 ? 1 : rest / (rest + 1 - weight);
    }
    // Every length gets its own chance: a refusal does not end the walk.
    if (pass.uniform() <= chance) {
      accepted = i;
      last = weight;
    }
  }
  const p = pass.probabilities(accepted);
  if (accepted < length) {
    const q = pass.proposal?.(accepted + 1);
    if (q === undefined) {
      for (let t = 0; t < p.length; t++)
        p[t] = Math.max(0, last * p[t]! - (t === tokens[accepted + 1] ? 1 : 0));
      normalise(p, pass.probabilities(accepted));
    } else residual(p, q, last);
  }
  const emitted = tokens.slice(1, accepted + 1);
  const stop = emitted.findIndex((token) => endIds.has(token));
  if (stop >= 0)
    return { tokens: emitted.slice(0, stop + 1), path: Array.from({ length: stop + 1 }, (_, i) => i) };
  return {
    tokens: [...emitted, draw(p, pass.uniform())],
    path: Array.from({ length: accepted + 1 }, (_, i) => i),
  };
}

function without(p: Float64Array, token: number): void {
  const before = p.slice();
  p[token] = 0;
  normalise(p, before);
}

/** p becomes the part of `weight` × p above q, normalised. */
function residual(p: Float64Array, q: Float64Array, weight: number): void {
  const before = p.slice();
  for (let t = 0; t < p.length; t++) p[t] = Math.max(0, weight * p[t]! - (q[t] ?? 0));
  normalise(p, before);
}

/** Where rounding has left nothing at all, the distribution before is as good as any. */
function normalise(p: Float64Array, before: Float64Array): void {
  let sum = 0;
  for (let t = 0; t < p.length; t++) sum += p[t]!;
  if (!(sum > 1e-12)) p.set(before);
  else for (let t = 0; t < p.length; t++) p[t] = p[t]! / sum;
}

function draw(p: Float64Array, uniform: number): number {
  let left = uniform;
  let token = 0;
  for (let t = 0; t < p.length; t++) {
    if (p[t]! <= 0) continue;
    token = t;
    left -= p[t]!;
    if (left < 0) break;
  }
  return token;
}
