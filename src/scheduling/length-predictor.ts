import type { Request } from "./scheduler.js";

/**
 * How long answers become, learned from those that were given. Lengths are guessed as their logarithms: errors of a
 * factor matter, not of tokens. The quick guess costs a few additions; the careful one reads the text.
 */
export class LengthPredictor {
  /** By key and by prompt length, and over all: logarithms of lengths. */
  readonly #groups = new Map<string, Moments>();
  readonly #all = new Moments(Math.log(USUAL_TOKENS), Math.log(USUAL_TOKENS) / 2);
  /** Weights of hashed words and pairs of words. */
  readonly #weights = new Float32Array(FEATURES);
  #cost = FIRST_COST;

  /** Tokens of the answer, by who asks and how long the prompt is. */
  quick(request: Request): number {
    return Math.min(request.maxTokens, Math.exp(this.#moments(request).mean));
  }

  /** Whether the answer is hardly long: nothing is to be gained by looking closer. */
  isShort(request: Request): boolean {
    const { mean, deviation } = this.#moments(request);
    return Math.min(request.maxTokens, Math.exp(mean + deviation)) <= SHORT_TOKENS;
  }

  /** Tokens by which the quick guess may well be wrong. */
  spread(request: Request): number {
    const { mean, deviation } = this.#moments(request);
    return Math.min(request.maxTokens, Math.exp(mean + deviation)) - this.quick(request);
  }

  /** Milliseconds that a careful guess takes, as measured. */
  get cost(): number {
    return this.#cost;
  }

  /** Tokens of the answer, by the words of the text too. */
  careful(request: Request): number {
    const began = performance.now();
    const features = featuresOf(request.text ?? "");
    const length = Math.exp(this.#moments(request).mean + this.#correction(features));
    this.#cost += (performance.now() - began - this.#cost) * COST_RATE;
    return Math.min(request.maxTokens, Math.max(1, length));
  }

  /** The answer had so many tokens. */
  observe(request: Request, tokens: number): void {
    const log = Math.log(Math.max(1, tokens));
    if (request.text !== undefined) this.#learn(featuresOf(request.text), log - this.#moments(request).mean);
    this.#all.add(log);
    this.#group(request).add(log);
  }

  #moments(request: Request): { mean: number; deviation: number } {
    return this.#group(request).towards(this.#all);
  }

  #group({ key, promptLength }: Request): Moments {
    const name = `${Math.round(Math.log2(1 + promptLength))} ${key}`;
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = new Moments(0, 0);
      // Keys come from outside: what is known of the oldest is worth least.
      if (this.#groups.size >= MOST_GROUPS) this.#groups.delete(this.#groups.keys().next().value!);
      this.#groups.set(name, group);
    }
    return group;
  }

  #correction(features: readonly number[]): number {
    let sum = 0;
    for (const feature of features) sum += this.#weights[feature]!;
    return sum;
  }

  /** Normalised least mean squares: the step takes away the same part of the error whatever the text's length. */
  #learn(features: readonly number[], wanted: number): void {
    const step = (LEARNING_RATE * (wanted - this.#correction(features))) / Math.max(1, features.length);
    for (const feature of features) this.#weights[feature]! += step;
  }
}

const FEATURES = 1 << 13;
const USUAL_TOKENS = 128;
/** An answer of so many tokens at most is short. */
const SHORT_TOKENS = 48;
/** Milliseconds, until it was measured. */
const FIRST_COST = 0.1;
const COST_RATE = 0.1;
const LEARNING_RATE = 0.3;
const MOST_GROUPS = 1024;
const MOST_CHARACTERS = 512;

/** Mean and deviation of what was seen lately. */
class Moments {
  #weight: number;
  #sum: number;
  #squares: number;

  /** A prior that weighs as much as one observation; `mean` 0: none. */
  constructor(mean: number, deviation: number) {
    this.#weight = mean === 0 ? 0 : 1;
    this.#sum = mean;
    this.#squares = mean === 0 ? 0 : mean * mean + deviation * deviation;
  }

  add(value: number): void {
    this.#weight = KEPT * this.#weight + 1;
    this.#sum = KEPT * this.#sum + value;
    this.#squares = KEPT * this.#squares + value * value;
  }

  /** Where little was seen, what `all` saw counts. */
  towards(all: Moments): { mean: number; deviation: number } {
    const share = STRENGTH / all.#weight;
    const weight = this.#weight + STRENGTH;
    const mean = (this.#sum + share * all.#sum) / weight;
    const squares = (this.#squares + share * all.#squares) / weight;
    return { mean, deviation: Math.sqrt(Math.max(0, squares - mean * mean)) };
  }
}

const KEPT = 0.99;
const STRENGTH = 4;

/** Hashed words and pairs of words of a text's beginning and end, where people say what they want. */
function featuresOf(text: string): number[] {
  const parts =
    text.length <= 2 * MOST_CHARACTERS
      ? [text]
      : [text.slice(0, MOST_CHARACTERS), text.slice(-MOST_CHARACTERS)];
  const features = new Set<number>();
  for (const part of parts) {
    let before = 0;
    for (const word of part.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []) {
      let hash = 0x811c9dc5;
      for (let i = 0; i < word.length; i++) hash = Math.imul(hash ^ word.charCodeAt(i), 0x01000193);
      features.add((hash >>> 7) % FEATURES);
      features.add(((Math.imul(hash, 0x9e3779b1) ^ before) >>> 7) % FEATURES);
      before = hash;
    }
  }
  return [...features];
}
