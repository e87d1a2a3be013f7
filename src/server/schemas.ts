import { z } from "zod";
import { strategyNames } from "../decoding/strategies.js";
import type { Limits } from "./limits.js";

/** A number; the message names the range. */
const number = (least: number, most: number) => {
  const error = `expected a number from ${least} to ${most}`;
  return z.number({ error }).min(least, { error }).max(most, { error });
};

const whole = (least: number, most: number) => {
  const error = `expected a whole number from ${least} to ${most === Number.MAX_SAFE_INTEGER ? "2^53 - 1" : most}`;
  return z.int({ error }).min(least, { error }).max(most, { error });
};

/** Many clients send null for what they do not mean to set. */
const optional = <T extends z.ZodType>(schema: T) => schema.nullish();

/** A field of the API that has one value here: another would be ignored, so it is refused. */
const only = <const V extends string | boolean>(value: V) =>
  z.literal(value, { error: `only ${JSON.stringify(value)} is supported` });

/** Too long a list is refused before its items are looked at. */
const list = <T extends z.ZodType>(item: T, least: number, most: number, things: string) => {
  const error = `expected ${least} to ${most} ${things}`;
  return z.preprocess((value, context) => {
    if (Array.isArray(value) && (value.length < least || value.length > most)) {
      context.addIssue({ code: "custom", message: error });
      return z.NEVER;
    }
    return value;
  }, z.array(item));
};

/** A record, refused before its values are looked at where it has too many. */
const record = <T extends z.ZodType>(key: z.ZodString, value: T, most: number) => {
  const error = `expected at most ${most} entries`;
  return z.preprocess(
    (given, context) => {
      if (typeof given === "object" && given !== null && Object.keys(given).length > most) {
        context.addIssue({ code: "custom", message: error });
        return z.NEVER;
      }
      return given;
    },
    z.record(key, value),
  );
};

const jsonObject = (maxBytes: number) =>
  z.record(z.string(), z.unknown()).refine((value) => JSON.stringify(value).length <= maxBytes, {
    error: `expected at most ${maxBytes} characters of JSON`,
  });

/** Its size and what it says are refused as what they are, ERR_GRAMMAR. */
const jsonSchema = z.record(z.string(), z.unknown());

const outriderOptions = z
  .strictObject({
    strategy: optional(z.enum(strategyNames)).describe("How drafts are made; never changes the answer."),
    draft_length: optional(whole(1, 32)).describe("Draft exactly so many tokens a pass."),
    trace: optional(z.boolean()).describe("Say of every pass what it drafted; while streaming."),
  })
  .describe("Outrider's extension.");

const choices = list(z.string().min(1, { error: "is empty" }), 1, 1024, "texts");
const regex = z
  .string()
  .describe("The whole text matches this pattern, of JavaScript's syntax without look-around.");
const grammar = z
  .string()
  .describe("The text is what this grammar describes, in llama.cpp's notation (GBNF).");

/** What the whole text must be, as vLLM and llama.cpp call it; at most one of them. */
const guideFields = {
  structured_outputs: optional(
    z.strictObject({
      regex: optional(regex),
      grammar: optional(grammar),
      choice: optional(choices).describe("The text is one of these."),
      json: optional(jsonSchema).describe("The text is JSON that satisfies this schema."),
      json_object: optional(only(true)).describe("The text is a JSON object."),
    }),
  ).describe("vLLM's field: one of these says what the whole text is."),
  guided_regex: optional(regex),
  guided_grammar: optional(grammar),
  guided_choice: optional(choices),
  guided_json: optional(jsonSchema),
  grammar: optional(grammar),
  json_schema: optional(jsonSchema),
};

/** What decides how tokens are drawn and where a text ends: the same in all routes. */
function samplingFields(limits: Limits) {
  return {
    model: optional(z.string().max(256)).describe("One of GET /v1/models; default: the first."),
    temperature: optional(
      number(0, 2).refine((value) => value === 0 || value >= 0.001, {
        error: "expected 0 (always the most likely token) or 0.001 to 2",
      }),
    ).describe("Default 1; 0: always the most likely token."),
    top_p: optional(number(0, 1).refine((value) => value > 0, { error: "expected more than 0, at most 1" })),
    top_k: optional(whole(0, 2 ** 31 - 1)).describe("0: all tokens."),
    min_p: optional(number(0, 1)),
    repetition_penalty: optional(number(0.01, 100)),
    presence_penalty: optional(number(-2, 2)),
    frequency_penalty: optional(number(-2, 2)),
    logit_bias: optional(
      record(
        z.string().regex(/^\d{1,10}$/, { error: "expected token ids as keys" }),
        number(-100, 100),
        limits.logitBias,
      ),
    ),
    seed: optional(whole(0, Number.MAX_SAFE_INTEGER)).describe("Default: a random one, told in the answer."),
    ignore_eos: optional(z.boolean()),
    outrider: optional(outriderOptions),
    user: optional(z.string().max(256)).describe("Taken and not used."),
  };
}

const stop = optional(
  z.union([
    z.string().min(1, { error: "is empty; it would end every text at once" }),
    list(z.string().min(1, { error: "is empty; it would end every text at once" }), 0, 16, "strings"),
  ]),
).describe("At most 16 strings of at most 256 bytes; the text ends before the first.");

const streamFields = {
  stream: optional(z.boolean()),
  stream_options: optional(
    z.strictObject({ include_usage: optional(z.boolean()), include_obfuscation: optional(only(false)) }),
  ),
};

const maxParts = 1024;
const textPart = z.strictObject({ type: z.literal("text"), text: z.string() });
const text = z.union([z.string(), list(textPart, 1, maxParts, "parts")]);
const name = optional(z.string().max(64));

const toolCall = z.strictObject({
  id: z.string().max(128),
  type: z.literal("function"),
  function: z.strictObject({ name: z.string().max(64), arguments: z.string() }),
});

const message = z.discriminatedUnion("role", [
  z.strictObject({ role: z.literal("system"), content: text, name }),
  z.strictObject({ role: z.literal("developer"), content: text, name }),
  z.strictObject({ role: z.literal("user"), content: text, name }),
  z.strictObject({
    role: z.literal("assistant"),
    content: optional(text),
    name,
    refusal: optional(z.string()),
    reasoning_content: optional(z.string()),
    tool_calls: optional(list(toolCall, 0, maxParts, "calls")),
  }),
  z.strictObject({ role: z.literal("tool"), content: text, tool_call_id: z.string().max(128), name }),
]);

const functionName = z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, {
  error: "expected 1 to 64 letters, digits, _ or -",
});

const responseFormat = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    json_schema: z.strictObject({
      name: functionName,
      description: optional(z.string()),
      schema: jsonSchema,
      strict: optional(z.boolean()),
    }),
  }),
]);

export function chatRequest(limits: Limits) {
  const tool = z.strictObject({
    type: z.literal("function"),
    function: z.strictObject({
      name: functionName,
      description: optional(z.string()),
      parameters: optional(jsonObject(limits.schema)),
      strict: optional(z.boolean()),
    }),
  });
  return z.strictObject({
    ...samplingFields(limits),
    ...guideFields,
    ...streamFields,
    messages: list(message, 1, limits.messages, "messages"),
    max_tokens: optional(whole(0, 2 ** 31 - 1)).describe("Default: what the context holds."),
    max_completion_tokens: optional(whole(0, 2 ** 31 - 1)).describe("The newer name of max_tokens."),
    n: optional(whole(1, limits.n)),
    stop,
    logprobs: optional(z.boolean()),
    top_logprobs: optional(whole(0, limits.topLogprobs)),
    response_format: optional(responseFormat),
    tools: optional(list(tool, 0, limits.tools, "tools")),
    tool_choice: optional(
      z.union([
        z.enum(["none", "auto", "required"]),
        z.strictObject({ type: z.literal("function"), function: z.strictObject({ name: functionName }) }),
      ]),
    ),
    parallel_tool_calls: optional(z.boolean()),
    chat_template_kwargs: optional(jsonObject(limits.schema)).describe(
      "More variables of the model's template.",
    ),
    metadata: optional(record(z.string().max(64), z.string().max(512), 16)).describe("Taken and not used."),
    store: optional(only(false)),
  });
}

const maxTokenId = 2 ** 31 - 1;
const isTokenId = (id: unknown) =>
  Number.isInteger(id) && (id as number) >= 0 && (id as number) <= maxTokenId;

/** A million ids in a few milliseconds: one loop, and the first that is wrong. */
const tokenIds = z
  .array(z.any())
  .superRefine((ids, context) => {
    const wrong = ids.findIndex((id) => !isTokenId(id));
    if (wrong >= 0) context.addIssue({ code: "custom", path: [wrong], message: "expected a token id" });
  })
  .meta({ items: { type: "integer", minimum: 0 } });

/** A text, token ids, or up to `most` of either. What the first item is, all must be. */
const texts = (most: number) =>
  z
    .any()
    .superRefine((given: unknown, context) => {
      const refuse = (path: number[], message: string) => context.addIssue({ code: "custom", path, message });
      if (typeof given === "string") return;
      if (!Array.isArray(given) || given.length === 0)
        return refuse([], "expected a text, token ids, or an array of either");
      const many = typeof given[0] === "string" || Array.isArray(given[0]);
      if (many && given.length > most) return refuse([], `expected at most ${most} texts`);
      for (const [i, item] of given.entries()) {
        if (!many && !isTokenId(item)) return refuse([i], "expected a token id");
        if (!many) continue;
        if (typeof item !== typeof given[0] || (typeof item !== "string" && !(item.length > 0)))
          return refuse([i], typeof given[0] === "string" ? "expected a text" : "expected token ids");
        const wrong = typeof item === "string" ? -1 : (item as unknown[]).findIndex((id) => !isTokenId(id));
        if (wrong >= 0) return refuse([i, wrong], "expected a token id");
      }
    })
    .meta({
      anyOf: [
        { type: "string" },
        { type: "array", items: { type: "string" }, minItems: 1, maxItems: most },
        { type: "array", items: { type: "integer" }, minItems: 1 },
        { type: "array", items: { type: "array", items: { type: "integer" }, minItems: 1 }, maxItems: most },
      ],
    }) as unknown as z.ZodType<string | string[] | number[] | number[][]>;

export function completionRequest(limits: Limits) {
  return z.strictObject({
    ...samplingFields(limits),
    ...guideFields,
    ...streamFields,
    prompt: texts(limits.n).describe(
      "Taken as it is, no chat template: a text, token ids, or several of either.",
    ),
    max_tokens: optional(whole(0, 2 ** 31 - 1)).describe("Default: what the context holds."),
    n: optional(whole(1, limits.n)),
    stop,
    logprobs: optional(whole(0, limits.topLogprobs)),
    echo: optional(only(false)),
  });
}

const responseText = z.union([
  z.string(),
  list(
    z.discriminatedUnion("type", [
      z.strictObject({ type: z.literal("input_text"), text: z.string() }),
      z.strictObject({
        type: z.literal("output_text"),
        text: z.string(),
        annotations: optional(z.array(z.unknown()).max(0)),
        logprobs: optional(z.array(z.unknown())),
      }),
    ]),
    0,
    maxParts,
    "parts",
  ),
]);

export function responsesRequest(limits: Limits) {
  const item = z.union([
    z.strictObject({
      type: optional(z.literal("message")),
      role: z.enum(["system", "developer", "user", "assistant"]),
      content: responseText,
      id: optional(z.string()),
      status: optional(z.string()),
    }),
    z.strictObject({
      type: z.literal("function_call"),
      call_id: z.string().max(128),
      name: z.string().max(64),
      arguments: z.string(),
      id: optional(z.string()),
      status: optional(z.string()),
    }),
    z.strictObject({
      type: z.literal("function_call_output"),
      call_id: z.string().max(128),
      output: z.string(),
      id: optional(z.string()),
      status: optional(z.string()),
    }),
  ]);
  const { logit_bias: _, ...sampling } = samplingFields(limits);
  return z.strictObject({
    ...sampling,
    ...guideFields,
    input: z.union([z.string(), list(item, 1, limits.messages, "items")]),
    instructions: optional(z.string()),
    max_output_tokens: optional(whole(0, 2 ** 31 - 1)),
    stream: optional(z.boolean()),
    text: optional(
      z.strictObject({
        format: optional(
          z.discriminatedUnion("type", [
            z.strictObject({ type: z.literal("text") }),
            z.strictObject({ type: z.literal("json_object") }),
            z.strictObject({
              type: z.literal("json_schema"),
              name: functionName,
              description: optional(z.string()),
              schema: jsonSchema,
              strict: optional(z.boolean()),
            }),
          ]),
        ),
      }),
    ),
    tools: optional(
      list(
        z.strictObject({
          type: z.literal("function"),
          name: functionName,
          description: optional(z.string()),
          parameters: optional(jsonObject(limits.schema)),
          strict: optional(z.boolean()),
        }),
        0,
        limits.tools,
        "tools",
      ),
    ),
    tool_choice: optional(
      z.union([
        z.enum(["none", "auto", "required"]),
        z.strictObject({ type: z.literal("function"), name: functionName }),
      ]),
    ),
    parallel_tool_calls: optional(z.boolean()),
    truncation: optional(only("disabled")),
    store: optional(only(false)).describe("Nothing is stored: send the whole conversation."),
    metadata: optional(record(z.string().max(64), z.string().max(512), 16)),
  });
}

export function embeddingsRequest(limits: Limits) {
  return z.strictObject({
    model: optional(z.string().max(256)),
    input: texts(limits.inputs),
    encoding_format: optional(z.enum(["float", "base64"])),
    user: optional(z.string().max(256)),
    outrider: optional(
      z.strictObject({
        pooling: optional(z.enum(["mean", "last"])).describe("Of the final hidden states; default mean."),
      }),
    ),
  });
}

export const tokenizeRequest = z.strictObject({
  model: optional(z.string().max(256)),
  content: z.string(),
  add_special: optional(z.boolean()).describe("Begin as the model's prompts do; default false."),
  parse_special: optional(z.boolean()).describe(
    "Control tokens that are written out become those; default true.",
  ),
  with_pieces: optional(z.boolean()),
});

export const detokenizeRequest = z.strictObject({
  model: optional(z.string().max(256)),
  tokens: tokenIds,
});

export type ChatRequest = z.infer<ReturnType<typeof chatRequest>>;
export type CompletionRequest = z.infer<ReturnType<typeof completionRequest>>;
export type ResponsesRequest = z.infer<ReturnType<typeof responsesRequest>>;
export type EmbeddingsRequest = z.infer<ReturnType<typeof embeddingsRequest>>;
export type SamplingRequest = Pick<ChatRequest, keyof ReturnType<typeof samplingFields>>;
export type GuideRequest = Pick<ChatRequest, keyof typeof guideFields>;
