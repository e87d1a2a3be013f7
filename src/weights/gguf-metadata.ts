/** The metadata of a GGUF file: what its values are, and how they are read. */
import { isUtf8 } from "node:buffer";
import { quote } from "../errors.js";
import type { Cursor } from "./gguf-cursor.js";

/** Integers of 64 bits are numbers where exact (up to ±2^53), else bigints. Arrays of booleans or arrays are nested. */
export type MetadataValue =
  | number
  | bigint
  | boolean
  | string
  | string[]
  | MetadataArray
  | readonly MetadataValue[];

export type MetadataArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | BigUint64Array
  | BigInt64Array
  | Float64Array;

const UINT32 = 4;
const BOOL = 7;
const STRING = 8;
const ARRAY = 9;
const MAX_ARRAY_DEPTH = 8;
const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 65_536;

/** Element types that become one typed array; the file is little-endian like every machine that Node runs on. */
const numberArrays: Readonly<
  Record<number, { readonly bytes: number; of(buffer: ArrayBuffer): MetadataArray } | undefined>
> = {
  0: { bytes: 1, of: (b) => new Uint8Array(b) },
  1: { bytes: 1, of: (b) => new Int8Array(b) },
  2: { bytes: 2, of: (b) => new Uint16Array(b) },
  3: { bytes: 2, of: (b) => new Int16Array(b) },
  4: { bytes: 4, of: (b) => new Uint32Array(b) },
  5: { bytes: 4, of: (b) => new Int32Array(b) },
  6: { bytes: 4, of: (b) => new Float32Array(b) },
  10: { bytes: 8, of: (b) => new BigUint64Array(b) },
  11: { bytes: 8, of: (b) => new BigInt64Array(b) },
  12: { bytes: 8, of: (b) => new Float64Array(b) },
};

export interface Metadata {
  readonly values: ReadonlyMap<string, MetadataValue>;
  /** `general.alignment`: the data of every tensor begin at a multiple of it. */
  readonly alignment: number;
}

/** Reads `count` keys with their values. */
export function readMetadata(cursor: Cursor, count: number): Metadata {
  const values = new Map<string, MetadataValue | StringArray>();
  let alignment = DEFAULT_ALIGNMENT;
  for (let i = 0; i < count; i++) {
    const start = cursor.at;
    cursor.where = `metadata key ${i + 1} of ${count}`;
    const key = cursor.name();
    cursor.where = `key ${quote(key)}`;
    if (values.has(key)) cursor.fail("ERR_MODEL_FORMAT", start, "it appears twice");
    const typeAt = cursor.at;
    const type = cursor.u32();
    const value = readValue(cursor, type, typeAt);
    values.set(key, value);
    if (key === "general.alignment") alignment = checkAlignment(cursor, type, typeAt, value);
  }
  return { values: new LazyMap(values), alignment };
}

function readValue(cursor: Cursor, type: number, typeAt: number): MetadataValue | StringArray {
  const view = cursor.view;
  switch (type) {
    case 0:
      return view.getUint8(cursor.take(1));
    case 1:
      return view.getInt8(cursor.take(1));
    case 2:
      return view.getUint16(cursor.take(2), true);
    case 3:
      return view.getInt16(cursor.take(2), true);
    case UINT32:
      return cursor.u32();
    case 5:
      return view.getInt32(cursor.take(4), true);
    case 6:
      return view.getFloat32(cursor.take(4), true);
    case BOOL:
      return cursor.boolean();
    case STRING:
      return cursor.string();
    case ARRAY:
      return readArray(cursor, 1);
    case 10:
      return exact(view.getBigUint64(cursor.take(8), true));
    case 11:
      return exact(view.getBigInt64(cursor.take(8), true));
    case 12:
      return view.getFloat64(cursor.take(8), true);
    default:
      return cursor.fail("ERR_MODEL_FORMAT", typeAt, `unknown value type ${type} (known: 0 to 12)`);
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function readArray(cursor: Cursor, depth: number): MetadataValue | StringArray {
  const start = cursor.at;
  if (depth > MAX_ARRAY_DEPTH) {
    cursor.fail("ERR_MODEL_FORMAT", start, `arrays are nested more than ${MAX_ARRAY_DEPTH} deep`);
  }
  const type = cursor.u32();
  const count = cursor.u64();
  const numbers = numberArrays[type];
  if (numbers !== undefined) {
    cursor.elements(start, count, numbers.bytes, numbers.bytes);
    // A copy: the header's own bytes are dropped after parsing, and these may stand at any address.
    const copy = new Uint8Array(count * numbers.bytes);
    const at = cursor.take(copy.length);
    copy.set(cursor.bytes.subarray(at, cursor.at));
    return numbers.of(copy.buffer);
  }
  if (type === STRING) {
    return new StringArray(cursor, cursor.strings(start, count), count);
  }
  if (type === BOOL) {
    cursor.elements(start, count, 1, 8);
    return Array.from({ length: count }, () => cursor.boolean());
  }
  if (type === ARRAY) {
    cursor.elements(start, count, 12, 8);
    return Array.from({ length: count }, () => {
      const element = readArray(cursor, depth + 1);
      return element instanceof StringArray ? element.decode() : element;
    });
  }
  return cursor.fail("ERR_MODEL_FORMAT", start, `unknown type ${type} of array elements (known: 0 to 12)`);
}

function checkAlignment(
  cursor: Cursor,
  type: number,
  at: number,
  value: MetadataValue | StringArray,
): number {
  if (type !== UINT32 || typeof value !== "number") {
    return cursor.fail("ERR_MODEL_FORMAT", at, `its value type is ${type}, expected ${UINT32} (uint32)`);
  }
  if (value < 1 || value > MAX_ALIGNMENT || (value & (value - 1)) !== 0) {
    return cursor.fail("ERR_MODEL_FORMAT", at, `${value} is not a power of two from 1 to ${MAX_ALIGNMENT}`);
  }
  return value;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
// No character of it occurs twice, so two of them cannot overlap: n + 1 parts mean that all n were put there by us.
const SEPARATOR = Buffer.from("\n\x1f\x1e\x1d\x1c\x1b\x1a\x19");
const separatorLow = SEPARATOR.readUInt32LE(0);
const separatorHigh = SEPARATOR.readUInt32LE(4);

/**
 * An array of strings as in the file, each behind its length of 8 bytes: checked, not decoded. Lazy because 98 000
 * strings (the vocabulary and merges of a small model) take 20 ms to make, most of it in the garbage collector, and
 * the weights can be on their way meanwhile.
 */
class StringArray {
  readonly #bytes: Uint8Array;
  readonly #count: number;

  /** `bytes` is borrowed. */
  constructor(cursor: Cursor, bytes: Uint8Array, count: number) {
    this.#bytes = new Uint8Array(bytes);
    this.#count = count;
    // ASCII between two strings: the whole is valid if and only if every string is.
    if (isUtf8(this.#separated())) return;
    let index = 0;
    for (const string of this.#each()) {
      if (!isUtf8(string)) {
        const at = cursor.at - bytes.length + (string.byteOffset - this.#bytes.byteOffset);
        cursor.fail("ERR_MODEL_FORMAT", at, `element ${index} is not valid UTF-8`);
      }
      index++;
    }
  }

  /** All at once and cut by the engine: 60 % of the time of one call of the decoder for each string. */
  decode(): string[] {
    const strings = utf8.decode(this.#separated()).split(SEPARATOR.toString());
    strings.shift();
    if (strings.length === this.#count) return strings;
    return Array.from(this.#each(), (string) => utf8.decode(string));
  }

  /** A copy with a separator in the place of each length. */
  #separated(): Uint8Array {
    const copy = new Uint8Array(this.#bytes);
    const view = new DataView(copy.buffer);
    for (let at = 0; at < copy.length; ) {
      const length = view.getUint32(at, true);
      view.setUint32(at, separatorLow, true);
      view.setUint32(at + 4, separatorHigh, true);
      at += 8 + length;
    }
    return copy;
  }

  *#each(): Generator<Uint8Array, void, undefined> {
    const view = new DataView(this.#bytes.buffer);
    for (let at = 0; at < this.#bytes.length; ) {
      const end = at + 8 + view.getUint32(at, true);
      yield this.#bytes.subarray(at + 8, end);
      at = end;
    }
  }
}

/** The values by key; an array of strings is decoded when it is first asked for, and then kept. */
class LazyMap implements ReadonlyMap<string, MetadataValue> {
  readonly #values: Map<string, MetadataValue | StringArray>;

  constructor(values: Map<string, MetadataValue | StringArray>) {
    this.#values = values;
  }

  get size(): number {
    return this.#values.size;
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  get(key: string): MetadataValue | undefined {
    const value = this.#values.get(key);
    if (!(value instanceof StringArray)) return value;
    const strings = value.decode();
    this.#values.set(key, strings);
    return strings;
  }

  keys(): MapIterator<string> {
    return this.#values.keys();
  }

  *values(): Generator<MetadataValue, undefined, unknown> {
    for (const key of this.#values.keys()) yield this.get(key)!;
  }

  *entries(): Generator<[string, MetadataValue], undefined, unknown> {
    for (const key of this.#values.keys()) yield [key, this.get(key)!];
  }

  [Symbol.iterator](): Generator<[string, MetadataValue], undefined, unknown> {
    return this.entries();
  }

  forEach(visit: (value: MetadataValue, key: string, map: ReadonlyMap<string, MetadataValue>) => void): void {
    for (const [key, value] of this) visit(value, key, this);
  }
}
