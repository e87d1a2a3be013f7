import { type ChatMessage, messageText } from "../text/chat-template.js";

/** A message as OpenAI's API writes it. */
export function toOpenAi(message: ChatMessage): object {
  const { role, toolCalls, toolCallId } = message;
  return {
    role,
    content: messageText(message),
    ...(toolCalls && {
      tool_calls: toolCalls.map(({ id, name, arguments: input }) => ({
        id,
        type: "function",
        function: { name, arguments: JSON.stringify(input) },
      })),
    }),
    ...(toolCallId !== undefined && { tool_call_id: toolCallId }),
  };
}
