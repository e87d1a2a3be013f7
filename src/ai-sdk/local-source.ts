import type { JSONSchema7 } from "@ai-sdk/provider";
import type { GenerateOptions, Model } from "../api/model.js";
import { type Callable, callSchema } from "../guided/call-schema.js";
import type { Guide } from "../guided/constraint.js";
import type { JsonSchema } from "../guided/json-schema.js";
import { AnswerParser } from "../text/tool-calls.js";
import type { AnswerEvent, AnswerSource, Request } from "./source.js";

/** A model in this process. It stays the caller's to close. */
export function localSource(model: Model): AnswerSource {
  return {
    modelId: model.info.name,
    async *answer(request) {
      const run = model.generate(request.messages, generateOptions(request));
      // Where a call is enforced the answer is its JSON; else calls are found as the model's family writes them.
      const parser = new AnswerParser({
        format: request.tools.length > 0 && !request.mustCall ? model.toolCallFormat : undefined,
        tools: request.tools.map((tool) => tool.function.name),
        newId: newCallId,
      });
      let forced = "";
      let called = request.mustCall;
      for await (const { text } of run) {
        if (request.mustCall) forced += text;
        else for (const event of eventsOf(parser.push(text))) yield event;
      }
      for (const event of request.mustCall ? [] : eventsOf(parser.finish())) {
        called ||= event.type === "call";
        yield event;
      }
      const result = await run.result;
      if (request.mustCall && result.finishReason === "stop") {
        const { name, arguments: input } = JSON.parse(forced);
        yield { type: "call", id: newCallId(), name, input: JSON.stringify(input) };
      } else if (request.mustCall) {
        called = false;
        yield { type: "text", text: forced };
      }
      const { stats } = result;
      yield {
        type: "end",
        finishReason: result.finishReason === "length" ? "length" : called ? "tool-calls" : "stop",
        usage: {
          promptTokens: result.promptTokens.length,
          cachedTokens: result.cachedTokens,
          completionTokens: result.tokens.length,
        },
        stats: {
          strategy: result.strategy,
          passes: stats.passes,
          drafted: stats.drafted,
          accepted: stats.accepted,
        },
      };

      function* eventsOf(parts: ReturnType<AnswerParser["push"]>): Generator<AnswerEvent> {
        for (const part of parts)
          if (part.type === "toolCall") {
            called = true;
            const { id, name, arguments: input } = part.call;
            yield { type: "call", id, name, input: JSON.stringify(input) };
          } else yield { type: part.type, text: part.text };
      }
    },
    async embed(text, signal) {
      const vector = await model.embed(text, { ...(signal && { signal }) });
      return { vector: [...vector], tokens: model.tokenize(text).length };
    },
  };
}

const newCallId = () => crypto.randomUUID().replaceAll("-", "").slice(0, 9);

function generateOptions({ options, tools, mustCall }: Request): GenerateOptions {
  return {
    maxTokens: options.maxOutputTokens,
    temperature: options.temperature,
    topP: options.topP,
    topK: options.topK,
    presencePenalty: options.presencePenalty,
    frequencyPenalty: options.frequencyPenalty,
    seed: options.seed,
    stop: options.stopSequences,
    signal: options.abortSignal,
    ...(tools.length > 0 && { tools }),
    guide: guideOf(options.responseFormat, mustCall ? tools.map((tool) => tool.function) : []),
    ...(options.providerOptions?.outrider as object | undefined),
  };
}

function guideOf(
  format: Request["options"]["responseFormat"],
  tools: readonly Callable[],
): Guide | undefined {
  if (tools.length > 0) return { json: callSchema(tools) };
  if (format?.type !== "json") return undefined;
  return { json: format.schema === undefined ? true : (format.schema as JSONSchema7 & JsonSchema) };
}
