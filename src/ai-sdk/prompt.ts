import type { LanguageModelV3CallOptions, LanguageModelV3Prompt, SharedV3Warning } from "@ai-sdk/provider";
import { OutriderError } from "../errors.js";
import type { ChatMessage } from "../text/chat-template.js";

/** The AI SDK's prompt as a conversation. Files and provider-run tools are `ERR_BAD_REQUEST`: these models read text. */
export function toMessages(prompt: LanguageModelV3Prompt): ChatMessage[] {
  return prompt.flatMap((message): ChatMessage[] => {
    if (message.role === "system") return [{ role: "system", content: message.content }];
    if (message.role === "user") return [{ role: "user", content: message.content.map(textOf).join("") }];
    if (message.role === "tool")
      return message.content.flatMap((part): ChatMessage[] =>
        part.type === "tool-result"
          ? [
              {
                role: "tool",
                content: resultText(part.output),
                toolCallId: part.toolCallId,
                name: part.toolName,
              },
            ]
          : [],
      );
    const text = message.content.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("");
    const reasoning = message.content
      .flatMap((part) => (part.type === "reasoning" ? [part.text] : []))
      .join("");
    const toolCalls = message.content.flatMap((part) =>
      part.type === "tool-call"
        ? [{ id: part.toolCallId, name: part.toolName, arguments: part.input as Record<string, unknown> }]
        : [],
    );
    return [
      {
        role: "assistant",
        content: text,
        ...(toolCalls.length > 0 && { toolCalls }),
        ...(reasoning !== "" && { reasoning }),
      },
    ];
  });
}

function textOf(part: { type: string; text?: string; mediaType?: string }): string {
  if (part.type === "text") return part.text!;
  throw new OutriderError(
    "ERR_BAD_REQUEST",
    `a message holds a ${part.type} (${part.mediaType ?? "unknown type"}): these models read text only`,
    { param: "messages" },
  );
}

type ToolOutput = Extract<
  Extract<LanguageModelV3Prompt[number], { role: "tool" }>["content"][number],
  { type: "tool-result" }
>["output"];

function resultText(output: ToolOutput): string {
  switch (output.type) {
    case "text":
    case "error-text":
      return output.value;
    case "json":
    case "error-json":
      return JSON.stringify(output.value);
    case "execution-denied":
      return output.reason ?? "The user did not allow this call.";
    case "content":
      return output.value.map((part) => (part.type === "text" ? part.text : "")).join("");
  }
}

/** A tool as chat templates and OpenAI's API describe it. */
export interface Tool {
  readonly type: "function";
  readonly function: { readonly name: string; readonly description?: string; readonly parameters: object };
}

export function toTools(options: LanguageModelV3CallOptions): { tools: Tool[]; warnings: SharedV3Warning[] } {
  const warnings: SharedV3Warning[] = [];
  const { toolChoice } = options;
  const tools = (options.tools ?? []).flatMap((tool): Tool[] => {
    if (tool.type !== "function") {
      warnings.push({ type: "unsupported", feature: `the provider's tool ${tool.name}` });
      return [];
    }
    const { name, description, inputSchema } = tool;
    return [
      { type: "function", function: { name, ...(description && { description }), parameters: inputSchema } },
    ];
  });
  if (toolChoice?.type === "none") return { tools: [], warnings };
  if (toolChoice?.type !== "tool") return { tools, warnings };
  return { tools: tools.filter((tool) => tool.function.name === toolChoice.toolName), warnings };
}
