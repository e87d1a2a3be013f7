import { randomBytes } from "node:crypto";
import { AnswerParser, type AnswerPart, type ToolCallFormat } from "../text/tool-calls.js";
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
  if (reading.forced) return readCall();
  return new AnswerParser({
    format: reading.tools && model.toolCallFormat,
    tools: reading.tools,
    reasoning: model.reasoning,
    newId,
  });
}

/** The whole answer is `{"name", "arguments"}`, by its guide; where it was cut it is text. */
function readCall(): AnswerReader {
  let text = "";
  return {
    push(more) {
      text += more;
      return [];
    },
    finish() {
      try {
        const { name, arguments: args } = JSON.parse(text) as {
          name: string;
          arguments: Record<string, unknown>;
        };
        return [{ type: "toolCall", call: { id: newId(), name, arguments: args } }];
      } catch {
        return text === "" ? [] : [{ type: "text", text }];
      }
    },
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
