import type { DraftRun } from "../engine/draft-layers.js";
import { resolveSampling, type Sampling } from "../engine/sampling.js";
import { chainParents, type Sequence, type StepResult } from "../engine/sequence.js";

/** Arg-max, nothing else. */
export const GREEDY = resolveSampling({}, Number.MAX_SAFE_INTEGER, 0);

export interface FakeOptions {
  /** Token ids are 0 to vocab - 1. Default 16. */
  readonly vocab?: number;
  readonly context?: number;
  readonly maxStep?: number;
  /** What the model would most like to say after these tokens; default: whatever the hash says. */
  readonly next?: (tokens: readonly number[]) => number;
  /** Told the number of tokens of each pass; returns its `coreMs`. Default: 1. */
  readonly cost?: (n: number) => number;
}

/**
 * A sequence without a model. Logits are a hash of the last two tokens (so that text repeats itself, as a drafter
 * likes it) plus a little of a hash of the whole past (so that one wrong row in the cache shows in every later
 * log-probability). Checks its caller: parents, pending rows, sizes.
 */
export function fakeSequence(options: FakeOptions = {}, cached: readonly number[] = []): Sequence {
  const { vocab = 16, context = 4096, maxStep = 16, next, cost = () => 1 } = options;
  let tokens = [...cached];
  let pending: { tokens: number[]; parents: number[]; draft: DraftRun | undefined } | undefined;
  let drafted = 0;
  let disposed = false;

  const ready = (call: string) => {
    if (disposed) throw new Error(`${call} on a disposed sequence`);
    if (pending) throw new Error(`${call} while the rows of a pass wait for keep`);
  };
  const room = (call: string, n: number) => {
    if (tokens.length + n > context) throw new Error(`${call} of ${n} at ${tokens.length} of ${context}`);
  };

  const sequence: Sequence = {
    get tokens() {
      return tokens;
    },
    context,
    maxStep,
    async prefill(more, signal) {
      ready("prefill");
      room("prefill", more.length);
      signal?.throwIfAborted();
      tokens.push(...more);
    },
    async step(pass, { parents = chainParents(pass.length), sampling, top = 0, draft, follow, signal }) {
      ready("step");
      room("step", pass.length);
      if (pass.length < 1 || pass.length > maxStep) throw new Error(`step of ${pass.length} tokens`);
      if (parents.length !== pass.length) throw new Error("parents and tokens differ in length");
      for (const [i, parent] of parents.entries()) {
        const token = pass[i]!;
        if (!Number.isInteger(token) || token < 0 || token >= vocab) throw new Error(`token ${token}`);
        if (!Number.isInteger(parent) || parent < -1 || parent >= i)
          throw new Error(`parent ${parent} of ${i}`);
      }
      await Promise.resolve();
      signal?.throwIfAborted();
      if (!draft && drafted > 0) throw new Error("drafted tokens were not truncated");
      let result = rows(pass, parents, sampling, top, draft);
      const all = [...pass];
      while (follow && pass.length === 1 && all.length <= follow.passes && result.coreMs < follow.ms) {
        const pick = result.picks.at(-1)!;
        if (follow.ends.has(pick)) break;
        room("a pass that followed", all.push(pick));
        const coreMs = result.coreMs + cost(1);
        result = { ...rows(all, chainParents(all.length), sampling, top, draft), coreMs };
      }
      pending = { tokens: all, parents: pass.length === 1 ? chainParents(all.length) : [...parents], draft };
      return result;
    },
    keep(path) {
      if (!pending) throw new Error("keep without a pass");
      path.reduce((before, node) => {
        if (pending?.parents[node] !== before) throw new Error(`keep: ${node} does not follow ${before}`);
        return node;
      }, -1);
      tokens.push(...path.map((node) => pending!.tokens[node]!));
      if (pending.draft) drafted += path.length;
      pending = undefined;
    },
    truncate(length) {
      ready("truncate");
      if (length < 0 || length > tokens.length) throw new Error(`truncate to ${length} of ${tokens.length}`);
      drafted = Math.max(0, drafted - (tokens.length - length));
      tokens = tokens.slice(0, length);
    },
    fork(length = tokens.length) {
      ready("fork");
      return fakeSequence(options, tokens.slice(0, length));
    },
    [Symbol.dispose]() {
      disposed = true;
    },
  };
  return sequence;

  function rows(
    pass: readonly number[],
    parents: readonly number[],
    sampling: Sampling,
    top: number,
    draft: DraftRun | undefined,
  ): StepResult {
    const n = pass.length;
    const result = {
      picks: new Int32Array(n),
      logprobs: new Float32Array(n),
      topTokens: new Int32Array(n * top),
      topLogprobs: new Float32Array(n * top),
      coreMs: cost(n),
      logits: new Float32Array(n * vocab),
    };
    const texts: number[][] = [];
    for (let row = 0; row < n; row++) {
      const text = [...(texts[parents[row]!] ?? tokens), pass[row]!];
      texts.push(text);
      // Without some of its layers it sees little of the past, and is often wrong.
      const logprobs = fakeLogprobs(draft ? text.slice(-2) : text, vocab, next);
      result.logits.set(logprobs, row * vocab);
      const scores = logprobs.map((logprob, token) => {
        if (sampling.temperature === 0) return logprob;
        const uniform = (hash(sampling.seed, text.length, token) + 1) / 2 ** 32;
        return logprob / sampling.temperature - Math.log(-Math.log(uniform * (1 - 1e-9)));
      });
      const pick = order(scores)[0]!;
      result.picks[row] = pick;
      result.logprobs[row] = logprobs[pick]!;
      for (const [rank, token] of order(logprobs).slice(0, top).entries()) {
        result.topTokens[row * top + rank] = token;
        result.topLogprobs[row * top + rank] = logprobs[token]!;
      }
    }
    return result;
  }
}

function fakeLogprobs(
  text: readonly number[],
  vocab: number,
  next: ((tokens: readonly number[]) => number) | undefined,
): number[] {
  const recent = hash(text.at(-1) ?? 0, text.at(-2) ?? 0);
  const whole = hash(...text);
  const wanted = next?.(text);
  const logits = Array.from({ length: vocab }, (_, token) => {
    const habit = (6 * hash(recent, token)) / 2 ** 32;
    const past = (0.5 * hash(whole, token)) / 2 ** 32;
    return habit + past + (token === wanted ? 10 : 0);
  });
  const norm = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
  return logits.map((logit) => logit - norm);
}

/** Token ids, best score first, ties to the lowest id. */
function order(scores: readonly number[]): number[] {
  return scores.map((_, token) => token).sort((a, b) => scores[b]! - scores[a]! || a - b);
}

/** Unsigned 32 bits from any integers. */
function hash(...values: readonly number[]): number {
  let h = 0x9e3779b9;
  for (const value of values) {
    h = Math.imul(h ^ value, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
  }
  return h >>> 0;
}
