import type { AnswerPart, ToolCall } from "../text/tool-calls.js";
import {
  type Answering,
  type AnswerPiece,
  answer,
  type Caller,
  jobOptions,
  outriderStats,
  timings,
  usage,
  withSeed,
} from "./answer.js";
import { collect } from "./answer-reader.js";
import { toChatMessages, wantedOf } from "./conversation.js";
import { badField, guideOf } from "./guide.js";
import type { Limits } from "./limits.js";
import { chatLogprobs } from "./logprobs.js";
import type { Job, JobResult } from "./protocol.js";
import type { ChatRequest } from "./schemas.js";
import type { ServerEvent } from "./sse.js";

/** POST /v1/chat/completions: what is to be generated. */
export function chatJobs(body: ChatRequest, limits: Limits): Job[] {
  if (body.top_logprobs != null && !body.logprobs) throw badField("top_logprobs", "needs logprobs: true");
  if (body.max_tokens != null && body.max_completion_tokens != null)
    throw badField("max_tokens", "is the older name of max_completion_tokens: give one of them");
  const format = body.response_format ?? { type: "text" as const };
  const choice = body.tool_choice ?? "auto";
  const { tools, guide, reading } = wantedOf(
    {
      tools: body.tools ?? [],
      choice: typeof choice === "string" ? choice : choice.function,
      parallel: body.parallel_tool_calls ?? true,
      guide: guideOf(body, limits, {
        field: "response_format",
        type: format.type,
        ...(format.type === "json_schema" && { schema: format.json_schema.schema }),
      }),
    },
    limits,
  );
  const options = {
    ...jobOptions(body),
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    stop: body.stop ?? undefined,
    top: body.top_logprobs ?? undefined,
    guide: guide?.guide,
  };
  const prompt = {
    messages: toChatMessages(body.messages),
    tools,
    variables: body.chat_template_kwargs ?? undefined,
  };
  return Array.from({ length: body.n ?? 1 }, (_, sample) => ({
    prompt,
    options: withSeed(options, sample),
    logprobs: body.logprobs ?? false,
    reading,
    guideField: guide?.field,
  }));
}

function finishReason({ finishReason }: JobResult, calls: number): string {
  if (finishReason === "length") return "length";
  return calls > 0 ? "tool_calls" : "stop";
}

const callOf = ({ id, name, arguments: args }: ToolCall) => ({
  id,
  type: "function",
  function: { name, arguments: JSON.stringify(args) },
});

function head(caller: Caller, model: string, object: string) {
  return { id: `chatcmpl-${caller.requestId}`, object, created: Math.floor(Date.now() / 1000), model };
}

export async function chatCompletion(
  server: Answering,
  caller: Caller,
  model: string,
  body: ChatRequest,
  limits: Limits,
) {
  const jobs = chatJobs(body, limits);
  const taken: AnswerPiece[][] = jobs.map(() => []);
  const pieces = answer(server, caller, model, jobs);
  let step = await pieces.next();
  for (; !step.done; step = await pieces.next()) taken[step.value.index]!.push(step.value);
  const results = step.value;
  return {
    ...head(caller, model, "chat.completion"),
    choices: results.map((result, index) => {
      const { text, reasoning, calls } = collect(taken[index]!.flatMap(({ parts }) => parts));
      const logprobs = chatLogprobs(taken[index]!.map(({ piece }) => piece));
      return {
        index,
        message: {
          role: "assistant",
          content: text === "" && calls.length > 0 ? null : text,
          refusal: null,
          ...(reasoning === "" ? undefined : { reasoning_content: reasoning }),
          ...(calls.length > 0 ? { tool_calls: calls.map(callOf) } : undefined),
        },
        logprobs: body.logprobs ? { content: logprobs, refusal: null } : null,
        finish_reason: finishReason(result, calls.length),
      };
    }),
    usage: usage(results),
    timings: timings(results),
    outrider: outriderStats(results),
  };
}

export async function* chatCompletionStream(
  server: Answering,
  caller: Caller,
  model: string,
  body: ChatRequest,
  limits: Limits,
): AsyncGenerator<ServerEvent, void, undefined> {
  const jobs = chatJobs(body, limits);
  const common = head(caller, model, "chat.completion.chunk");
  const choice = (index: number, delta: object, rest: object = {}) => ({
    ...common,
    choices: [{ index, delta, logprobs: null, finish_reason: null as string | null, ...rest }],
    ...(body.stream_options?.include_usage ? { usage: null } : undefined),
  });
  const begun = new Set<number>();
  const calls = jobs.map(() => 0);
  const deltaOf = (index: number, part: AnswerPart) => {
    if (part.type === "toolCall") return { tool_calls: [{ index: calls[index]!++, ...callOf(part.call) }] };
    return part.type === "text" ? { content: part.text } : { reasoning_content: part.text };
  };
  const pieces = answer(server, caller, model, jobs);
  try {
    let step = await pieces.next();
    for (; !step.done; step = await pieces.next()) {
      const { index, piece, parts } = step.value;
      if (!begun.has(index)) {
        begun.add(index);
        yield { data: choice(index, { role: "assistant", content: "", refusal: null }) };
      }
      const content = body.logprobs ? chatLogprobs([piece]) : [];
      const logprobs = content.length > 0 ? { content, refusal: null } : null;
      const deltas = parts.map((part) => deltaOf(index, part));
      // A pass whose text is held back still has tokens to tell of.
      if (deltas.length === 0 && (logprobs || piece.pass)) deltas.push({} as never);
      for (const [i, delta] of deltas.entries())
        yield {
          data: {
            ...choice(index, delta, i === 0 ? { logprobs } : {}),
            ...(i === 0 && piece.pass ? { outrider: { pass: piece.pass } } : undefined),
          },
        };
    }
    const results = step.value;
    for (const [index, result] of results.entries()) {
      const last = index === results.length - 1;
      yield {
        data: {
          ...choice(index, {}, { finish_reason: finishReason(result, calls[index]!) }),
          ...(last ? { timings: timings(results), outrider: outriderStats(results) } : undefined),
        },
      };
    }
    if (body.stream_options?.include_usage) yield { data: { ...common, choices: [], usage: usage(results) } };
  } finally {
    await pieces.return([]);
  }
}
