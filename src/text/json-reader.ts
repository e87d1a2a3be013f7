import { OutriderError, quote } from "../errors.js";

/** A value somewhere in a JSON file, for checked access; errors are ERR_TOKENIZER and name the place. */
export class JsonReader {
  constructor(
    readonly value: unknown,
    readonly where: string,
  ) {}

  /** The value of a field; undefined if there is none. Only an object has fields. */
  field(name: string): JsonReader {
    const { value } = this;
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.wrong("an object");
    const inner = Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
    return new JsonReader(inner, `${this.where}.${name}`);
  }

  /** Whether there is nothing, or null. */
  get missing(): boolean {
    return this.value === undefined || this.value === null;
  }

  get items(): JsonReader[] {
    if (!Array.isArray(this.value)) throw this.wrong("an array");
    return this.value.map((item, i) => new JsonReader(item, `${this.where}[${i}]`));
  }

  get entries(): [string, JsonReader][] {
    const { value } = this;
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.wrong("an object");
    return Object.entries(value).map(([name, item]) => [name, new JsonReader(item, `${this.where}.${name}`)]);
  }

  get text(): string {
    if (typeof this.value !== "string") throw this.wrong("a string");
    return this.value;
  }

  get integer(): number {
    if (!Number.isSafeInteger(this.value)) throw this.wrong("an integer");
    return this.value as number;
  }

  get number(): number {
    if (!Number.isFinite(this.value)) throw this.wrong("a number");
    return this.value as number;
  }

  /** A boolean; `usual` where there is none. */
  flag(usual: boolean): boolean {
    if (this.missing) return usual;
    if (typeof this.value !== "boolean") throw this.wrong("true or false");
    return this.value;
  }

  wrong(expected: string): OutriderError {
    return this.error(`is ${describe(this.value)}, expected ${expected}`);
  }

  unsupported(what: string): OutriderError {
    return new OutriderError("ERR_MODEL_UNSUPPORTED", `${this.where}: ${what} is not supported`);
  }

  error(problem: string): OutriderError {
    return new OutriderError("ERR_TOKENIZER", `${this.where} ${problem}`);
  }
}

function describe(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (typeof value === "string") return quote(value);
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  return Array.isArray(value) ? "an array" : "an object";
}
