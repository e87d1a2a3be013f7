import { z } from "zod";
import { rejectUnknownKeys } from "../api/options.js";
import { OutriderError } from "../errors.js";
import { type ChatMessage, checkMessages } from "../text/chat-template.js";
import { toOpenAi } from "./messages.js";

/** One user message, or a conversation. */
export type UpstreamPrompt = string | readonly ChatMessage[];

/** As those of `generate`; ranges are the engine's to check, and what it does not know it may refuse or ignore. */
export interface UpstreamOptions {
  readonly system?: string;
  /** Default: what the engine allows. */
  readonly maxTokens?: number;
  /** Default 0. */
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  /** Default 0. */
  readonly seed?: number;
  readonly stop?: string | readonly string[];
  /** Asks for log-probabilities. */
  readonly logprobs?: boolean;
  /** More fields of the request, by the engine's own names; they replace what options say. */
  readonly extra?: Readonly<Record<string, unknown>>;
  readonly signal?: AbortSignal;
}

/** Names of the options, and of the fields that they become. */
const fields = {
  maxTokens: "max_tokens",
  topP: "top_p",
  topK: "top_k",
  minP: "min_p",
  repetitionPenalty: "repetition_penalty",
  presencePenalty: "presence_penalty",
  frequencyPenalty: "frequency_penalty",
  stop: "stop",
} as const;

const known = [...Object.keys(fields), "system", "temperature", "seed", "logprobs", "extra", "signal"];

export interface Usage {
  /** Of all requests; a prompt that was sent several times counts as often. */
  readonly promptTokens: number;
  /** Of these, what the engine had in its cache. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

export function sumOf(usages: readonly Usage[]): Usage {
  const sum = (key: keyof Usage) => usages.reduce((total, usage) => total + usage[key], 0);
  return {
    promptTokens: sum("promptTokens"),
    cachedTokens: sum("cachedTokens"),
    completionTokens: sum("completionTokens"),
  };
}

/** Checks what a caller gave, `own` naming the options that are not the request's. */
export function checkRequest(
  what: string,
  prompt: UpstreamPrompt,
  options: UpstreamOptions,
  own: readonly string[] = [],
): void {
  rejectUnknownKeys(what, options, [...own, ...known]);
  checkMessages(messagesOf(prompt, options.system));
}

export function messagesOf(prompt: UpstreamPrompt, system?: string): readonly ChatMessage[] {
  const messages: readonly ChatMessage[] =
    typeof prompt === "string" ? [{ role: "user", content: prompt }] : prompt;
  return system === undefined || !Array.isArray(messages)
    ? messages
    : [{ role: "system", content: system }, ...messages];
}

/** The body of POST /v1/chat/completions for `n` answers. */
export function bodyOf(
  model: string,
  prompt: UpstreamPrompt,
  options: UpstreamOptions,
  n: number,
): Record<string, unknown> {
  const body: Record<string, unknown> = {
    model,
    messages: messagesOf(prompt, options.system).map(toOpenAi),
    stream: true,
    stream_options: { include_usage: true },
    temperature: options.temperature ?? 0,
    seed: options.seed ?? 0,
  };
  for (const [option, field] of Object.entries(fields))
    if (options[option as keyof typeof fields] !== undefined)
      body[field] = options[option as keyof typeof fields];
  if (options.logprobs) body.logprobs = true;
  if (n > 1) body.n = n;
  return { ...body, ...options.extra };
}

/** What an event adds to one of the answers. */
export interface Added {
  readonly index: number;
  readonly text: string;
  readonly logprobs: readonly number[];
  /** With the last of an answer. */
  readonly finishReason?: "stop" | "length";
}

const count = z.number().nonnegative().nullish();
const eventSchema = z.object({
  choices: z
    .array(
      z.object({
        index: z.int().nonnegative(),
        delta: z.object({ content: z.string().nullish() }).nullish(),
        logprobs: z.object({ content: z.array(z.object({ logprob: z.number() })).nullish() }).nullish(),
        finish_reason: z.string().nullish(),
      }),
    )
    .default([]),
  usage: z
    .object({
      prompt_tokens: count,
      completion_tokens: count,
      prompt_tokens_details: z.object({ cached_tokens: count }).nullish(),
    })
    .nullish(),
});

/** What an event of a stream of `n` answers says; `ERR_UPSTREAM` for one that is not of this API. */
export function readEvent(event: unknown, n: number): { added: Added[]; usage?: Usage } {
  const { success, data, error } = eventSchema.safeParse(event);
  const stray = data?.choices.find(({ index }) => index >= n);
  if (!success || stray) {
    const issue = error?.issues[0];
    const wrong = issue ? `${issue.path.join(".")}: ${issue.message}` : `answer ${stray?.index} of ${n}`;
    throw new OutriderError("ERR_UPSTREAM", `the server sent an event that is not OpenAI's: ${wrong}`);
  }
  const { choices, usage } = data;
  return {
    added: choices.map(({ index, delta, logprobs, finish_reason: reason }) => ({
      index,
      text: delta?.content ?? "",
      logprobs: logprobs?.content?.map(({ logprob }) => logprob) ?? [],
      ...(reason && { finishReason: reason === "length" ? "length" : "stop" }),
    })),
    ...(usage && {
      usage: {
        promptTokens: usage.prompt_tokens ?? 0,
        cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
        completionTokens: usage.completion_tokens ?? 0,
      },
    }),
  };
}
