import { DraftMemory } from "../decoding/memory.js";
import type { DecodeStats } from "../decoding/stats.js";
import { type GenerationResult, type Model, OutriderError, type Strategy } from "../index.js";
import { type Interval, ratioInterval } from "./bootstrap.js";
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
  readonly prompt: number;
  readonly tokens: number;
  readonly passes: number;
  readonly ms: number;
  /** The part of `ms` in the drafter. */
  readonly draftMs: number;
  /** [depth - 1] drafted tokens verified and accepted at each depth. */
  readonly drafted: readonly number[];
  readonly accepted: readonly number[];
  /** The same token ids as the first strategy's in this repetition. */
  readonly exact: boolean;
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
 * order each time, so that a slow moment of the machine hits all of them. Every strategy begins every repetition with
 * what the model came with: it may learn from one prompt for the next, but none answers a prompt that it answered before.
 * So does whoever measures after them.
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
  const fresh = await freshMemory(model);
  for (const strategy of strategies) await answer(prompts[0]!, strategy); // warm-up
  const runs: Run[] = [];
  for (let repetition = 0; repetition < repetitions; repetition++) {
    const memories = new Map(strategies.map((strategy) => [strategy, fresh()]));
    for (const [i, prompt] of prompts.entries()) {
      onPrompt?.(repetition, i);
      const answers: { strategy: Strategy; tokens: string; stats: DecodeStats }[] = [];
      for (let turn = 0; turn < strategies.length; turn++) {
        const strategy = strategies[(turn + repetition + i) % strategies.length]!;
        model.draftMemory = memories.get(strategy)!;
        const { tokens, stats } = await answer(prompt, strategy);
        answers.push({ strategy, tokens: tokens.join(), stats });
      }
      const expected = answers.find((a) => a.strategy === strategies[0])!.tokens;
      for (const { strategy, tokens, stats } of answers)
        runs.push({
          strategy,
          category: prompt.category,
          repetition,
          prompt: i,
          tokens: stats.tokens,
          passes: stats.passes,
          ms: stats.decodeMs,
          draftMs: stats.draftMs,
          drafted: stats.draftedByPosition,
          accepted: stats.acceptedByPosition,
          exact: tokens === expected,
        });
    }
  }
  model.draftMemory = fresh();
  return runs;
}

/** Makes copies of what the model's drafting knows now. */
export async function freshMemory(model: Model): Promise<() => DraftMemory> {
  const known = await DraftMemory.unpack(await model.draftMemory.save());
  return () => {
    const memory = new DraftMemory();
    memory.add(known, model.tokenizer.vocabSize);
    return memory;
  };
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
  /** 95 %, by resampling the prompts; undefined with fewer than three of them. */
  readonly interval: Interval | undefined;
  /** Tokens that passes emitted, on average, beside the model's own: drafts accepted a pass. */
  readonly accepted: number;
  /** [depth - 1] the share of tokens drafted at that depth that was accepted. */
  readonly acceptedByPosition: readonly number[];
  /** The drafter's part of decoding time, 0 to 1. */
  readonly draftShare: number;
  /** Answers, and how many of them had the first strategy's tokens. */
  readonly answers: number;
  readonly exact: number;
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
      return { strategy, chosen, prompts: chosen.length / repetitions.length, totals };
    });
    const rate = ({ tokens, ms }: Total) => (1000 * tokens) / ms;
    return measured.map(({ strategy, chosen, prompts, totals }): Speed => {
      const base = measured[0]!.totals;
      const sum = (of: (run: Run) => number) => chosen.reduce((so, run) => so + of(run), 0);
      const depths = Math.max(0, ...chosen.map((run) => run.drafted.length));
      return {
        strategy,
        category,
        prompts,
        tokensPerSecond: ofMedian(totals.map(rate)),
        tokensPerPass: ofMedian(totals.map((t) => t.tokens / t.passes)),
        speedup: ofMedian(totals.map((t, i) => rate(t) / rate(base[i]!))),
        interval: ratioInterval(byPrompt(measured[0]!.chosen), byPrompt(chosen)),
        accepted: sum((run) => run.tokens) / sum((run) => run.passes) - 1,
        acceptedByPosition: Array.from(
          { length: depths },
          (_, depth) => sum((run) => run.accepted[depth] ?? 0) / sum((run) => run.drafted[depth] ?? 0),
        ),
        draftShare: sum((run) => run.draftMs) / sum((run) => run.ms),
        answers: chosen.length,
        exact: chosen.filter((run) => run.exact).length,
      };
    });
  });
}

/** Milliseconds of each prompt, the median of its repetitions. */
function byPrompt(runs: readonly Run[]): Map<number, number> {
  const times = new Map<number, number[]>();
  for (const { prompt, ms } of runs) times.set(prompt, [...(times.get(prompt) ?? []), ms]);
  return new Map([...times].map(([prompt, list]) => [prompt, median(list)]));
}

type Total = Pick<Run, "tokens" | "passes" | "ms">;

function total(runs: readonly Run[]): Total {
  const sum = (field: keyof Total) => runs.reduce((so, run) => so + run[field], 0);
  return { tokens: sum("tokens"), passes: sum("passes"), ms: sum("ms") };
}

function ofMedian(values: readonly number[]): Median {
  return { median: median(values), values };
}
