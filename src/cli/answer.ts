import {
  type Generation,
  type GenerationResult,
  OutriderError,
  tokensPerPass,
  tokensPerSecond,
} from "../index.js";
import { goesInCircles } from "./circles.js";
import { type AnswerFlags, defaultMaxTokens } from "./options.js";
import { count, figures } from "./table.js";
import { paint } from "./terminal.js";

/** What the run took, for a line under the answer; also that `maxTokens` cut it, where somebody said how many. */
export function summary(result: GenerationResult, maxTokens?: number): string {
  const { stats, strategy } = result;
  const parts = [
    plural(stats.tokens, "token"),
    `${figures(tokensPerSecond(stats))} tokens/s`,
    plural(stats.passes, "pass", "passes"),
    `${figures(tokensPerPass(stats))} tokens/pass`,
    strategy,
    ...(result.finishReason === "length" && maxTokens !== undefined
      ? [`cut at ${plural(stats.tokens, "token")}`]
      : []),
  ];
  return parts.join(" · ");
}

export interface ShowFlags {
  readonly quiet?: boolean;
  readonly maxTokens?: number;
}

/**
 * Streams an answer to stdout, with a newline at its end; on a terminal a dim line of statistics follows. Unless
 * somebody said how many tokens, it ends where it goes in circles, and stderr tells where it was cut. An aborted one
 * stays on the screen as far as it came. Other errors are thrown, after the newline.
 */
export async function showAnswer(
  run: Generation,
  { quiet = false, maxTokens }: ShowFlags,
): Promise<GenerationResult> {
  const { stdout, stderr } = process;
  const tokens: number[] = [];
  let shown = 0;
  let circles = false;
  try {
    for await (const piece of run) {
      stdout.write(piece.text);
      shown += piece.text.length;
      tokens.push(...piece.tokens);
      circles = maxTokens === undefined && goesInCircles(tokens);
      if (circles) break;
    }
  } catch (error) {
    if (!(error instanceof OutriderError && error.code === "ERR_ABORTED")) {
      if (shown > 0) stdout.write("\n");
      throw error;
    }
  }
  const result = await run.result;
  stdout.write(`${result.text.slice(shown)}\n`);
  if (quiet) return result;
  if (stdout.isTTY) stdout.write(`${paint(stdout, "dim", summary(result, maxTokens))}\n`);
  const why = maxTokens === undefined ? whyCut(result, circles) : undefined;
  if (why !== undefined) stderr.write(`${paint(stderr, "dim", why)}\n`);
  return result;
}

function whyCut({ finishReason, tokens }: GenerationResult, circles: boolean): string | undefined {
  if (circles) return "It goes in circles and was cut; --max-tokens N lets it go on.";
  if (finishReason !== "length") return undefined;
  return tokens.length >= defaultMaxTokens
    ? `It was cut after ${plural(tokens.length, "token")}; --max-tokens N lets it go on.`
    : "It was cut where the context is full; --context N sets its size.";
}

type DrawFlags = Pick<AnswerFlags, "verify" | "temperature">;

/** Whether the text is that of plain decoding: rejection keeps the distribution of texts only. */
function isExact({ verify, temperature = 0 }: DrawFlags): boolean {
  return verify !== "rejection" || temperature === 0;
}

/** One answer as one line of JSON; the keys do not change between releases. */
export function answerJson(
  id: string | number,
  model: string,
  result: GenerationResult,
  flags: DrawFlags,
): string {
  const { stats } = result;
  return JSON.stringify({
    id,
    model,
    strategy: result.strategy,
    exact: isExact(flags),
    seed: result.seed,
    prompt_tokens: result.promptTokens,
    tokens: result.tokens,
    text: result.text,
    finish_reason: result.finishReason,
    stats: {
      prefill_ms: rounded(stats.prefillMs),
      decode_ms: rounded(stats.decodeMs),
      tokens: stats.tokens,
      passes: stats.passes,
      tokens_per_pass: rounded(tokensPerPass(stats)),
      drafted: stats.drafted,
      accepted: stats.accepted,
      tokens_per_second: rounded(tokensPerSecond(stats)),
    },
  });
}

/** To three decimals: what is below is noise. */
export function rounded(x: number): number {
  return Math.round(x * 1000) / 1000;
}

function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}
