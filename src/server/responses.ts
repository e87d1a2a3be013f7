import type { ChatMessage } from "../text/chat-template.js";
import type { ToolCall } from "../text/tool-calls.js";
import { type Answering, answer, type Caller, jobOptions, outriderStats, timings, usage } from "./answer.js";
import { toToolCall, wantedOf } from "./conversation.js";
import { guideOf } from "./guide.js";
import type { Limits } from "./limits.js";
import type { Job, JobResult } from "./protocol.js";
import type { ResponsesRequest } from "./schemas.js";
import type { ServerEvent } from "./sse.js";

/** POST /v1/responses: nothing is kept between requests, the whole conversation comes with each. */
function responseJob(body: ResponsesRequest, limits: Limits): Job {
  const format = body.text?.format ?? { type: "text" as const };
  const choice = body.tool_choice ?? "auto";
  const { tools, guide, reading } = wantedOf(
    {
      tools: (body.tools ?? []).map(({ type, ...rest }) => ({ type, function: rest })),
      choice,
      parallel: body.parallel_tool_calls ?? true,
      guide: guideOf(body, limits, { field: "text.format", ...format }),
    },
    limits,
  );
  const system = body.instructions == null ? [] : [{ role: "system" as const, content: body.instructions }];
  const said =
    typeof body.input === "string"
      ? [{ role: "user" as const, content: body.input }]
      : toMessages(body.input);
  return {
    prompt: { messages: [...system, ...said], tools },
    options: { ...jobOptions(body), maxTokens: body.max_output_tokens ?? undefined, guide: guide?.guide },
    logprobs: false,
    reading,
    guideField: guide?.field,
  };
}

/** Calls that follow each other are one assistant's message. */
function toMessages(items: Exclude<ResponsesRequest["input"], string>): ChatMessage[] {
  const messages: ChatMessage[] = [];
  const names = new Map<string, string>();
  for (const [i, item] of items.entries()) {
    if ("role" in item) {
      const { role, content } = item;
      const text = typeof content === "string" ? content : content.map((part) => part.text).join("");
      messages.push({ role: role === "developer" ? "system" : role, content: text });
    } else if (item.type === "function_call") {
      names.set(item.call_id, item.name);
      const call = toToolCall(item.call_id, item.name, item.arguments, `input[${i}].arguments`);
      const last = messages.at(-1);
      if (last?.role === "assistant")
        messages[messages.length - 1] = { ...last, toolCalls: [...(last.toolCalls ?? []), call] };
      else messages.push({ role: "assistant", content: "", toolCalls: [call] });
    } else
      messages.push({
        role: "tool",
        content: item.output,
        toolCallId: item.call_id,
        name: names.get(item.call_id),
      });
  }
  return messages;
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

/** An item of the output while it comes, and how it stands. */
type Item =
  | { readonly type: "message" | "reasoning"; readonly id: string; text: string }
  | { readonly type: "call"; readonly id: string; readonly call: ToolCall };

function itemObject(item: Item, status: string): object {
  const { id } = item;
  if (item.type === "call") {
    const { id: callId, name, arguments: args } = item.call;
    return { type: "function_call", id, call_id: callId, name, arguments: JSON.stringify(args), status };
  }
  if (item.type === "reasoning")
    return {
      type: "reasoning",
      id,
      summary: item.text === "" ? [] : [{ type: "summary_text", text: item.text }],
    };
  const content = status === "in_progress" ? [] : [textPart(item.text)];
  return { type: "message", id, status, role: "assistant", content };
}

export async function response(
  server: Answering,
  caller: Caller,
  model: string,
  body: ResponsesRequest,
  limits: Limits,
): Promise<object> {
  const events = responseStream(server, caller, model, body, limits);
  let last: ServerEvent | undefined;
  for await (const event of events) last = event;
  return (last!.data as { response: object }).response;
}

/** The events in the order in which OpenAI's API sends them, numbered; the last one has the whole response. */
export async function* responseStream(
  server: Answering,
  caller: Caller,
  model: string,
  body: ResponsesRequest,
  limits: Limits,
): AsyncGenerator<ServerEvent, void, undefined> {
  const createdAt = Math.floor(Date.now() / 1000);
  const pieces = answer(server, caller, model, [responseJob(body, limits)]);
  let number = 0;
  const event = (type: string, fields: object): ServerEvent => ({
    event: type,
    data: { type, sequence_number: number++, ...fields },
  });
  const items: Item[] = [];
  const prefixes = { message: "msg", reasoning: "rs", call: "fc" } as const;
  const place = () => ({ item_id: items.at(-1)!.id, output_index: items.length - 1 });
  const nextId = (type: Item["type"]) => `${prefixes[type]}_${caller.requestId}${items.length}`;

  function* begin(item: Item): Generator<ServerEvent> {
    items.push(item);
    yield event("response.output_item.added", {
      output_index: items.length - 1,
      item: itemObject(
        item.type === "call" ? { ...item, call: { ...item.call, arguments: {} } } : item,
        "in_progress",
      ),
    });
    if (item.type === "message")
      yield event("response.content_part.added", { ...place(), content_index: 0, part: textPart("") });
    if (item.type === "call") {
      const text = JSON.stringify(item.call.arguments);
      yield event("response.function_call_arguments.delta", { ...place(), delta: text });
      yield event("response.function_call_arguments.done", {
        ...place(),
        name: item.call.name,
        arguments: text,
      });
    }
  }
  function* end(status: string): Generator<ServerEvent> {
    const item = items.at(-1);
    if (item === undefined) return;
    if (item.type === "message") {
      const at = { ...place(), content_index: 0 };
      yield event("response.output_text.done", { ...at, text: item.text, logprobs: [] });
      yield event("response.content_part.done", { ...at, part: textPart(item.text) });
    }
    yield event("response.output_item.done", {
      output_index: items.length - 1,
      item: itemObject(item, status),
    });
  }

  try {
    let step = await pieces.next(); // before anything is sent, so that a refusal has its status
    const begun = responseObject(caller, model, body, createdAt, [], undefined);
    yield event("response.created", { response: begun });
    yield event("response.in_progress", { response: begun });
    for (; !step.done; step = await pieces.next()) {
      const { piece, parts } = step.value;
      let pass = piece.pass;
      for (const part of parts) {
        const type = part.type === "toolCall" ? "call" : part.type === "text" ? "message" : "reasoning";
        if (type === "call" || items.at(-1)?.type !== type) {
          yield* end("completed");
          const id = nextId(type);
          yield* begin(
            part.type === "toolCall"
              ? { type: "call", id, call: part.call }
              : { type: type as "message", id, text: "" },
          );
        }
        const item = items.at(-1)!;
        if (part.type === "toolCall" || item.type === "call") continue;
        item.text += part.text;
        if (item.type === "reasoning") continue;
        yield event("response.output_text.delta", {
          ...place(),
          content_index: 0,
          delta: part.text,
          logprobs: [],
          ...(pass ? { outrider: { pass } } : undefined),
        });
        pass = undefined;
      }
    }
    const result = step.value[0]!;
    const cut = result.finishReason === "length";
    const status = cut ? "incomplete" : "completed";
    // An answer without a word is an empty message.
    if (items.length === 0) yield* begin({ type: "message", id: nextId("message"), text: "" });
    yield* end(status);
    const output = items.map((item, i) => itemObject(item, i === items.length - 1 ? status : "completed"));
    yield event(cut ? "response.incomplete" : "response.completed", {
      response: responseObject(caller, model, body, createdAt, output, result),
    });
  } finally {
    await pieces.return([]);
  }
}
