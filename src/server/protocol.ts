import type { GenerateOptions, LoadOptions, ModelInfo } from "../api/model.js";
import type { PassTrace } from "../decoding/decode.js";
import type { DecodeStats } from "../decoding/stats.js";
import type { Pooling } from "../engine/embedder.js";
import { type ErrorCode, OutriderError } from "../errors.js";
import type { ChatMessage } from "../text/chat-template.js";
import type { ToolCallFormat } from "../text/tool-calls.js";
import type { Reading } from "./conversation.js";

// What the server and an engine's process say to each other. Messages are cloned (serialization "advanced"), so
// typed arrays and undefined pass.

/** What an engine's process loads; from the command line alone, never from a request. */
export interface EngineSource
  extends Pick<LoadOptions, "threads" | "context" | "precise" | "quantize" | "memoryLimit" | "learn"> {
  readonly file: string;
  readonly draftModel?: string | undefined;
}

export type JobPrompt =
  | { readonly tokens: readonly number[] }
  /** Taken as it is: no chat template. */
  | { readonly text: string }
  | {
      readonly messages: readonly ChatMessage[];
      readonly tools?: readonly object[] | undefined;
      readonly variables?: Readonly<Record<string, unknown>> | undefined;
    };

export interface Job {
  readonly prompt: JobPrompt;
  readonly options: Omit<GenerateOptions, "signal" | "raw" | "system">;
  /** Give each token's bytes and log-probabilities. */
  readonly logprobs: boolean;
  /** How a conversation's answer is taken apart; undefined: it is text. */
  readonly reading?: Reading | undefined;
  /** The request's field that the guide came from; errors name it. */
  readonly guideField?: string | undefined;
}

export interface TokenLogprob {
  readonly id: number;
  /** Exactly what the token adds to the text; of a control token, its name. */
  readonly bytes: Uint8Array;
  readonly logprob: number;
}

/** A token with the best ones at its place. */
export interface ChosenLogprob extends TokenLogprob {
  readonly top: readonly TokenLogprob[];
}

/** What one pass added. */
export interface JobPiece {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly logprobs?: readonly ChosenLogprob[] | undefined;
  readonly pass?: PassTrace | undefined;
  /** Of the first piece: the prompt ended within reasoning. */
  readonly reasoning?: boolean | undefined;
}

export interface JobResult {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly finishReason: "stop" | "length" | "abort";
  readonly seed: number;
  readonly strategy: string;
  readonly stats: DecodeStats;
}

export interface EngineInfo extends ModelInfo {
  readonly hasTemplate: boolean;
  readonly toolCallFormat: ToolCallFormat;
}

/** What an engine's process can be asked beside generating. */
export interface EngineCalls {
  tokenize(request: { text: string; special: boolean; addBos: boolean }): readonly number[];
  tokenBytes(request: { tokens: readonly number[] }): readonly Uint8Array[];
  detokenize(request: { tokens: readonly number[] }): string;
  promptTokens(request: { prompt: JobPrompt }): readonly number[];
  /** The vector, and how many tokens it was made of. */
  embed(request: { input: string | readonly number[]; pooling: Pooling }): {
    vector: Float32Array;
    tokens: number;
  };
  state(request: Record<string, never>): EngineState;
}

export interface EngineState {
  /** Bytes of the process in memory. */
  readonly rss: number;
  /** [n - 1] milliseconds of a pass over n tokens, 1 to 16; empty before the first pass. */
  readonly passMs: readonly number[];
  /** Positions of the key/value cache. */
  readonly cache: { readonly positions: number; readonly used: number; readonly kept: number };
}

export type CallName = keyof EngineCalls;

export type ToEngine =
  | { type: "load"; source: EngineSource }
  | { type: "generate"; id: number; job: Job }
  /** So many more pieces may be sent. */
  | { type: "credit"; id: number; pieces: number }
  | { type: "call"; id: number; name: CallName; request: unknown }
  | { type: "abort"; id: number }
  | { type: "ping" }
  | { type: "close" };

export type FromEngine =
  | { type: "ready"; info: EngineInfo }
  | { type: "failed"; error: WireError }
  | { type: "piece"; id: number; piece: JobPiece }
  | { type: "done"; id: number; result: JobResult }
  | { type: "reply"; id: number; value: unknown }
  | { type: "error"; id: number; error: WireError }
  | { type: "pong" };

/** Pieces that may be under way without having been taken: what a client that reads slowly can keep in memory. */
export const window = 32;

export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly param?: string | undefined;
  readonly details?: Readonly<Record<string, number>> | undefined;
}

export function toWire(error: unknown): WireError {
  if (error instanceof OutriderError)
    return { code: error.code, message: error.message, param: error.param, details: error.details };
  return { code: "ERR_RUNTIME", message: error instanceof Error ? error.message : String(error) };
}

export function fromWire({ code, message, param, details }: WireError): OutriderError {
  return new OutriderError(code, message, { param, details });
}
