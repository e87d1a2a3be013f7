import { OutriderError } from "../errors.js";

/** How the next token is drawn from the logits, every field given. `resolveSampling` makes one from what a user said. */
export interface Sampling {
  /** 0: the most likely token, ties to the lowest id. */
  readonly temperature: number;
  /** Keep the k most likely tokens; 0: all. */
  readonly topK: number;
  /** Keep the smallest set of most likely tokens whose probabilities add up to topP. */
  readonly topP: number;
  /** Keep tokens with at least minP times the probability of the most likely one. */
  readonly minP: number;
  /** Divides positive and multiplies negative logits of tokens seen before, prompt included; 1: none. */
  readonly repetitionPenalty: number;
  /** Subtracted once from the logit of every token seen in the output. */
  readonly presencePenalty: number;
  /** Subtracted from a token's logit for each time it was seen in the output. */
  readonly frequencyPenalty: number;
  /** Added to the logits of these token ids. */
  readonly logitBias: ReadonlyMap<number, number>;
  /** With the position and the token id it fixes every draw. */
  readonly seed: number;
  /** A point from 0 to below 1 that draws instead of noise: arithmetic sampling (Vilnis et al. 2023). */
  readonly code?: number | undefined;
  /** Tokens at positions below this are prompt: presence and frequency penalties do not count them. */
  readonly promptLength: number;
}

/** Where arithmetic sampling stands before a token: `native/src/sample.h` says what the numbers mean. */
export interface Code {
  readonly point: number;
  readonly resolution: number;
}

/** The code of a text's first token; a double has 53 binary digits. */
export function firstCode({ code }: Sampling): Code | undefined {
  return code === undefined ? undefined : { point: code, resolution: Number.EPSILON / 2 };
}

/** The code of the token after the one that a row drew; `codes`: [rows × 2] of a step's result. */
export function nextCode(codes: Float64Array | undefined, row: number): Code | undefined {
  return codes && { point: codes[2 * row]!, resolution: codes[2 * row + 1]! };
}

/** What a user may say about sampling; everything has a default. */
export interface SamplingOptions {
  /** 0 (default): always the most likely token; else 0.001 to 100. */
  readonly temperature?: number | undefined;
  /** 0 (default): all tokens. */
  readonly topK?: number | undefined;
  /** More than 0, at most 1 (default). */
  readonly topP?: number | undefined;
  /** 0 (default) to 1. */
  readonly minP?: number | undefined;
  /** 0.01 to 100, default 1. */
  readonly repetitionPenalty?: number | undefined;
  /** −100 to 100, default 0. */
  readonly presencePenalty?: number | undefined;
  /** −100 to 100, default 0. */
  readonly frequencyPenalty?: number | undefined;
  /** Token id → −100 to 100 (−100 in effect forbids), at most 1,024 entries. */
  readonly logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number> | undefined;
  /** 0 (default) to 2^53 − 1. */
  readonly seed?: number | undefined;
  /**
   * 0 to below 1: the text whose part of the unit interval holds this point, all texts side by side in the order of
   * their tokens, each as wide as it is probable (arithmetic sampling). Default: a text drawn by the seed.
   */
  readonly code?: number | undefined;
}

const maxBiases = 1024;

/** Checks what a user said and fills in the rest. Values out of range are `ERR_BAD_REQUEST`, never clamped. */
export function resolveSampling(options: SamplingOptions, vocab: number, promptLength: number): Sampling {
  const temperature = inRange("temperature", options.temperature ?? 0, 0, 100);
  if (temperature > 0 && temperature < 0.001)
    refuse("temperature", temperature, "0 (greedy) or 0.001 to 100");
  const topP = inRange("topP", options.topP ?? 1, 0, 1);
  if (topP === 0) refuse("topP", topP, "more than 0, at most 1");
  return {
    temperature,
    topK: whole("topK", options.topK ?? 0, 0, 2 ** 31 - 1),
    topP,
    minP: inRange("minP", options.minP ?? 0, 0, 1),
    repetitionPenalty: inRange("repetitionPenalty", options.repetitionPenalty ?? 1, 0.01, 100),
    presencePenalty: inRange("presencePenalty", options.presencePenalty ?? 0, -100, 100),
    frequencyPenalty: inRange("frequencyPenalty", options.frequencyPenalty ?? 0, -100, 100),
    logitBias: resolveBias(options.logitBias, vocab),
    seed: whole("seed", options.seed ?? 0, 0, Number.MAX_SAFE_INTEGER),
    code: options.code === undefined ? undefined : resolveCode(options.code),
    promptLength,
  };
}

function resolveCode(code: number): number {
  inRange("code", code, 0, 1);
  if (code === 1) refuse("code", code, "0 to below 1");
  return code;
}

function resolveBias(bias: SamplingOptions["logitBias"], vocab: number): ReadonlyMap<number, number> {
  const entries =
    bias instanceof Map
      ? [...bias]
      : Object.entries(bias ?? {}).map(([id, value]) => [Number(id), value] as const);
  if (entries.length > maxBiases) refuse("logitBias", entries.length, `at most ${maxBiases} entries`);
  for (const [id, value] of entries) {
    if (!Number.isInteger(id) || id < 0 || id >= vocab)
      refuse("logitBias", id, `token ids from 0 to ${vocab - 1}`);
    inRange(`logitBias[${id}]`, value, -100, 100);
  }
  return new Map(entries);
}

function inRange(name: string, value: number, least: number, most: number): number {
  if (typeof value !== "number" || !(value >= least && value <= most))
    refuse(name, value, `${least} to ${most}`);
  return value;
}

function whole(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value)) refuse(name, value, `a whole number from ${least} to ${most}`);
  return inRange(name, value, least, most);
}

function refuse(name: string, value: unknown, expected: string): never {
  throw new OutriderError(
    "ERR_BAD_REQUEST",
    `${name} is ${String(value).slice(0, 80)}, expected ${expected}`,
    {
      param: name,
    },
  );
}

/** A change to one logit before the draw: l > 0 ? l / repetition : l * repetition, then + add. */
export interface Adjustment {
  repetition: number;
  add: number;
}

/** Whether the draws depend on what was written before, or on a bias. */
export function adjusts(s: Sampling): boolean {
  return (
    s.repetitionPenalty !== 1 || s.presencePenalty !== 0 || s.frequencyPenalty !== 0 || s.logitBias.size > 0
  );
}

/** The changes for the token that follows `history` (prompt included). */
export function adjustments(s: Sampling, history: readonly number[]): Map<number, Adjustment> {
  const changes = new Map<number, Adjustment>();
  const of = (token: number): Adjustment => {
    let change = changes.get(token);
    if (!change) {
      change = { repetition: 1, add: 0 };
      changes.set(token, change);
    }
    return change;
  };
  for (const [token, bias] of s.logitBias) of(token).add += bias;
  if (s.repetitionPenalty !== 1) for (const token of history) of(token).repetition = s.repetitionPenalty;
  if (s.presencePenalty !== 0 || s.frequencyPenalty !== 0) {
    const counts = new Map<number, number>();
    for (let i = s.promptLength; i < history.length; i++)
      counts.set(history[i]!, (counts.get(history[i]!) ?? 0) + 1);
    for (const [token, count] of counts) of(token).add -= s.presencePenalty + count * s.frequencyPenalty;
  }
  return changes;
}
