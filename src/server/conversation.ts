import { callSchema } from "../guided/call-schema.js";
import type { ChatMessage } from "../text/chat-template.js";
import type { ToolCall } from "../text/tool-calls.js";
import { badField, cannot, checkSchema, type FieldGuide } from "./guide.js";
import type { Limits } from "./limits.js";
import type { ChatRequest } from "./schemas.js";

/** A tool as templates expect it. */
export interface Tool {
  readonly type: "function";
  readonly function: {
    readonly name: string;
    readonly description?: string | null | undefined;
    readonly parameters?: Readonly<Record<string, unknown>> | null | undefined;
    readonly strict?: boolean | null | undefined;
  };
}

/** How an answer is taken apart. */
export interface Reading {
  /** Names of the tools that may be called; undefined: there are none, and what looks like a call is text. */
  readonly tools?: readonly string[] | undefined;
  /** The whole answer is a call, or a list of calls, as JSON. */
  readonly forced: boolean;
}

/** What a conversation's request wants of the answer, beside sampling. */
export interface Wanted {
  readonly tools?: readonly Tool[] | undefined;
  readonly guide?: FieldGuide | undefined;
  readonly reading: Reading;
}

/** Calls that one answer makes at most, where it must make some. */
const mostCalls = 16;

export interface WantedFields {
  readonly tools: readonly Tool[];
  readonly choice: "none" | "auto" | "required" | { readonly name: string };
  readonly parallel: boolean;
  readonly guide: FieldGuide | undefined;
}

/**
 * Tools that must be called become a guide, which the answer cannot leave: one call, or a list of calls where several
 * are allowed. Throws ERR_BAD_REQUEST, ERR_GRAMMAR.
 */
export function wantedOf(fields: WantedFields, limits: Limits): Wanted {
  const { choice, guide } = fields;
  const tools = choice === "none" ? [] : fields.tools;
  if (choice === "none" || tools.length === 0) {
    if (choice === "required" || typeof choice === "object")
      throw badField("tool_choice", "asks for a call, and there are no tools");
    return { guide, reading: { forced: false } };
  }
  const names = tools.map((tool) => tool.function.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw badField("tools", `has two functions called "${twice}"`);
  if (guide !== undefined) throw cannot(guide.field, "cannot be enforced together with tools");
  if (!fields.parallel && choice === "auto")
    throw cannot("parallel_tool_calls", "of false cannot be enforced unless tool_choice asks for a call");
  if (choice === "auto") {
    const strict = tools.findIndex((tool) => tool.function.strict);
    if (strict >= 0)
      throw cannot(
        `tools[${strict}].function.strict`,
        "cannot be enforced unless tool_choice asks for a call",
      );
    return { tools, reading: { tools: names, forced: false } };
  }
  const callable = choice === "required" ? tools : tools.filter((tool) => tool.function.name === choice.name);
  if (callable.length === 0) throw badField("tool_choice", "names a function that is not among the tools");
  for (const tool of callable) checkSchema(tool.function.parameters ?? {}, "tools", limits);
  const most = choice === "required" && fields.parallel ? mostCalls : 1;
  const functions = callable.map((tool) => tool.function);
  const json = callSchema(functions, most);
  return { tools, guide: { guide: { json }, field: "tools" }, reading: { tools: names, forced: true } };
}

/** Messages as the templates take them. */
export function toChatMessages(messages: ChatRequest["messages"]): ChatMessage[] {
  const names = new Map<string, string>(); // of called tools, by the calls' ids
  return messages.map((message, i) => {
    const { content } = message;
    const text = typeof content === "string" ? content : (content ?? []).map((part) => part.text).join("");
    if (message.role === "assistant") {
      const calls = (message.tool_calls ?? []).map((call, j) => {
        names.set(call.id, call.function.name);
        const field = `messages[${i}].tool_calls[${j}].function.arguments`;
        return toToolCall(call.id, call.function.name, call.function.arguments, field);
      });
      return {
        role: "assistant",
        content: text,
        ...(calls.length > 0 ? { toolCalls: calls } : undefined),
        ...(message.reasoning_content ? { reasoning: message.reasoning_content } : undefined),
      };
    }
    if (message.role === "tool")
      return {
        role: "tool",
        content: text,
        toolCallId: message.tool_call_id,
        name: names.get(message.tool_call_id),
      };
    return { role: message.role === "developer" ? "system" : message.role, content: text };
  });
}

export function toToolCall(id: string, name: string, args: string, field: string): ToolCall {
  let value: unknown;
  try {
    value = JSON.parse(args);
  } catch {
    // refused below
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw badField(field, "is not the text of a JSON object");
  return { id, name, arguments: value as Record<string, unknown> };
}
