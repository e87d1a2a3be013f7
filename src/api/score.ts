import type { Engine } from "../engine/engine.js";
import { resolveSampling } from "../engine/sampling.js";
import { maxStep } from "../engine/sequence.js";
import { OutriderError } from "../errors.js";

export interface ScoreOptions {
  /** Text (as it is, without a template; BOS before it where the model wants one) or token ids; at least one token. */
  readonly prompt: string | readonly number[];
  /** What follows the prompt: text or token ids. */
  readonly tokens: string | readonly number[];
  /** Give the `top` most likely tokens at each place too, 0 (default) to 64. */
  readonly top?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ScoreResult {
  readonly promptTokens: readonly number[];
  readonly tokens: readonly number[];
  /** [tokens] natural logarithm of each token's probability, given all before it. */
  readonly logprobs: readonly number[];
  /** [tokens][top] of [token id, log-probability], best first. */
  readonly top: readonly (readonly (readonly [number, number])[])[];
}

/** Teacher-forced: the given tokens go through in passes of up to 64, whatever the model would have said. */
export async function score(
  engine: Engine,
  prompt: readonly number[],
  tokens: readonly number[],
  top: number,
  signal: AbortSignal | undefined,
): Promise<ScoreResult> {
  if (prompt.length === 0)
    throw new OutriderError("ERR_BAD_REQUEST", "the prompt has no tokens", { param: "prompt" });
  const text = [...prompt, ...tokens];
  if (text.length > engine.context)
    throw new OutriderError(
      "ERR_CONTEXT",
      `prompt and tokens are ${text.length}, the context holds ${engine.context}`,
      { param: "tokens" },
    );
  const sampling = resolveSampling({}, engine.config.vocab, 0);
  const logprobs: number[] = [];
  const best: (readonly [number, number])[][] = [];
  using sequence = engine.open(prompt);
  await sequence.prefill(prompt.slice(sequence.tokens.length, -1), signal);
  // Row i of a pass speaks of the token after it, so the pass begins with the prompt's last token.
  for (let at = prompt.length - 1; at < text.length - 1; ) {
    const rows = text.slice(at, Math.min(at + maxStep, text.length - 1));
    const next = text.slice(at + 1, at + 1 + rows.length);
    const result = await sequence.step(rows, { sampling, top, score: next, signal });
    sequence.keep(rows.map((_, i) => i));
    for (let i = 0; i < rows.length; i++) {
      logprobs.push(result.scores![i]!);
      best.push(
        Array.from(
          { length: top },
          (_, j) => [result.topTokens[i * top + j]!, result.topLogprobs[i * top + j]!] as const,
        ),
      );
    }
    at += rows.length;
  }
  return { promptTokens: prompt, tokens, logprobs, top: best };
}
