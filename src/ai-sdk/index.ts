// A provider for the Vercel AI SDK (provider interface V3: ai 6 and later), in this process or over HTTP.
import type {
  EmbeddingModelV3,
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3Content,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
} from "@ai-sdk/provider";
import type { Model } from "../api/model.js";
import type { ServerOptions } from "../upstream/http.js";
import { localSource } from "./local-source.js";
import { toMessages, toTools } from "./prompt.js";
import { serverSource } from "./server-source.js";
import type { AnswerEvent, AnswerSource } from "./source.js";

export type { ServerOptions } from "../upstream/http.js";

/** Language and embedding models for the AI SDK's functions. */
export interface OutriderProvider {
  readonly specificationVersion: "v3";
  /** A language model; the same as `languageModel`. */
  (modelId?: string): LanguageModelV3;
  languageModel(modelId?: string): LanguageModelV3;
  embeddingModel(modelId?: string): EmbeddingModelV3;
}

/**
 * `model`: a loaded model, which answers in this process and stays yours to close. Or `baseURL`: a server, whose models
 * are called by their names. `providerOptions: { outrider: { strategy, … } }` reaches `generate`, or the request's
 * `outrider` field.
 */
export function createOutrider(options: { readonly model: Model } | ServerOptions): OutriderProvider {
  const sourceOf = (modelId: string | undefined): AnswerSource =>
    "model" in options ? localSource(options.model) : serverSource(modelId, options);
  const languageModel = (modelId?: string) => language(sourceOf(modelId));
  return Object.assign((modelId?: string) => languageModel(modelId), {
    specificationVersion: "v3" as const,
    languageModel,
    embeddingModel: (modelId?: string) => embedding(sourceOf(modelId)),
  });
}

function language(source: AnswerSource): LanguageModelV3 {
  const begin = (options: LanguageModelV3CallOptions) => {
    const { tools, warnings } = toTools(options);
    const mustCall = tools.length > 0 && ["required", "tool"].includes(options.toolChoice?.type ?? "auto");
    return {
      warnings,
      events: source.answer({ messages: toMessages(options.prompt), tools, mustCall, options }),
    };
  };
  return {
    specificationVersion: "v3",
    provider: "outrider",
    modelId: source.modelId,
    supportedUrls: {},

    async doGenerate(options) {
      const { warnings, events } = begin(options);
      const content: LanguageModelV3Content[] = [];
      let end: EndEvent | undefined;
      for await (const event of events) {
        if (event.type === "end") end = event;
        else if (event.type === "call") content.push(callOf(event));
        else {
          const last = content.at(-1);
          if (last?.type === event.type) last.text += event.text;
          else content.push({ type: event.type, text: event.text });
        }
      }
      return {
        content,
        ...closing(end!),
        response: { modelId: source.modelId },
        warnings,
      };
    },

    async doStream(options) {
      const { warnings, events } = begin(options);
      const parts = streamParts(events);
      const stream = new ReadableStream<LanguageModelV3StreamPart>({
        start: (controller) => controller.enqueue({ type: "stream-start", warnings }),
        async pull(controller) {
          try {
            const { done, value } = await parts.next();
            if (done) controller.close();
            else controller.enqueue(value);
          } catch (error) {
            controller.enqueue({ type: "error", error });
            controller.close();
          }
        },
        async cancel() {
          await parts.return(undefined);
        },
      });
      return { stream };
    },
  };
}

type EndEvent = Extract<AnswerEvent, { type: "end" }>;

const callOf = ({ id, name, input }: Extract<AnswerEvent, { type: "call" }>) =>
  ({ type: "tool-call", toolCallId: id, toolName: name, input }) as const;

function closing({ finishReason, usage, stats }: EndEvent) {
  return {
    finishReason: { unified: finishReason, raw: finishReason },
    usage: usageOf(usage),
    providerMetadata: { outrider: { ...stats } },
  };
}

function usageOf({ promptTokens, cachedTokens, completionTokens }: EndEvent["usage"]): LanguageModelV3Usage {
  return {
    inputTokens: {
      total: promptTokens,
      noCache: promptTokens - cachedTokens,
      cacheRead: cachedTokens,
      cacheWrite: undefined,
    },
    outputTokens: { total: completionTokens, text: undefined, reasoning: undefined },
  };
}

/** Runs of text and of reasoning between their start and end parts, calls as a whole. */
async function* streamParts(
  events: AsyncIterable<AnswerEvent>,
): AsyncGenerator<LanguageModelV3StreamPart, void, undefined> {
  let open: { type: "text" | "reasoning"; id: string } | undefined;
  let serial = 0;
  const close = (): LanguageModelV3StreamPart[] => {
    const ended = open;
    open = undefined;
    return ended ? [{ type: `${ended.type}-end`, id: ended.id }] : [];
  };
  for await (const event of events) {
    if (event.type === "end") {
      yield* close();
      yield { type: "finish", ...closing(event) };
    } else if (event.type === "call") {
      yield* close();
      yield { type: "tool-input-start", id: event.id, toolName: event.name };
      yield { type: "tool-input-delta", id: event.id, delta: event.input };
      yield { type: "tool-input-end", id: event.id };
      yield callOf(event);
    } else {
      if (open?.type !== event.type) {
        yield* close();
        open = { type: event.type, id: String(++serial) };
        yield { type: `${event.type}-start`, id: open.id };
      }
      yield { type: `${event.type}-delta`, id: open.id, delta: event.text };
    }
  }
}

function embedding(source: AnswerSource): EmbeddingModelV3 {
  return {
    specificationVersion: "v3",
    provider: "outrider",
    modelId: source.modelId,
    maxEmbeddingsPerCall: 2048,
    supportsParallelCalls: true,
    async doEmbed({ values, abortSignal }) {
      const embedded = await Promise.all(values.map((text) => source.embed(text, abortSignal)));
      return {
        embeddings: embedded.map(({ vector }) => vector),
        usage: { tokens: embedded.reduce((sum, { tokens }) => sum + tokens, 0) },
        warnings: [],
      };
    },
  };
}
