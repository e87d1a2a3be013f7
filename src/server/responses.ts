import type { ChatMessage } from "../text/chat-template.js";
import { type Answering, answer, type Caller, jobOptions, outriderStats, timings, usage } from "./answer.js";
import { badField, refuseConstraints } from "./chat.js";
import type { Job, JobResult } from "./protocol.js";
import type { ResponsesRequest } from "./schemas.js";
import type { ServerEvent } from "./sse.js";

/** POST /v1/responses: nothing is kept between requests, the whole conversation comes with each. */
function responseJob(body: ResponsesRequest): Job {
  refuseConstraints(body.text?.format?.type, "text.format");
  if (body.tools?.length && body.tool_choice !== "none") throw badField("tools", "is not supported yet");
  const system = body.instructions == null ? [] : [{ role: "system" as const, content: body.instructions }];
  const said =
    typeof body.input === "string"
      ? [{ role: "user" as const, content: body.input }]
      : body.input.map(toMessage);
  return {
    prompt: { messages: [...system, ...said] },
    options: { ...jobOptions(body), maxTokens: body.max_output_tokens ?? undefined },
    logprobs: false,
  };
}

function toMessage(item: Exclude<ResponsesRequest["input"], string>[number], i: number): ChatMessage {
  if (!("role" in item)) throw badField(`input[${i}].type`, `is "${item.type}", which is not supported yet`);
  const { role, content } = item;
  const text = typeof content === "string" ? content : content.map((part) => part.text).join("");
  return { role: role === "developer" ? "system" : role, content: text };
}

function responseObject(
  caller: Caller,
  model: string,
  body: ResponsesRequest,
  createdAt: number,
  output: readonly object[],
  result: JobResult | undefined,
) {
  const cut = result?.finishReason === "length";
  const used = result && usage([result]);
  return {
    id: `resp_${caller.requestId}`,
    object: "response",
    created_at: createdAt,
    status: result === undefined ? "in_progress" : cut ? "incomplete" : "completed",
    error: null,
    incomplete_details: cut ? { reason: "max_output_tokens" } : null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    model,
    output,
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: null,
    reasoning: { effort: null, summary: null },
    store: false,
    temperature: body.temperature ?? 1,
    text: { format: body.text?.format ?? { type: "text" } },
    tool_choice: body.tool_choice ?? "auto",
    tools: body.tools ?? [],
    top_p: body.top_p ?? 1,
    truncation: "disabled",
    usage: used
      ? {
          input_tokens: used.prompt_tokens,
          input_tokens_details: used.prompt_tokens_details,
          output_tokens: used.completion_tokens,
          output_tokens_details: { reasoning_tokens: 0 },
          total_tokens: used.total_tokens,
        }
      : null,
    user: body.user ?? null,
    metadata: body.metadata ?? {},
    ...(result && { timings: timings([result]), outrider: outriderStats([result]) }),
  };
}

const textPart = (text: string) => ({ type: "output_text", text, annotations: [], logprobs: [] });

const messageItem = (caller: Caller, status: string, content: readonly object[]) => ({
  type: "message",
  id: `msg_${caller.requestId}`,
  status,
  role: "assistant",
  content,
});

export async function response(server: Answering, caller: Caller, model: string, body: ResponsesRequest) {
  const createdAt = Math.floor(Date.now() / 1000);
  const pieces = answer(server, caller, model, [responseJob(body)]);
  let text = "";
  let step = await pieces.next();
  for (; !step.done; step = await pieces.next()) text += step.value.piece.text;
  const result = step.value[0]!;
  const status = result.finishReason === "length" ? "incomplete" : "completed";
  const output = [messageItem(caller, status, [textPart(text)])];
  return responseObject(caller, model, body, createdAt, output, result);
}

/** The events in the order in which OpenAI's API sends them, numbered. */
export async function* responseStream(
  server: Answering,
  caller: Caller,
  model: string,
  body: ResponsesRequest,
): AsyncGenerator<ServerEvent, void, undefined> {
  const createdAt = Math.floor(Date.now() / 1000);
  const pieces = answer(server, caller, model, [responseJob(body)]);
  let number = 0;
  const event = (type: string, fields: object): ServerEvent => ({
    event: type,
    data: { type, sequence_number: number++, ...fields },
  });
  const place = { item_id: `msg_${caller.requestId}`, output_index: 0, content_index: 0 };
  try {
    let step = await pieces.next(); // before anything is sent, so that a refusal has its status
    const begun = responseObject(caller, model, body, createdAt, [], undefined);
    yield event("response.created", { response: begun });
    yield event("response.in_progress", { response: begun });
    yield event("response.output_item.added", {
      output_index: 0,
      item: messageItem(caller, "in_progress", []),
    });
    yield event("response.content_part.added", { ...place, part: textPart("") });
    let text = "";
    for (; !step.done; step = await pieces.next()) {
      const { piece } = step.value;
      text += piece.text;
      if (piece.text !== "" || piece.pass)
        yield event("response.output_text.delta", {
          ...place,
          delta: piece.text,
          logprobs: [],
          ...(piece.pass ? { outrider: { pass: piece.pass } } : undefined),
        });
    }
    const result = step.value[0]!;
    const cut = result.finishReason === "length";
    const item = messageItem(caller, cut ? "incomplete" : "completed", [textPart(text)]);
    yield event("response.output_text.done", { ...place, text, logprobs: [] });
    yield event("response.content_part.done", { ...place, part: textPart(text) });
    yield event("response.output_item.done", { output_index: 0, item });
    yield event(cut ? "response.incomplete" : "response.completed", {
      response: responseObject(caller, model, body, createdAt, [item], result),
    });
  } finally {
    await pieces.return([]);
  }
}
