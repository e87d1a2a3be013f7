import {
  bestOf,
  type Generation,
  type GenerationResult,
  type Model,
  majorityVote,
  type Prompt,
  type SampleOptions,
} from "../index.js";
import { answerJson } from "./answer.js";
import type { AnswerFlags } from "./options.js";
import { figures } from "./table.js";
import { paint } from "./terminal.js";

export interface SampleFlags extends Pick<AnswerFlags, "verify" | "temperature"> {
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly vote?: boolean;
}

/** Several answers to one prompt: all of them, or with a vote what most say; as JSON a line each, and one of the vote. */
export async function showSamples(
  model: Model,
  id: string | number,
  prompt: Prompt,
  options: SampleOptions,
  flags: SampleFlags,
): Promise<void> {
  const samples: Generation[] = model.samples(prompt, options);
  const results = await Promise.all(samples.map((sample) => sample.result));
  const lines = flags.json
    ? asJson(id, model.info.name, results, flags)
    : asText(results, flags, process.stdout.isTTY && !flags.quiet);
  process.stdout.write(`${lines.join("\n")}\n`);
}

function asJson(
  id: string | number,
  model: string,
  results: readonly GenerationResult[],
  flags: SampleFlags,
): string[] {
  const lines = results.map((result, sample) =>
    JSON.stringify({ sample, code: result.code, ...JSON.parse(answerJson(id, model, result, flags)) }),
  );
  if (!flags.vote) return lines;
  const vote = majorityVote(results);
  return [
    ...lines,
    JSON.stringify({
      id,
      vote: vote && { text: vote.result.text, votes: vote.votes, of: results.length },
      best: results.indexOf(bestOf(results)),
    }),
  ];
}

function asText(results: readonly GenerationResult[], flags: SampleFlags, decorated: boolean): string[] {
  const dim = (text: string) => paint(process.stdout, "dim", text);
  if (flags.vote) {
    const vote = majorityVote(results);
    const told = `${vote?.votes ?? 0} of ${results.length} samples say so`;
    return [vote?.result.text ?? "", ...(decorated ? [dim(told)] : [])];
  }
  const best = bestOf(results);
  return results.flatMap((result, i) => {
    const { logprobs } = result;
    const mean = logprobs.reduce((sum, logprob) => sum + logprob, 0) / Math.max(1, logprobs.length);
    const title = `sample ${i + 1} of ${results.length} · seed ${result.seed}${
      result.code === undefined ? "" : ` · code ${figures(result.code)}`
    } · mean log-probability ${mean.toFixed(3)}${result === best ? " · best" : ""}`;
    return [...(decorated ? [dim(title)] : i > 0 ? ["---"] : []), result.text];
  });
}
