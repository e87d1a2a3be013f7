import { OutriderError } from "../errors.js";
import type { ChatMessage } from "../text/chat-template.js";
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
import { chatLogprobs } from "./logprobs.js";
import type { Job, JobPiece, JobResult } from "./protocol.js";
import type { ChatRequest } from "./schemas.js";
import type { ServerEvent } from "./sse.js";

/** POST /v1/chat/completions: what is to be generated. */
export function chatJobs(body: ChatRequest): Job[] {
  if (body.top_logprobs != null && !body.logprobs) throw badField("top_logprobs", "needs logprobs: true");
  if (body.max_tokens != null && body.max_completion_tokens != null)
    throw badField("max_tokens", "is the older name of max_completion_tokens: give one of them");
  refuseConstraints(body.response_format?.type, "response_format");
  if (body.tools?.length && body.tool_choice !== "none") throw badField("tools", "is not supported yet");
  const options = {
    ...jobOptions(body),
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    stop: body.stop ?? undefined,
    top: body.top_logprobs ?? undefined,
  };
  const prompt = {
    messages: body.messages.map(toMessage),
    variables: body.chat_template_kwargs ?? undefined,
  };
  return Array.from({ length: body.n ?? 1 }, (_, sample) => ({
    prompt,
    options: withSeed(options, sample),
    logprobs: body.logprobs ?? false,
  }));
}

/** Output that cannot be enforced is refused, never given unconstrained. */
export function refuseConstraints(type: string | undefined, param: string): void {
  if (type !== undefined && type !== "text")
    throw new OutriderError("ERR_GRAMMAR", `${param} of type ${type} is not supported yet`, { param });
}

export const badField = (param: string, problem: string) =>
  new OutriderError("ERR_BAD_REQUEST", `${param} ${problem}`, { param });

function toMessage(message: ChatRequest["messages"][number], i: number): ChatMessage {
  if (message.role === "assistant" && message.tool_calls?.length)
    throw badField(`messages[${i}].tool_calls`, "is not supported yet");
  const { content } = message;
  const text = typeof content === "string" ? content : (content ?? []).map((part) => part.text).join("");
  return { role: message.role === "developer" ? "system" : message.role, content: text };
}

const finishReason = ({ finishReason }: JobResult) => (finishReason === "length" ? "length" : "stop");

function head(caller: Caller, model: string, object: string) {
  return { id: `chatcmpl-${caller.requestId}`, object, created: Math.floor(Date.now() / 1000), model };
}

export async function chatCompletion(server: Answering, caller: Caller, model: string, body: ChatRequest) {
  const jobs = chatJobs(body);
  const texts: JobPiece[][] = jobs.map(() => []);
  const pieces = answer(server, caller, model, jobs);
  let step = await pieces.next();
  for (; !step.done; step = await pieces.next()) texts[step.value.index]!.push(step.value.piece);
  const results = step.value;
  return {
    ...head(caller, model, "chat.completion"),
    choices: results.map((result, index) => ({
      index,
      message: { role: "assistant", content: texts[index]!.map(({ text }) => text).join(""), refusal: null },
      logprobs: body.logprobs ? { content: chatLogprobs(texts[index]!), refusal: null } : null,
      finish_reason: finishReason(result),
    })),
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
): AsyncGenerator<ServerEvent, void, undefined> {
  const jobs = chatJobs(body);
  const common = head(caller, model, "chat.completion.chunk");
  const choice = (index: number, delta: object, rest: object = {}) => ({
    ...common,
    choices: [{ index, delta, logprobs: null, finish_reason: null as string | null, ...rest }],
    ...(body.stream_options?.include_usage ? { usage: null } : undefined),
  });
  const begun = new Set<number>();
  const pieces = answer(server, caller, model, jobs);
  try {
    let step = await pieces.next();
    for (; !step.done; step = await pieces.next()) {
      const { index, piece } = step.value;
      if (!begun.has(index)) {
        begun.add(index);
        yield { data: choice(index, { role: "assistant", content: "", refusal: null }) };
      }
      const logprobs = body.logprobs ? { content: chatLogprobs([piece]), refusal: null } : null;
      // A pass whose text is held back still has tokens to tell of.
      if (piece.text === "" && !logprobs && !piece.pass) continue;
      yield {
        data: {
          ...choice(index, piece.text === "" ? {} : { content: piece.text }, { logprobs }),
          ...(piece.pass ? { outrider: { pass: piece.pass } } : undefined),
        },
      };
    }
    const results = step.value;
    for (const [index, result] of results.entries()) {
      const last = index === results.length - 1;
      yield {
        data: {
          ...choice(index, {}, { finish_reason: finishReason(result) }),
          ...(last ? { timings: timings(results), outrider: outriderStats(results) } : undefined),
        },
      };
    }
    if (body.stream_options?.include_usage) yield { data: { ...common, choices: [], usage: usage(results) } };
  } finally {
    await pieces.return([]);
  }
}
