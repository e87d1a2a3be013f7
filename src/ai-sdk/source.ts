import type { LanguageModelV3CallOptions } from "@ai-sdk/provider";
import type { ChatMessage } from "../text/chat-template.js";
import type { Tool } from "./prompt.js";

/** What the AI SDK asks for, in Outrider's terms. */
export interface Request {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly Tool[];
  /** The answer must be a call of one of the tools. */
  readonly mustCall: boolean;
  readonly options: LanguageModelV3CallOptions;
}

export interface Usage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

export type AnswerEvent =
  | { readonly type: "text" | "reasoning"; readonly text: string }
  | { readonly type: "call"; readonly id: string; readonly name: string; readonly input: string }
  | {
      readonly type: "end";
      readonly finishReason: "stop" | "length" | "tool-calls";
      readonly usage: Usage;
      /** Strategy, passes, drafted, accepted. */
      readonly stats: Readonly<Record<string, string | number>>;
    };

/** Where answers come from: a model in this process, or a server. */
export interface AnswerSource {
  readonly modelId: string;
  answer(request: Request): AsyncIterable<AnswerEvent>;
  embed(text: string, signal?: AbortSignal): Promise<{ vector: number[]; tokens: number }>;
}
