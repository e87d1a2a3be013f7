import {
  type Answering,
  answer,
  type Caller,
  jobOptions,
  outriderStats,
  timings,
  usage,
  withSeed,
} from "./answer.js";
import { badField, guideOf } from "./guide.js";
import type { Limits } from "./limits.js";
import { completionLogprobs } from "./logprobs.js";
import type { Job, JobPiece, JobPrompt, JobResult } from "./protocol.js";
import type { CompletionRequest } from "./schemas.js";
import type { ServerEvent } from "./sse.js";

/** POST /v1/completions: `n` answers to each prompt, prompt after prompt. */
function completionJobs(body: CompletionRequest, limits: Limits): { jobs: Job[]; prompts: number } {
  const prompts = promptsOf(body.prompt);
  const n = body.n ?? 1;
  if (prompts.length * n > limits.n)
    throw badField(
      "prompt",
      `has ${prompts.length} texts, ${n} answers each: at most ${limits.n} answers are given`,
    );
  const guide = guideOf(body, limits);
  const options = {
    ...jobOptions(body),
    maxTokens: body.max_tokens ?? undefined,
    stop: body.stop ?? undefined,
    top: body.logprobs ?? undefined,
    guide: guide?.guide,
  };
  const jobs = prompts.flatMap((prompt) =>
    Array.from({ length: n }, (_, sample) => ({
      prompt,
      options: withSeed(options, sample),
      logprobs: body.logprobs != null,
      guideField: guide?.field,
    })),
  );
  return { jobs, prompts: prompts.length };
}

function promptsOf(prompt: CompletionRequest["prompt"]): JobPrompt[] {
  if (typeof prompt === "string") return [{ text: prompt }];
  if (typeof prompt[0] === "number") return [{ tokens: prompt as number[] }];
  return (prompt as (string | number[])[]).map((one) =>
    typeof one === "string" ? { text: one } : { tokens: one },
  );
}

const finishReason = ({ finishReason }: JobResult) => (finishReason === "length" ? "length" : "stop");

function head(caller: Caller, model: string) {
  return {
    id: `cmpl-${caller.requestId}`,
    object: "text_completion",
    created: Math.floor(Date.now() / 1000),
    model,
  };
}

export async function completion(
  server: Answering,
  caller: Caller,
  model: string,
  body: CompletionRequest,
  limits: Limits,
) {
  const { jobs, prompts } = completionJobs(body, limits);
  const texts: JobPiece[][] = jobs.map(() => []);
  const pieces = answer(server, caller, model, jobs);
  let step = await pieces.next();
  for (; !step.done; step = await pieces.next()) texts[step.value.index]!.push(step.value.piece);
  const results = step.value;
  return {
    ...head(caller, model),
    choices: results.map((result, index) => ({
      index,
      text: texts[index]!.map(({ text }) => text).join(""),
      logprobs: body.logprobs == null ? null : completionLogprobs(texts[index]!, 0),
      finish_reason: finishReason(result),
    })),
    usage: usage(results, prompts),
    timings: timings(results),
    outrider: outriderStats(results),
  };
}

export async function* completionStream(
  server: Answering,
  caller: Caller,
  model: string,
  body: CompletionRequest,
  limits: Limits,
): AsyncGenerator<ServerEvent, void, undefined> {
  const { jobs, prompts } = completionJobs(body, limits);
  const common = head(caller, model);
  const offsets = jobs.map(() => 0);
  const pieces = answer(server, caller, model, jobs);
  const choice = (index: number, text: string, rest: object = {}) => ({
    ...common,
    choices: [{ index, text, logprobs: null, finish_reason: null as string | null, ...rest }],
    ...(body.stream_options?.include_usage ? { usage: null } : undefined),
  });
  try {
    let step = await pieces.next();
    for (; !step.done; step = await pieces.next()) {
      const { index, piece } = step.value;
      const logprobs = body.logprobs == null ? null : completionLogprobs([piece], offsets[index]!);
      offsets[index]! += logprobs?.tokens.reduce((sum, text) => sum + text.length, 0) ?? 0;
      if (piece.text === "" && !logprobs && !piece.pass) continue;
      yield {
        data: {
          ...choice(index, piece.text, { logprobs }),
          ...(piece.pass ? { outrider: { pass: piece.pass } } : undefined),
        },
      };
    }
    const results = step.value;
    for (const [index, result] of results.entries()) {
      const last = index === results.length - 1;
      yield {
        data: {
          ...choice(index, "", { finish_reason: finishReason(result) }),
          ...(last ? { timings: timings(results), outrider: outriderStats(results) } : undefined),
        },
      };
    }
    if (body.stream_options?.include_usage)
      yield { data: { ...common, choices: [], usage: usage(results, prompts) } };
  } finally {
    await pieces.return([]);
  }
}
