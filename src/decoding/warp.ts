import { adjustments, adjusts, type Sampling } from "../engine/sampling.js";

/**
 * The distribution that the core draws from: the logits behind a token after penalties and biases, temperature, top-k,
 * top-p and min-p. `logits`: [vocab]; `history`: all tokens up to there. Returns [vocab], adding up to 1.
 */
export function warped(
  logits: ArrayLike<number>,
  sampling: Sampling,
  history: readonly number[],
): Float64Array {
  const p = Float64Array.from(logits);
  if (adjusts(sampling))
    for (const [token, { repetition, add }] of adjustments(sampling, history))
      p[token] = (p[token]! > 0 ? p[token]! / repetition : p[token]! * repetition) + add;
  const most = p.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  for (let t = 0; t < p.length; t++) p[t] = Math.exp((p[t]! - most) / sampling.temperature);
  const { topK, topP, minP } = sampling;
  if ((topK > 0 && topK < p.length) || topP < 1) {
    const order = Array.from(p.keys()).sort((a, b) => p[b]! - p[a]! || a - b);
    const kept = topK > 0 ? order.slice(0, topK) : order;
    const wanted = topP * kept.reduce((sum, token) => sum + p[token]!, 0);
    let mass = 0;
    let size = 0;
    while (size < kept.length && (topP === 1 || mass < wanted)) mass += p[kept[size++]!]!;
    for (const token of order.slice(size)) p[token] = 0;
  }
  let sum = 0;
  for (let t = 0; t < p.length; t++) {
    if (p[t]! < minP) p[t] = 0;
    sum += p[t]!;
  }
  for (let t = 0; t < p.length; t++) p[t] = p[t]! / sum;
  return p;
}
