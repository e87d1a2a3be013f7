import { OutriderError, quote } from "../errors.js";
import type { MetadataValue } from "../weights/gguf.js";

/** Typed access to a file's metadata under its architecture's prefix; errors name the file and the key. */
export class Metadata {
  readonly #values: ReadonlyMap<string, MetadataValue>;

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

  text(key: string, fallback: string): string {
    const value = this.#values.get(this.#name(key)) ?? fallback;
    if (typeof value === "string") return value;
    throw this.error(key, "is not a string");
  }

  /** Elements of an array, e.g. of the vocabulary; undefined where there is none. */
  arrayLength(fullKey: string): number | undefined {
    const value = this.#values.get(fullKey);
    return value !== null && typeof value === "object" ? value.length : undefined;
  }

  error(key: string, what: string, code: "ERR_MODEL_FORMAT" | "ERR_MODEL_UNSUPPORTED" = "ERR_MODEL_FORMAT") {
    return new OutriderError(code, `${this.file}: ${quote(this.#name(key)).slice(1, -1)} ${what}`);
  }

  #name(key: string): string {
    return `${this.prefix}.${key}`;
  }

  #number(key: string, fallback: number | undefined): number {
    const value = this.#values.get(this.#name(key)) ?? fallback;
    if (value === undefined) throw this.error(key, "is missing");
    if (typeof value === "number" || typeof value === "bigint") return Number(value);
    throw this.error(key, "is not a number");
  }
}
