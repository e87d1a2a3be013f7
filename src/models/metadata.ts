import { OutriderError, quote } from "../errors.js";
import type { MetadataValue } from "../weights/gguf.js";

/** Keys that change what a model computes, with the values that mean that nothing is changed. */
const consequential: Readonly<Record<string, readonly (number | string | boolean)[]>> = {
  "attention.sliding_window": [0],
  "attention.scale": [0],
  "attention.clamp_kqv": [0],
  "attention.max_alibi_bias": [0],
  "attention.causal": [true],
  "attention.temperature_scale": [0],
  attn_logit_softcapping: [0],
  final_logit_softcapping: [0],
  router_logit_softcapping: [0],
  embedding_scale: [0, 1],
  residual_scale: [0, 1],
  logit_scale: [0, 1],
  expert_count: [0],
  expert_shared_count: [0],
  expert_gating_func: [0],
  expert_weights_scale: [0, 1],
  expert_weights_norm: [],
  expert_group_count: [0, 1],
  leading_dense_block_count: [0],
  interleave_moe_layer_step: [0, 1],
  nextn_predict_layers: [0],
  use_parallel_residual: [false],
  swin_norm: [false],
  "rope.scaling.type": ["none"],
  "rope.dimension_sections": [],
};

/** Typed access to a file's metadata under its architecture's prefix; errors name the file and the key. */
export class Metadata {
  readonly #values: ReadonlyMap<string, MetadataValue>;
  readonly #read = new Set<string>();

  constructor(
    values: ReadonlyMap<string, MetadataValue>,
    readonly file: string,
    readonly prefix: string,
  ) {
    this.#values = values;
  }

  /** A whole number in [least, most]; without `fallback` the key must be there. */
  integer(key: string, least: number, most: number, fallback?: number): number {
    const value = this.#number(key, fallback);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw this.error(key, `is ${value}, expected a whole number from ${least} to ${most}`);
  }

  /** A finite number in [least, most]. */
  number(key: string, least: number, most: number, fallback?: number): number {
    const value = this.#number(key, fallback);
    if (value >= least && value <= most) return value;
    throw this.error(key, `is ${value}, expected ${least} to ${most}`);
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.#get(key) ?? fallback;
    if (typeof value === "boolean") return value;
    throw this.error(key, "is not true or false");
  }

  /** One of the words that are supported. */
  choice<Word extends string>(key: string, words: readonly Word[], fallback: Word): Word {
    const value = this.#get(key) ?? fallback;
    if (typeof value !== "string") throw this.error(key, "is not a string");
    const word = words.find((w) => w === value);
    if (word) return word;
    throw this.error(key, `is ${quote(value)}; supported: ${words.join(", ")}`, "ERR_MODEL_UNSUPPORTED");
  }

  /**
   * Refuses a file that has something which changes what the model computes, and which its architecture has not asked
   * for: a window, a soft cap, experts.
   */
  refuseUnread(): void {
    for (const [key, neutral] of Object.entries(consequential)) {
      const value = this.#values.get(this.#name(key));
      if (value === undefined || this.#read.has(key)) continue;
      if (!neutral.some((n) => n === (typeof value === "bigint" ? Number(value) : value)))
        throw this.error(
          key,
          `is ${typeof value === "object" ? "a list" : quote(String(value))}, which architecture ${this.prefix} does not support`,
          "ERR_MODEL_UNSUPPORTED",
        );
    }
  }

  /** Elements of an array, e.g. of the vocabulary; undefined where there is none. */
  arrayLength(fullKey: string): number | undefined {
    const value = this.#values.get(fullKey);
    return value !== null && typeof value === "object" ? value.length : undefined;
  }

  error(key: string, what: string, code: "ERR_MODEL_FORMAT" | "ERR_MODEL_UNSUPPORTED" = "ERR_MODEL_FORMAT") {
    return new OutriderError(code, `${this.file}: ${quote(this.#name(key)).slice(1, -1)} ${what}`);
  }

  #get(key: string): MetadataValue | undefined {
    this.#read.add(key);
    return this.#values.get(this.#name(key));
  }

  #name(key: string): string {
    return `${this.prefix}.${key}`;
  }

  #number(key: string, fallback: number | undefined): number {
    const value = this.#get(key) ?? fallback;
    if (value === undefined) throw this.error(key, "is missing");
    if (typeof value === "number" || typeof value === "bigint") return Number(value);
    throw this.error(key, "is not a number");
  }
}
