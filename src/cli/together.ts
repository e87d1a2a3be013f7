import { type GenerationResult, type Model, OutriderError } from "../index.js";
import { type BenchPrompt, freshMemory } from "./decoding-speed.js";
import { median } from "./median.js";

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
  readonly repetitions: number;
  readonly maxTokens: number;
  readonly signal?: AbortSignal;
  readonly onSize?: (kind: Together["kind"], size: number) => void;
}

/**
 * Throughput of answers side by side beside the same answers one after another, in turns; prompts are taken round and
 * round. Both begin with what drafting knew when the model came, and find the prompts in the cache. Medians.
 */
export async function measureTogether(
  model: Model,
  prompts: readonly BenchPrompt[],
  { batches, samples, repetitions, maxTokens, signal, onSize }: TogetherOptions,
): Promise<Together[]> {
  const fresh = await freshMemory(model);
  const timed = async (work: () => Promise<GenerationResult[]>) => {
    model.draftMemory = fresh();
    const started = performance.now();
    const results = await work();
    if (results.some((r) => r.finishReason === "abort"))
      throw new OutriderError("ERR_ABORTED", "The benchmark was stopped.");
    return { results, ms: performance.now() - started };
  };
  const compared = async (
    kind: Together["kind"],
    size: number,
    alone: readonly (() => Promise<GenerationResult>)[],
    together: () => Promise<GenerationResult[]>,
  ): Promise<Together> => {
    onSize?.(kind, size);
    const sides = { alone: () => inTurn(alone), together };
    await together(); // warm-up
    const speeds: number[] = [];
    const speedups: number[] = [];
    let exact = 0;
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const measured = {} as Record<keyof typeof sides, Awaited<ReturnType<typeof timed>>>;
      for (const side of repetition % 2 ? (["together", "alone"] as const) : (["alone", "together"] as const))
        measured[side] = await timed(sides[side]);
      const { alone: single, together: joined } = measured;
      const tokens = joined.results.reduce((sum, r) => sum + r.tokens.length, 0);
      speeds.push((1000 * tokens) / joined.ms);
      speedups.push(single.ms / joined.ms);
      exact += joined.results.filter((r, i) => r.tokens.join() === single.results[i]!.tokens.join()).length;
    }
    return {
      kind,
      size,
      tokensPerSecond: median(speeds),
      speedup: median(speedups),
      answers: size * repetitions,
      exact,
    };
  };
  const rows: Together[] = [];
  for (const size of batches) {
    const works = Array.from(
      { length: size },
      (_, i) => () => model.generate(prompts[i % prompts.length]!.tokens, { maxTokens, signal }).result,
    );
    rows.push(await compared("batch", size, works, () => Promise.all(works.map((work) => work()))));
  }
  for (const size of samples) {
    const { tokens } = prompts[0]!;
    const drawn = { temperature: 0.8, seed: 1, maxTokens, signal };
    const works = Array.from(
      { length: size },
      (_, i) => () => model.generate(tokens, { ...drawn, seed: 1 + i }).result,
    );
    const together = () =>
      model.samples(tokens, { ...drawn, n: size }).map((generation) => generation.result);
    rows.push(await compared("samples", size, works, () => Promise.all(together())));
  }
  return rows;
}

async function inTurn(works: readonly (() => Promise<GenerationResult>)[]): Promise<GenerationResult[]> {
  const results: GenerationResult[] = [];
  for (const work of works) results.push(await work());
  return results;
}
