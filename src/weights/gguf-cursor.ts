/** Reads the header of a GGUF file step by step; every step is checked against the file's size before it is taken. */
import { type ErrorCode, OutriderError } from "../errors.js";

/** What a header may declare at most. A file that exceeds one of them is refused with ERR_MODEL_LIMIT. */
export interface GgufLimits {
  /** Memory that all metadata takes together, in bytes. */
  readonly metadataBytes: number;
  /** Bytes of one string. */
  readonly stringBytes: number;
  readonly arrayElements: number;
  readonly keys: number;
  readonly tensors: number;
  readonly dimensions: number;
}

export const defaultGgufLimits: GgufLimits = {
  metadataBytes: 256 * 2 ** 20,
  stringBytes: 16 * 2 ** 20,
  arrayElements: 16 * 2 ** 20,
  keys: 2 ** 20,
  tensors: 2 ** 20,
  dimensions: 8,
};

// Keys and names: the format allows 65535 bytes for a key and 64 for a tensor's name.
const NAME_BYTES = 65_535;
// What V8 takes for a string or an array beside its contents, rounded up: `metadataBytes` bounds memory, not file size.
const STRING_MEMORY = 40;
const ARRAY_MEMORY = 200;

/** Thrown when the header goes on behind the bytes at hand, though not behind the end of the file. */
export class EndOfBytes {
  constructor(readonly needed: number) {}
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A place in the header; every step forward is checked against the file's size first. */
export class Cursor {
  at = 0;
  /** What is being read, for messages. */
  where = "header";
  readonly view: DataView;
  #memory: number;

  constructor(
    readonly bytes: Uint8Array,
    readonly size: number,
    readonly path: string,
    private readonly limits: GgufLimits,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#memory = limits.metadataBytes;
  }

  fail(code: ErrorCode, at: number, problem: string): never {
    throw new OutriderError(code, `${this.path}: ${this.where} at byte ${at}: ${problem}`);
  }

  /** Steps over `count` bytes and returns where they begin. */
  take(count: number): number {
    const start = this.at;
    const end = start + count;
    if (end > this.bytes.length) {
      if (end > this.size) {
        this.fail(
          "ERR_MODEL_TRUNCATED",
          start,
          `${count} bytes expected, but the file ends at byte ${this.size}; was the download cut off? Get it again`,
        );
      }
      throw new EndOfBytes(end);
    }
    this.at = end;
    return start;
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  /** Rounded beyond 2^53, where no size, count or offset is valid anyway. */
  u64(): number {
    const at = this.take(8);
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 2 ** 32;
  }

  boolean(): boolean {
    const at = this.take(1);
    const value = this.bytes[at]!;
    if (value > 1) this.fail("ERR_MODEL_FORMAT", at, `a boolean is ${value}, expected 0 or 1`);
    return value === 1;
  }

  /** A metadata key or a tensor's name. */
  name(): string {
    const start = this.at;
    const name = this.string(NAME_BYTES);
    if (name === "") this.fail("ERR_MODEL_FORMAT", start, "its name is empty");
    return name;
  }

  string(limit = this.limits.stringBytes): string {
    const start = this.at;
    const length = this.#stringLength(limit);
    this.#spend(start, STRING_MEMORY + length);
    const at = this.take(length);
    try {
      return utf8.decode(this.bytes.subarray(at, at + length));
    } catch {
      return this.fail("ERR_MODEL_FORMAT", at, `${length} bytes of text are not valid UTF-8`);
    }
  }

  /** Checks the number of elements of an array that begins at `start` and charges the memory of each. */
  elements(start: number, count: number, leastBytes: number, memory: number): void {
    this.#inFile(start, "array", count, leastBytes);
    const limit = this.limits.arrayElements;
    if (count > limit) {
      this.fail("ERR_MODEL_LIMIT", start, `an array of ${count} elements, the limit is ${limit}`);
    }
    this.#spend(start, ARRAY_MEMORY + count * memory);
  }

  /** Steps over `count` strings, lengths included, and returns their bytes: borrowed, not checked as UTF-8. */
  strings(start: number, count: number): Uint8Array {
    this.elements(start, count, 8, STRING_MEMORY);
    const { bytes, view, limits } = this;
    const first = this.at;
    let at = first;
    for (let i = 0; i < count; i++) {
      const end = at + 8;
      const length = end <= bytes.length ? view.getUint32(at, true) : 0;
      if (end + length > bytes.length || view.getUint32(at + 4, true) !== 0 || length > limits.stringBytes) {
        // Step by step from here, which ends in the right error or in a request for more bytes.
        this.at = at;
        const needed = this.#stringLength(limits.stringBytes);
        this.#spend(start, at - first + needed);
        this.take(needed);
      }
      at = end + length;
    }
    this.at = at;
    this.#spend(start, at - first);
    return bytes.subarray(first, at);
  }

  #stringLength(limit: number): number {
    const start = this.at;
    const length = this.u64();
    this.#inFile(start, "string", length, 1);
    if (length > limit) {
      this.fail("ERR_MODEL_LIMIT", start, `a string of ${length} bytes, the limit is ${limit}`);
    }
    return length;
  }

  #inFile(start: number, what: string, count: number, leastBytes: number): void {
    if (count * leastBytes <= this.size - this.at) return;
    const unit = what === "string" ? "bytes" : "elements";
    this.fail(
      "ERR_MODEL_TRUNCATED",
      start,
      `the ${what} of ${count} ${unit} does not fit in what is left of the file's ${this.size} bytes`,
    );
  }

  #spend(start: number, memory: number): void {
    this.#memory -= memory;
    if (this.#memory >= 0) return;
    const limit = this.limits.metadataBytes;
    this.fail("ERR_MODEL_LIMIT", start, `all metadata up to here take more than the limit of ${limit} bytes`);
  }
}
