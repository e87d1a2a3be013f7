import { majorityVote, OutriderError } from "../index.js";
import { connect, type Upstream, type UpstreamResult } from "../upstream/index.js";
import { usageError } from "./failure.js";
import type { GenerateFlags, Question } from "./generate.js";

/** What only a model in this process can be told. */
const ownFlags = [
  ["raw", "--raw"],
  ["sampling", "--sampling"],
  ["strategy", "--strategy"],
  ["draftLength", "--draft-length"],
  ["draftModel", "--draft-model"],
  ["verify", "--verify"],
  ["jsonSchema", "--json-schema"],
  ["regex", "--regex"],
  ["grammar", "--grammar"],
  ["threads", "--threads"],
  ["context", "--context"],
  ["precise", "--precise"],
  ["quantize", "--quantize"],
  ["memoryLimit", "--memory-limit"],
  ["offline", "--offline"],
] as const;

/** The engine that --upstream names; its key is in OUTRIDER_API_KEY, where no list of processes shows it. */
export function openUpstream(baseURL: string, flags: GenerateFlags): Upstream {
  const own = ownFlags.find(([name]) => flags[name] !== undefined);
  if (own) throw usageError(`${own[1]} is for a model in this process, it does not go with --upstream`);
  return connect({ baseURL, apiKey: process.env.OUTRIDER_API_KEY, model: flags.model });
}

/** As `generate` and `showSamples` of a model in this process; JSON without what an engine elsewhere does not tell. */
export async function answerUpstream(
  engine: Upstream,
  { id, prompt }: Question,
  flags: GenerateFlags,
  signal: AbortSignal,
): Promise<void> {
  if (typeof prompt !== "string")
    throw usageError("prompt_tokens are for a model in this process: --upstream takes texts");
  const { stdout } = process;
  const { system, maxTokens, temperature, topP, topK, minP, seed, stop } = flags;
  const { repetitionPenalty, presencePenalty, frequencyPenalty } = flags;
  const options = {
    ...{ system, maxTokens, temperature, topP, topK, minP, seed, stop, signal },
    ...{ repetitionPenalty, presencePenalty, frequencyPenalty },
  };
  const show = (line: object) => stdout.write(`${JSON.stringify({ id, ...line })}\n`);
  if (flags.samples === undefined) {
    const run = engine.generate(prompt, options);
    if (flags.json) {
      const { usage, ...result } = await run.result;
      show({ ...told(result), usage: { prompt_tokens: usage.promptTokens, tokens: usage.completionTokens } });
      return;
    }
    try {
      for await (const { text } of run) stdout.write(text);
    } catch (error) {
      if (!(error instanceof OutriderError && error.code === "ERR_ABORTED")) throw error;
    }
    stdout.write("\n");
    return;
  }
  const { results, usage } = await engine.samples(prompt, { ...options, n: flags.samples });
  const vote = flags.vote ? majorityVote(results) : undefined;
  if (flags.json) {
    for (const [sample, result] of results.entries()) show({ sample, ...told(result) });
    show({
      ...(flags.vote && { vote: vote && { text: vote.result.text, votes: vote.votes, of: results.length } }),
      usage: { prompt_tokens: usage.promptTokens, tokens: usage.completionTokens },
    });
  } else if (flags.vote) stdout.write(`${vote?.result.text ?? ""}\n`);
  else stdout.write(`${results.map(({ text }) => text).join("\n---\n")}\n`);
}

const told = ({ text, seed, finishReason }: UpstreamResult) => ({ seed, text, finish_reason: finishReason });
