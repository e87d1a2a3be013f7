import { randomInt } from "node:crypto";
import { seedAfter } from "../api/samples.js";
import { type DecodeStats, tokensPerPass } from "../decoding/stats.js";
import { OutriderError } from "../errors.js";
import type { Request as ScheduledRequest } from "../scheduling/scheduler.js";
import { messageText } from "../text/chat-template.js";
import type { AnswerPart } from "../text/tool-calls.js";
import { type AnswerReader, readAnswer } from "./answer-reader.js";
import type { Metrics } from "./metrics.js";
import type { Lease, Models } from "./models.js";
import type { Job, JobPiece, JobResult } from "./protocol.js";
import type { SamplingRequest } from "./schemas.js";
import { takeTurn } from "./turn.js";

/** What every route that generates needs of the server. */
export interface Answering {
  readonly models: Models;
  readonly metrics: Metrics;
  readonly deadline: number;
}

/** Who asks. */
export interface Caller {
  readonly requestId: string;
  /** The name of the API key, for fairness among keys. */
  readonly key: string;
  readonly signal: AbortSignal;
}

export interface AnswerPiece {
  /** Which of the jobs. */
  readonly index: number;
  readonly piece: JobPiece;
  /** Of a conversation: what of the answer is certain now. */
  readonly parts: readonly AnswerPart[];
}

/** What a scheduler wants to know of a request. */
type Shape = Pick<ScheduledRequest, "promptLength" | "maxTokens" | "text">;

/** The model, when the request's turn has come; both are kept until `leave`. */
async function enter({ models, deadline }: Answering, caller: Caller, model: string, shape: Shape) {
  const { scheduler } = models.get(model);
  const turn = await takeTurn(scheduler, {
    ...shape,
    key: caller.key,
    deadlineMs: deadline,
    signal: caller.signal,
  });
  try {
    const lease = await until(models.lease(model), turn.signal);
    const leave = (whole: boolean) => {
      lease.release();
      turn.release(whole);
    };
    return { lease, signal: turn.signal, emitted: turn.emitted, leave };
  } catch (error) {
    turn.release(false);
    throw error;
  }
}

/** Work with a model, when the request's turn has come. */
export async function inTurn<T>(
  server: Answering,
  caller: Caller,
  model: string,
  shape: Shape,
  work: (lease: Lease, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { lease, signal, leave } = await enter(server, caller, model, shape);
  try {
    return await work(lease, signal);
  } finally {
    leave(false);
  }
}

/**
 * The pieces of all jobs as they come, then their results. The jobs run side by side when the request's turn has come;
 * leaving the loop, or the caller's signal, ends all of them within a pass.
 */
export async function* answer(
  server: Answering,
  caller: Caller,
  model: string,
  jobs: readonly Job[],
): AsyncGenerator<AnswerPiece, JobResult[], undefined> {
  const observed = server.metrics.request(model);
  let reason = "error";
  try {
    const { lease, signal, emitted, leave } = await enter(server, caller, model, {
      promptLength: jobs.reduce((sum, { prompt }) => sum + estimateTokens(prompt), 0),
      maxTokens: Math.max(...jobs.map(({ options }) => options.maxTokens ?? Number.MAX_SAFE_INTEGER)),
      text: questionOf(jobs[0]!.prompt),
    });
    try {
      observed.started();
      for (const { prompt } of jobs) checkLength(prompt, lease.info.context);
      const texts = jobs.map((job) => lease.engine.generate(job, signal));
      const readers: (AnswerReader | undefined)[] = [];
      const pieces = sideBySide(texts);
      let step = await pieces.next();
      try {
        for (; !step.done; step = await pieces.next()) {
          const { index, piece } = step.value;
          observed.piece(piece);
          const { reading } = jobs[index]!;
          readers[index] ??=
            reading && readAnswer(reading, { ...lease.info, reasoning: piece.reasoning ?? false });
          yield { index, piece, parts: readers[index]?.push(piece.text) ?? [] };
        }
      } finally {
        await pieces.return([]);
      }
      const results = step.value;
      for (const [index, reader] of readers.entries()) {
        const parts = reader?.finish() ?? [];
        if (parts.length > 0) yield { index, piece: { text: "", tokens: [] }, parts };
      }
      for (const result of results) observed.finished(result);
      emitted(results.reduce((sum, { completionTokens }) => sum + completionTokens, 0));
      reason = results[0]?.finishReason ?? "stop";
      return results;
    } catch (error) {
      throw blamed(error, jobs[0]?.guideField);
    } finally {
      leave(reason !== "error");
    }
  } finally {
    observed.ended(caller.signal.aborted ? "abort" : reason);
  }
}

/** What is wrong with a guide is said of the field that it came in. */
function blamed(error: unknown, field: string | undefined): unknown {
  if (field === undefined || !(error instanceof OutriderError) || error.code !== "ERR_GRAMMAR") return error;
  return new OutriderError(error.code, error.message, { param: field, cause: error });
}

/** Takes from whichever has something; ends all when one fails or the consumer leaves. */
async function* sideBySide(
  texts: readonly AsyncGenerator<JobPiece, JobResult, undefined>[],
): AsyncGenerator<{ index: number; piece: JobPiece }, JobResult[], undefined> {
  const results: JobResult[] = [];
  const next = (index: number) => texts[index]!.next().then((step) => ({ index, step }));
  const pending = new Map(texts.map((_, index) => [index, next(index)]));
  try {
    while (pending.size > 0) {
      const { index, step } = await Promise.race(pending.values());
      if (step.done) {
        results[index] = step.value;
        pending.delete(index);
      } else {
        yield { index, piece: step.value };
        pending.set(index, next(index));
      }
    }
    return results;
  } finally {
    for (const promise of pending.values()) promise.catch(() => undefined);
    for (const index of pending.keys()) void texts[index]!.return(undefined as never).catch(() => undefined);
  }
}

/** `promise`, unless the signal comes first. */
function until<T extends { release(): void }>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason);
      promise.then((value) => value.release()).catch(() => undefined);
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** Far too many ids need not go to the model's process to be refused. */
function checkLength(prompt: Job["prompt"], context: number): void {
  if (!("tokens" in prompt) || prompt.tokens.length <= context) return;
  throw new OutriderError(
    "ERR_CONTEXT",
    `the prompt has ${prompt.tokens.length} tokens, the context holds ${context}`,
    { param: "prompt", details: { n_prompt_tokens: prompt.tokens.length, n_ctx: context } },
  );
}

/** What a prediction of the answer's length may go by. */
function questionOf(prompt: Job["prompt"]): string | undefined {
  if ("messages" in prompt) return prompt.messages.slice(-1).map(messageText).join("");
  return "text" in prompt ? prompt.text.slice(-2000) : undefined;
}

/** Four characters a token is near enough to put requests in order. */
function estimateTokens(prompt: Job["prompt"]): number {
  if ("tokens" in prompt) return prompt.tokens.length;
  if ("text" in prompt) return Math.ceil(prompt.text.length / 4);
  return Math.ceil(prompt.messages.reduce((sum, message) => sum + messageText(message).length, 0) / 4);
}

/** The library's options for a request; answers to one request differ by their seeds. */
export function jobOptions(body: SamplingRequest): Job["options"] {
  const biases = Object.entries(body.logit_bias ?? {}).map(([id, bias]) => [Number(id), bias] as const);
  return {
    temperature: body.temperature ?? 1,
    topP: body.top_p ?? undefined,
    topK: body.top_k ?? undefined,
    minP: body.min_p ?? undefined,
    repetitionPenalty: body.repetition_penalty ?? undefined,
    presencePenalty: body.presence_penalty ?? undefined,
    frequencyPenalty: body.frequency_penalty ?? undefined,
    logitBias: biases.length > 0 ? new Map(biases) : undefined,
    seed: body.seed ?? randomInt(2 ** 48 - 1),
    ignoreEnd: body.ignore_eos ?? undefined,
    strategy: body.outrider?.strategy ?? undefined,
    draftLength: body.outrider?.draft_length ?? undefined,
    trace: body.outrider?.trace ?? undefined,
  };
}

/** Seeds of the answers to one request. */
export function withSeed(options: Job["options"], sample: number): Job["options"] {
  return { ...options, seed: seedAfter(options.seed!, sample) };
}

export function usage(results: readonly JobResult[], prompts = 1) {
  // The answers to one prompt share it.
  const perPrompt = results.length / prompts;
  const first = results.filter((_, i) => i % perPrompt === 0);
  const sum = (of: readonly JobResult[], field: "promptTokens" | "completionTokens" | "cachedTokens") =>
    of.reduce((total, result) => total + result[field], 0);
  const promptTokens = sum(first, "promptTokens");
  const completionTokens = sum(results, "completionTokens");
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: sum(first, "cachedTokens") },
  };
}

function total(results: readonly JobResult[]): DecodeStats {
  const sum = (
    field: { [K in keyof DecodeStats]: DecodeStats[K] extends number ? K : never }[keyof DecodeStats],
  ) => results.reduce((all, { stats }) => all + stats[field], 0);
  const byPosition = (field: "draftedByPosition" | "acceptedByPosition") => {
    const length = Math.max(...results.map(({ stats }) => stats[field].length));
    return Array.from({ length }, (_, i) =>
      results.reduce((all, { stats }) => all + (stats[field][i] ?? 0), 0),
    );
  };
  return {
    ...results[0]!.stats,
    passes: sum("passes"),
    tokens: sum("tokens"),
    drafted: sum("drafted"),
    accepted: sum("accepted"),
    padded: sum("padded"),
    draftedByPosition: byPosition("draftedByPosition"),
    acceptedByPosition: byPosition("acceptedByPosition"),
    prefillMs: sum("prefillMs"),
    decodeMs: sum("decodeMs"),
    coreMs: sum("coreMs"),
    draftMs: sum("draftMs"),
  };
}

/** llama.cpp's server says it so. */
export function timings(results: readonly JobResult[]) {
  const stats = total(results);
  const cached = results.reduce((all, { cachedTokens }) => all + cachedTokens, 0);
  const prompt = results.reduce((all, { promptTokens }) => all + promptTokens, 0) - cached;
  const per = (ms: number, n: number) => (n === 0 ? 0 : ms / n);
  const perSecond = (ms: number, n: number) => (ms === 0 ? 0 : (1000 * n) / ms);
  return {
    cache_n: cached,
    prompt_n: prompt,
    prompt_ms: stats.prefillMs,
    prompt_per_token_ms: per(stats.prefillMs, prompt),
    prompt_per_second: perSecond(stats.prefillMs, prompt),
    predicted_n: stats.tokens,
    predicted_ms: stats.decodeMs,
    predicted_per_token_ms: per(stats.decodeMs, stats.tokens),
    predicted_per_second: perSecond(stats.decodeMs, stats.tokens),
    ...(stats.drafted > 0 ? { draft_n: stats.drafted, draft_n_accepted: stats.accepted } : undefined),
  };
}

/** What the extension field tells of an answer. */
export function outriderStats(results: readonly JobResult[]) {
  const stats = total(results);
  return {
    strategy: results[0]!.strategy,
    seed: results[0]!.seed,
    passes: stats.passes,
    drafted: stats.drafted,
    accepted: stats.accepted,
    tokens_per_pass: tokensPerPass(stats),
    drafted_per_position: stats.draftedByPosition,
    accepted_per_position: stats.acceptedByPosition,
    cached_tokens: results.reduce((all, { cachedTokens }) => all + cachedTokens, 0),
  };
}
