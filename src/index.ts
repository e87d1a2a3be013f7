export { ChatSession } from "./api/chat.js";
export { Generation, type GenerationResult, type Piece } from "./api/generation.js";
export {
  embeddedModel,
  type GenerateOptions,
  type LoadOptions,
  load,
  Model,
  type ModelInfo,
  type Prompt,
  type PromptOptions,
  type SampleOptions,
  type TuneOptions,
} from "./api/model.js";
export { bestOf, majorityVote, type SampleSpread, type Vote } from "./api/samples.js";
export type { ScoreOptions, ScoreResult } from "./api/score.js";
export type { TuneProgress, TuneResult } from "./api/tune.js";
export type { PassTrace } from "./decoding/decode.js";
export { acceptanceRate, type DecodeStats, tokensPerPass, tokensPerSecond } from "./decoding/stats.js";
export type { Strategy } from "./decoding/strategies.js";
export type { Pooling } from "./engine/embedder.js";
export type { SamplingOptions } from "./engine/sampling.js";
export { type ErrorCode, OutriderError } from "./errors.js";
export type { Guide } from "./guided/constraint.js";
export type { JsonSchema } from "./guided/json-schema.js";
export type { DownloadProgress } from "./hub/pull.js";
export type { InstructionSet } from "./runtime/core.js";
export type { ChatMessage, TextPart } from "./text/chat-template.js";
export {
  type AnswerOptions,
  AnswerParser,
  type AnswerPart,
  endsInReasoning,
  type ToolCall,
  type ToolCallFormat,
} from "./text/tool-calls.js";
export type { Quantization } from "./weights/quantise.js";
