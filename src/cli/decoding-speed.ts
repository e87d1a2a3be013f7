import { type GenerationResult, type Model, OutriderError, type Strategy } from "../index.js";
import { median } from "./median.js";

export interface BenchPrompt {
  readonly category: string;
  readonly tokens: readonly number[];
}

/** One answer. */
export interface Run {
  readonly strategy: Strategy;
  readonly category: string;
  readonly repetition: number;
  readonly tokens: number;
  readonly passes: number;
  readonly ms: number;
}

export interface DecodingOptions {
  readonly strategies: readonly Strategy[];
  readonly repetitions: number;
  readonly maxTokens: number;
  readonly signal?: AbortSignal;
  readonly onPrompt?: (repetition: number, prompt: number) => void;
}

/**
 * Answers every prompt with every strategy, again and again. The strategies take turns at each prompt, in another
 * order each time, so that a slow moment of the machine hits all of them. Throws ERR_RUNTIME when two strategies give
 * different tokens: a speed of something else would not be worth telling.
 */
export async function measureDecoding(
  model: Model,
  prompts: readonly BenchPrompt[],
  { strategies, repetitions, maxTokens, signal, onPrompt }: DecodingOptions,
): Promise<Run[]> {
  const answer = async (prompt: BenchPrompt, strategy: Strategy): Promise<GenerationResult> => {
    const result = await model.generate(prompt.tokens, { strategy, maxTokens, signal }).result;
    if (result.finishReason === "abort") throw new OutriderError("ERR_ABORTED", "The benchmark was stopped.");
    return result;
  };
  for (const strategy of strategies) await answer(prompts[0]!, strategy); // warm-up
  const runs: Run[] = [];
  for (let repetition = 0; repetition < repetitions; repetition++) {
    for (const [i, prompt] of prompts.entries()) {
      onPrompt?.(repetition, i);
      let expected: string | undefined;
      for (let turn = 0; turn < strategies.length; turn++) {
        const strategy = strategies[(turn + repetition + i) % strategies.length]!;
        const { tokens, stats } = await answer(prompt, strategy);
        expected ??= tokens.join();
        if (tokens.join() !== expected)
          throw new OutriderError(
            "ERR_RUNTIME",
            `strategy ${strategy} gave other tokens at prompt ${i + 1}; run outrider verify and report what it says`,
          );
        runs.push({
          strategy,
          category: prompt.category,
          repetition,
          tokens: tokens.length,
          passes: stats.passes,
          ms: stats.decodeMs,
        });
      }
    }
  }
  return runs;
}

/** Medians over the repetitions, of one strategy in one category. */
export interface Speed {
  readonly strategy: Strategy;
  readonly category: string;
  readonly prompts: number;
  readonly tokensPerSecond: Median;
  readonly tokensPerPass: Median;
  /** Against the first strategy, in the same repetition. */
  readonly speedup: Median;
}

export interface Median {
  readonly median: number;
  readonly values: readonly number[];
}

/** By category, and then over all under the category "all". `strategies[0]` is what the others are compared with. */
export function speeds(runs: readonly Run[], strategies: readonly Strategy[]): Speed[] {
  const repetitions = [...new Set(runs.map((run) => run.repetition))];
  const categories = [...new Set(runs.map((run) => run.category))];
  return [...categories, "all"].flatMap((category) => {
    const inCategory = runs.filter((run) => category === "all" || run.category === category);
    const measured = strategies.map((strategy) => {
      const chosen = inCategory.filter((run) => run.strategy === strategy);
      const totals = repetitions.map((r) => total(chosen.filter((run) => run.repetition === r)));
      return { strategy, prompts: chosen.length / repetitions.length, totals };
    });
    const rate = ({ tokens, ms }: Total) => (1000 * tokens) / ms;
    return measured.map(({ strategy, prompts, totals }): Speed => {
      const base = measured[0]!.totals;
      return {
        strategy,
        category,
        prompts,
        tokensPerSecond: ofMedian(totals.map(rate)),
        tokensPerPass: ofMedian(totals.map((t) => t.tokens / t.passes)),
        speedup: ofMedian(totals.map((t, i) => rate(t) / rate(base[i]!))),
      };
    });
  });
}

type Total = Pick<Run, "tokens" | "passes" | "ms">;

function total(runs: readonly Run[]): Total {
  const sum = (field: keyof Total) => runs.reduce((so, run) => so + run[field], 0);
  return { tokens: sum("tokens"), passes: sum("passes"), ms: sum("ms") };
}

function ofMedian(values: readonly number[]): Median {
  return { median: median(values), values };
}
