import { randomBytes } from "node:crypto";
import { AnswerParser, type AnswerPart, type ToolCall, type ToolCallFormat } from "../text/tool-calls.js";
import type { Reading } from "./conversation.js";

/** Takes a conversation's answer apart while it comes. */
export interface AnswerReader {
  push(text: string): AnswerPart[];
  finish(): AnswerPart[];
}

/** Nine letters and digits: some templates accept no other. */
const newId = () => randomBytes(16).toString("base64url").replace(/[-_]/g, "").slice(0, 9).padEnd(9, "0");

export function readAnswer(
  reading: Reading,
  model: { readonly toolCallFormat: ToolCallFormat; readonly reasoning: boolean },
): AnswerReader {
  if (reading.forced) return readCalls();
  return new AnswerParser({
    format: reading.tools && model.toolCallFormat,
    tools: reading.tools,
    reasoning: model.reasoning,
    newId,
  });
}

/**
 * The whole answer is `{"name", "arguments"}`, or a list of these, by its guide: each call is told when its last brace
 * has come. What is left of one that was cut is text.
 */
function readCalls(): AnswerReader {
  let text = "";
  let read = 0;
  let depth = 0;
  let inString = false;
  return {
    push(more) {
      const calls: AnswerPart[] = [];
      for (text += more; read < text.length; read++) {
        const c = text[read];
        if (inString) {
          if (c === "\\") {
            if (read + 1 === text.length) break; // what it escapes has not come yet
            read++;
          } else if (c === '"') inString = false;
        } else if (c === '"') inString = true;
        else if (c === "{" && depth++ === 0) {
          text = text.slice(read);
          read = 0;
        } else if (c === "}" && --depth === 0) {
          const { name, arguments: args } = JSON.parse(text.slice(0, read + 1)) as Omit<ToolCall, "id">;
          calls.push({ type: "toolCall", call: { id: newId(), name, arguments: args } });
          text = text.slice(read + 1);
          read = -1;
        }
      }
      return calls;
    },
    finish: () => (depth > 0 ? [{ type: "text", text }] : []),
  };
}

/** What all parts of an answer make. */
export function collect(parts: readonly AnswerPart[]) {
  const text = (type: "text" | "reasoning") =>
    parts.map((part) => (part.type === type ? part.text : "")).join("");
  return {
    text: text("text"),
    reasoning: text("reasoning"),
    calls: parts.flatMap((part) => (part.type === "toolCall" ? [part.call] : [])),
  };
}
