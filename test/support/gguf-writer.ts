/**
 * Builds GGUF files for tests and takes existing ones apart. Nothing here checks anything: a description may be as
 * wrong as a test wants it, and `fields` says where each number of the header went, so that a test can patch it.
 * Shares no code with the reader under test but the table of weight types.
 */
import { layoutById, layoutByType, type WeightType } from "../../src/weights/weight-type.js";

const valueTypes = [
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "float32",
  "bool",
  "string",
  "array",
  "uint64",
  "int64",
  "float64",
] as const;

export type ValueType = (typeof valueTypes)[number];

export interface ArrayValue {
  readonly of: ValueType;
  readonly items: readonly ItemValue[];
}

/** Raw bytes stand for a string, valid UTF-8 or not. */
export type ItemValue = number | bigint | boolean | string | Uint8Array | ArrayValue;

export interface Entry {
  readonly key: string | Uint8Array;
  readonly type: ValueType;
  readonly value: ItemValue;
}

export interface Tensor {
  readonly name: string | Uint8Array;
  readonly type: WeightType;
  readonly shape: readonly number[];
  /** Default: zeros of the right size. */
  readonly data?: Uint8Array;
}

export interface Description {
  /** Default: 3. */
  readonly version?: number;
  /** Default: 32. Where data go; what the file says about it is an entry like any other. */
  readonly alignment?: number;
  readonly metadata: readonly Entry[];
  readonly tensors: readonly Tensor[];
}

/** A number of the header: `"keys"`, `"key NAME type"`, `"tensor NAME dimension 0"` … */
export interface Field {
  readonly at: number;
  readonly bytes: 1 | 2 | 4 | 8;
}

export interface Written {
  readonly bytes: Buffer;
  readonly fields: ReadonlyMap<string, Field>;
  readonly dataOffset: number;
}

/** Writes a file. */
export function writeGguf(description: Description): Written {
  const { version = 3, alignment = 32, metadata, tensors } = description;
  const out = new Output();
  out.raw(Buffer.from("GGUF"));
  out.number("version", "uint32", version);
  out.number("tensors", "uint64", tensors.length);
  out.number("keys", "uint64", metadata.length);
  for (const { key, type, value } of metadata) {
    const label = `key ${nameOf(key)}`;
    out.string(`${label} name`, key);
    out.number(`${label} type`, "uint32", valueTypes.indexOf(type));
    out.value(label, type, value);
  }
  let offset = 0;
  const placed = tensors.map((tensor) => {
    const label = `tensor ${nameOf(tensor.name)}`;
    const layout = layoutByType.get(tensor.type)!;
    const weights = tensor.shape.reduce((a, b) => a * b, 1);
    const data = tensor.data ?? Buffer.alloc((weights / layout.blockWeights) * layout.blockBytes);
    out.string(`${label} name`, tensor.name);
    out.number(`${label} dimensions`, "uint32", tensor.shape.length);
    for (const [i, n] of tensor.shape.entries()) out.number(`${label} dimension ${i}`, "uint64", n);
    out.number(`${label} type`, "uint32", layout.id);
    out.number(`${label} offset`, "uint64", offset);
    const start = offset;
    offset = Math.ceil((offset + data.length) / alignment) * alignment;
    return { start, data };
  });
  const dataOffset = Math.ceil(out.length / alignment) * alignment;
  const last = placed.at(-1);
  const bytes = Buffer.alloc(last === undefined ? out.length : dataOffset + last.start + last.data.length);
  out.copyTo(bytes);
  for (const { start, data } of placed) bytes.set(data, dataOffset + start);
  return { bytes, fields: out.fields, dataOffset };
}

/** A copy of `bytes` with one field replaced. */
export function patch({ bytes, fields }: Written, name: string, value: number | bigint): Buffer {
  const field = fields.get(name);
  if (field === undefined) throw new Error(`no field "${name}"; there are ${[...fields.keys()].join(", ")}`);
  return patchAt(bytes, field, value);
}

export function patchAt(bytes: Uint8Array, field: Field, value: number | bigint): Buffer {
  const copy = Buffer.from(bytes);
  const bits = BigInt.asUintN(8 * field.bytes, BigInt(value));
  for (let i = 0; i < field.bytes; i++) copy[field.at + i] = Number((bits >> BigInt(8 * i)) & 0xffn);
  return copy;
}

/**
 * Takes a good file apart; `writeGguf` of the result gives the same bytes, if the file has no holes. Change what you
 * like in between: `{ ...model, tensors: model.tensors.filter(…) }`.
 */
export function describeGguf(bytes: Buffer): Description {
  let at = 4;
  const number = (type: ValueType): number | bigint => {
    const value = formats[type]!.read(bytes, at);
    at += formats[type]!.bytes;
    return value;
  };
  const string = (): string => {
    const length = Number(number("uint64"));
    at += length;
    return bytes.toString("utf8", at - length, at);
  };
  const value = (type: ValueType): ItemValue => {
    if (type === "string") return string();
    if (type === "bool") return number("uint8") !== 0;
    if (type !== "array") return number(type);
    const of = valueTypes[Number(number("uint32"))]!;
    return { of, items: Array.from({ length: Number(number("uint64")) }, () => value(of)) };
  };
  const version = Number(number("uint32"));
  const numTensors = Number(number("uint64"));
  const numKeys = Number(number("uint64"));
  const metadata = Array.from({ length: numKeys }, (): Entry => {
    const key = string();
    const type = valueTypes[Number(number("uint32"))]!;
    return { key, type, value: value(type) };
  });
  const alignment = Number(metadata.find(({ key }) => key === "general.alignment")?.value ?? 32);
  const table = Array.from({ length: numTensors }, () => {
    const name = string();
    const shape = Array.from({ length: Number(number("uint32")) }, () => Number(number("uint64")));
    const layout = layoutById.get(Number(number("uint32")))!;
    const size = (shape.reduce((a, b) => a * b, 1) / layout.blockWeights) * layout.blockBytes;
    return { name, shape, type: layout.type, size, offset: Number(number("uint64")) };
  });
  const dataOffset = Math.ceil(at / alignment) * alignment;
  const tensors = table.map(({ name, shape, type, size, offset }) => {
    const start = dataOffset + offset;
    return { name, shape, type, data: bytes.subarray(start, start + size) };
  });
  return { version, alignment, metadata, tensors };
}

/** The description with these entries in place of those with the same keys, or behind all others. */
export function withMetadata(description: Description, ...entries: readonly Entry[]): Description {
  const metadata = [...description.metadata];
  for (const entry of entries) {
    const index = metadata.findIndex(({ key }) => key === entry.key);
    metadata.splice(index === -1 ? metadata.length : index, 1, entry);
  }
  return { ...description, metadata };
}

/** A small file that has all the value types and several weight types. */
export function smallGguf(): Description {
  const data = Buffer.from(Uint8Array.from({ length: 4096 }, (_, i) => i * 31));
  return {
    metadata: [
      { key: "general.architecture", type: "string", value: "llama" },
      { key: "general.alignment", type: "uint32", value: 32 },
      { key: "a.uint8", type: "uint8", value: 200 },
      { key: "a.int8", type: "int8", value: -100 },
      { key: "a.uint16", type: "uint16", value: 60_000 },
      { key: "a.int16", type: "int16", value: -30_000 },
      { key: "a.int32", type: "int32", value: -2_000_000_000 },
      { key: "a.float32", type: "float32", value: 0.5 },
      { key: "a.bool", type: "bool", value: true },
      { key: "a.uint64", type: "uint64", value: 2n ** 63n },
      { key: "a.int64", type: "int64", value: -5n },
      { key: "a.float64", type: "float64", value: Math.PI },
      { key: "some.numbers", type: "array", value: { of: "int32", items: [1, -2, 3] } },
      { key: "some.bools", type: "array", value: { of: "bool", items: [true, false] } },
      {
        key: "some.strings",
        type: "array",
        value: { of: "string", items: ["", "a", "Ġhé", "😀", "\ufeff\0"] },
      },
      {
        key: "some.arrays",
        type: "array",
        value: {
          of: "array",
          items: [
            { of: "uint8", items: [1, 2] },
            { of: "string", items: ["x"] },
          ],
        },
      },
    ],
    tensors: [
      { name: "plain", type: "F32", shape: [5, 3], data: data.subarray(0, 60) },
      { name: "blocks", type: "Q4_1", shape: [64, 7], data: data.subarray(60, 60 + 7 * 40) },
      { name: "cube", type: "F16", shape: [4, 3, 2], data: data.subarray(400, 448) },
    ],
  };
}

interface Format {
  readonly bytes: 1 | 2 | 4 | 8;
  write(to: Buffer, value: number | bigint): void;
  read(from: Buffer, at: number): number | bigint;
}

const formats: Partial<Record<ValueType, Format>> = {
  uint8: { bytes: 1, write: (b, v) => b.writeUInt8(Number(v)), read: (b, at) => b.readUInt8(at) },
  int8: { bytes: 1, write: (b, v) => b.writeInt8(Number(v)), read: (b, at) => b.readInt8(at) },
  uint16: { bytes: 2, write: (b, v) => b.writeUInt16LE(Number(v)), read: (b, at) => b.readUInt16LE(at) },
  int16: { bytes: 2, write: (b, v) => b.writeInt16LE(Number(v)), read: (b, at) => b.readInt16LE(at) },
  uint32: { bytes: 4, write: (b, v) => b.writeUInt32LE(Number(v)), read: (b, at) => b.readUInt32LE(at) },
  int32: { bytes: 4, write: (b, v) => b.writeInt32LE(Number(v)), read: (b, at) => b.readInt32LE(at) },
  float32: { bytes: 4, write: (b, v) => b.writeFloatLE(Number(v)), read: (b, at) => b.readFloatLE(at) },
  uint64: {
    bytes: 8,
    write: (b, v) => b.writeBigUInt64LE(BigInt(v)),
    read: (b, at) => b.readBigUInt64LE(at),
  },
  int64: { bytes: 8, write: (b, v) => b.writeBigInt64LE(BigInt(v)), read: (b, at) => b.readBigInt64LE(at) },
  float64: { bytes: 8, write: (b, v) => b.writeDoubleLE(Number(v)), read: (b, at) => b.readDoubleLE(at) },
};

class Output {
  length = 0;
  readonly fields = new Map<string, Field>();
  readonly #parts: Uint8Array[] = [];

  copyTo(bytes: Buffer): void {
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.length;
    }
  }

  raw(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.length += bytes.length;
  }

  number(label: string, type: ValueType, value: number | bigint): void {
    const format = formats[type]!;
    const bytes = Buffer.alloc(format.bytes);
    format.write(bytes, value);
    this.fields.set(label, { at: this.length, bytes: format.bytes });
    this.raw(bytes);
  }

  string(label: string, text: string | Uint8Array): void {
    const bytes = typeof text === "string" ? Buffer.from(text) : text;
    this.number(`${label} length`, "uint64", bytes.length);
    this.raw(bytes);
  }

  value(label: string, type: ValueType, value: ItemValue): void {
    if (typeof value === "string" || value instanceof Uint8Array) {
      this.string(label, value);
    } else if (typeof value === "object") {
      this.number(`${label} element type`, "uint32", valueTypes.indexOf(value.of));
      this.number(`${label} count`, "uint64", value.items.length);
      for (const [i, item] of value.items.entries()) this.value(`${label}[${i}]`, value.of, item);
    } else {
      this.number(
        `${label} value`,
        type === "bool" ? "uint8" : type,
        typeof value === "boolean" ? +value : value,
      );
    }
  }
}

function nameOf(name: string | Uint8Array): string {
  return typeof name === "string" ? name : Buffer.from(name).toString("latin1");
}
