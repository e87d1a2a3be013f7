import { resolveSampling } from "../dist/engine/sampling.js";

/** Recorded texts instead of a model, for bench/simulate.mjs and scripts/learn-ngrams.mjs. */
export const greedy = resolveSampling({}, Number.MAX_SAFE_INTEGER, 0);
const UNKNOWN = 0x7fffffff;

/** A sequence that knows one continuation of its prompt. */
export function recordedSequence({ prompt, tokens, top }, cost) {
  const text = [...prompt, ...tokens];
  const held = prompt.slice(0, -1);
  let pending;
  return {
    tokens: held,
    context: 1 << 20,
    maxStep: 64,
    async step(pass, { parents, top: count, draft }) {
      if (draft) throw new Error("strategy self needs the model: --engine");
      const at = [];
      const picks = new Int32Array(pass.length).fill(UNKNOWN);
      const topTokens = new Int32Array(pass.length * count).fill(-1);
      for (let row = 0; row < pass.length; row++) {
        const position = row === 0 ? held.length : at[parents[row]] + 1;
        at.push(text[position] === pass[row] && position >= 0 ? position : Number.NEGATIVE_INFINITY);
        const next = at[row] + 1 - prompt.length;
        if (!(next >= 0)) continue;
        picks[row] = tokens[next] ?? UNKNOWN;
        for (let i = 0; i < count; i++) topTokens[row * count + i] = top?.[next]?.[i]?.[0] ?? -1;
      }
      pending = pass;
      return {
        picks,
        logprobs: new Float32Array(pass.length),
        topTokens,
        topLogprobs: new Float32Array(pass.length * count),
        coreMs: cost(pass.length, held.length),
      };
    },
    keep(path) {
      for (const row of path) held.push(pending[row]);
    },
  };
}
