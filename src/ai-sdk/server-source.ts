import { events, requester, type ServerOptions } from "../upstream/http.js";
import { toOpenAi } from "../upstream/messages.js";
import type { AnswerSource, Request } from "./source.js";

/** A model behind `outrider serve`; default: its first. */
export function serverSource(modelId: string | undefined, options: ServerOptions): AnswerSource {
  const post = requester(options);
  return {
    modelId: modelId ?? "default",
    async *answer(request) {
      const { abortSignal, headers } = request.options;
      const response = await post("chat/completions", {
        body: bodyOf(modelId, request),
        headers,
        signal: abortSignal,
      });
      const calls: { id: string; name: string; input: string }[] = [];
      let finishReason = "stop";
      let usage: Record<string, number & { cached_tokens?: number }> | undefined;
      let stats: Record<string, string | number> = {};
      for await (const chunk of events("chat/completions", response, abortSignal)) {
        usage = chunk.usage ?? usage;
        if (chunk.outrider?.strategy) {
          const { strategy, passes, drafted, accepted } = chunk.outrider;
          stats = { strategy, passes, drafted, accepted };
        }
        const choice = chunk.choices?.[0];
        if (!choice) continue;
        const { delta } = choice;
        if (delta.reasoning_content) yield { type: "reasoning", text: delta.reasoning_content };
        if (delta.content) yield { type: "text", text: delta.content };
        for (const call of delta.tool_calls ?? []) {
          calls[call.index] ??= { id: call.id, name: call.function.name, input: "" };
          calls[call.index]!.input += call.function?.arguments ?? "";
        }
        finishReason = choice.finish_reason ?? finishReason;
      }
      for (const call of calls) yield { type: "call", ...call };
      yield {
        type: "end",
        finishReason: calls.length > 0 ? "tool-calls" : finishReason === "length" ? "length" : "stop",
        usage: {
          promptTokens: usage?.prompt_tokens ?? 0,
          cachedTokens: usage?.prompt_tokens_details?.cached_tokens ?? 0,
          completionTokens: usage?.completion_tokens ?? 0,
        },
        stats,
      };
    },
    async embed(text, signal) {
      const response = await post("embeddings", { body: { model: modelId, input: text }, signal });
      const { data, usage } = (await response.json()) as {
        data: { embedding: number[] }[];
        usage: { prompt_tokens: number };
      };
      return { vector: data[0]!.embedding, tokens: usage.prompt_tokens };
    },
  };
}

function bodyOf(model: string | undefined, { messages, tools, mustCall, options }: Request): object {
  const { responseFormat: format } = options;
  return {
    model,
    messages: messages.map(toOpenAi),
    stream: true,
    stream_options: { include_usage: true },
    max_completion_tokens: options.maxOutputTokens,
    temperature: options.temperature ?? 0,
    top_p: options.topP,
    top_k: options.topK,
    presence_penalty: options.presencePenalty,
    frequency_penalty: options.frequencyPenalty,
    seed: options.seed,
    stop: options.stopSequences,
    ...(tools.length > 0 && { tools, tool_choice: mustCall ? "required" : "auto" }),
    // As in process: one call.
    ...(mustCall && { parallel_tool_calls: false }),
    ...(format?.type === "json" && {
      response_format:
        format.schema === undefined
          ? { type: "json_object" }
          : { type: "json_schema", json_schema: { name: format.name ?? "answer", schema: format.schema } },
    }),
    ...(options.providerOptions?.outrider && { outrider: options.providerOptions.outrider }),
  };
}
