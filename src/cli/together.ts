import { type GenerationResult, type Model, OutriderError } from "../index.js";
import type { BenchPrompt } from "./decoding-speed.js";

/** Several answers at a time. */
export interface Together {
  /** "batch": as many prompts side by side; "samples": as many samples of one prompt. */
  readonly kind: "batch" | "samples";
  readonly size: number;
  readonly tokensPerSecond: number;
  /** Beside one after another, in the same run. */
  readonly speedup: number;
  /** Answers, and how many had the tokens that each has alone. */
  readonly answers: number;
  readonly exact: number;
}

export interface TogetherOptions {
  readonly batches: readonly number[];
  readonly samples: readonly number[];
  readonly maxTokens: number;
  readonly signal?: AbortSignal;
  readonly onSize?: (kind: Together["kind"], size: number) => void;
}

/** Throughput of answers side by side beside the same answers one after another; prompts are taken round and round. */
export async function measureTogether(
  model: Model,
  prompts: readonly BenchPrompt[],
  { batches, samples, maxTokens, signal, onSize }: TogetherOptions,
): Promise<Together[]> {
  const timed = async (work: () => Promise<GenerationResult[]>) => {
    const started = performance.now();
    const results = await work();
    if (results.some((r) => r.finishReason === "abort"))
      throw new OutriderError("ERR_ABORTED", "The benchmark was stopped.");
    return { results, ms: performance.now() - started };
  };
  const compared = (
    kind: Together["kind"],
    size: number,
    alone: { results: GenerationResult[]; ms: number },
    together: { results: GenerationResult[]; ms: number },
  ): Together => {
    const tokens = together.results.reduce((sum, r) => sum + r.tokens.length, 0);
    return {
      kind,
      size,
      tokensPerSecond: (1000 * tokens) / together.ms,
      speedup: alone.ms / together.ms,
      answers: size,
      exact: together.results.filter((r, i) => r.tokens.join() === alone.results[i]!.tokens.join()).length,
    };
  };
  const inTurn = async (works: readonly (() => Promise<GenerationResult>)[]) => {
    const results: GenerationResult[] = [];
    for (const work of works) results.push(await work());
    return results;
  };
  const rows: Together[] = [];
  for (const size of batches) {
    onSize?.("batch", size);
    const works = Array.from(
      { length: size },
      (_, i) => () => model.generate(prompts[i % prompts.length]!.tokens, { maxTokens, signal }).result,
    );
    const alone = await timed(() => inTurn(works));
    rows.push(compared("batch", size, alone, await timed(() => Promise.all(works.map((work) => work())))));
  }
  for (const size of samples) {
    onSize?.("samples", size);
    const { tokens } = prompts[0]!;
    const drawn = { temperature: 0.8, seed: 1, maxTokens, signal };
    const alone = await timed(() =>
      inTurn(
        Array.from(
          { length: size },
          (_, i) => () => model.generate(tokens, { ...drawn, seed: 1 + i }).result,
        ),
      ),
    );
    const together = await timed(() =>
      Promise.all(model.samples(tokens, { ...drawn, n: size }).map((generation) => generation.result)),
    );
    rows.push(compared("samples", size, alone, together));
  }
  return rows;
}
