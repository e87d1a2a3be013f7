/** Spoils good GGUF files in ways that can be repeated: the same bytes and seed give the same file. */
import { type Description, describeGguf, type Entry, type Field, patchAt, writeGguf } from "./gguf-writer.js";

export interface Mutation {
  readonly bytes: Buffer;
  /** What was changed, to be printed when a test fails. */
  readonly what: string;
}

/** One to three random changes of a good file: some know the format, some are blind. */
export function mutate(bytes: Uint8Array, seed: number): Mutation {
  const random = new Random(seed);
  let mutated: Buffer = Buffer.from(bytes);
  const what: string[] = [];
  // What knows the format comes first: it can only take apart what is still whole.
  if (random.chance(0.6)) {
    const change = random.chance(0.6) ? changeField : changeDescription;
    const result = change(mutated, random);
    mutated = result.bytes;
    what.push(result.what);
  }
  if (what.length === 0 || random.chance(0.2)) {
    const times = random.chance(0.2) ? 2 : 1;
    for (let i = 0; i < times; i++) {
      const result = random.pick(blindChanges)(mutated, random);
      mutated = result.bytes;
      what.push(result.what);
    }
  }
  return { bytes: mutated, what: `seed ${seed}: ${what.join("; ")}` };
}

type Change = (bytes: Buffer, random: Random) => Mutation;

/** Puts a suspicious number where the header has a count, length, type, dimension, offset or value. */
function changeField(bytes: Buffer, random: Random): Mutation {
  const fields = structuralFields(bytes);
  const [name, field] = random.pick(fields);
  const old = bytes.readUIntLE(field.at, Math.min(field.bytes, 6));
  const value = random.pick<number | bigint>([
    ...[0, 1, 2, 3, 7, 8, 9, 13, 31, 33, 200, 255, 1e6, 1e9],
    ...[2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40, 2 ** 53],
    ...[2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 32n, 2n ** 64n - 1n],
    ...[old + 1, old - 1, old * 2, old + 32, bytes.length, bytes.length - 1, random.below(2 ** 32)],
  ]);
  return { bytes: patchAt(bytes, field, value), what: `${name} = ${value} (was ${old})` };
}

/** Elements of arrays are many and alike: a field is picked from the others nine times out of ten. */
function structuralFields(bytes: Buffer): [string, Field][] {
  const fields = [...writeGguf(describeGguf(bytes)).fields];
  const elements = fields.filter(([name]) => name.includes("["));
  const others = fields.filter(([name]) => !name.includes("["));
  return [...others, ...elements.slice(0, Math.ceil(others.length / 10))];
}

function changeDescription(bytes: Buffer, random: Random): Mutation {
  const good = describeGguf(bytes);
  const entry = random.pick(good.metadata);
  const tensor = random.pick(good.tensors);
  const replaceEntry = (...entries: Entry[]): Description => ({
    ...good,
    metadata: good.metadata.flatMap((e) => (e === entry ? entries : [e])),
  });
  const replaceTensor = (...tensors: Description["tensors"]): Description => ({
    ...good,
    tensors: good.tensors.flatMap((t) => (t === tensor ? tensors : [t])),
  });
  const nested = (depth: number): Entry["value"] => ({
    of: depth === 0 ? "uint8" : "array",
    items: depth === 0 ? [1] : [nested(depth - 1)],
  });
  const [what, description] = random.pick<[string, Description]>([
    [`key ${entry.key} twice`, replaceEntry(entry, entry)],
    [`key ${entry.key} left out`, replaceEntry()],
    [`key ${entry.key} empty`, replaceEntry({ ...entry, key: "" })],
    [`key ${entry.key} not UTF-8`, replaceEntry({ ...entry, key: Buffer.from([0xc3, 0x28]) })],
    [`key ${entry.key} = ""`, replaceEntry({ ...entry, type: "string", value: "" })],
    [`key ${entry.key} = -1`, replaceEntry({ ...entry, type: "int32", value: -1 })],
    [`key ${entry.key} = NaN`, replaceEntry({ ...entry, type: "float32", value: Number.NaN })],
    [`key ${entry.key} = 2^64-1`, replaceEntry({ ...entry, type: "uint64", value: 2n ** 64n - 1n })],
    [`key ${entry.key} = []`, replaceEntry({ ...entry, type: "array", value: { of: "string", items: [] } })],
    [
      `key ${entry.key} = 1 MB of text`,
      replaceEntry({ ...entry, type: "string", value: "x".repeat(2 ** 20) }),
    ],
    [
      `key ${entry.key} = nested arrays`,
      replaceEntry({ ...entry, type: "array", value: nested(random.below(20)) }),
    ],
    [
      `key ${entry.key} = bad text`,
      replaceEntry({ ...entry, type: "string", value: Buffer.from([0x61, 0xff]) }),
    ],
    [`tensor ${tensor.name} twice`, replaceTensor(tensor, tensor)],
    [`tensor ${tensor.name} left out`, replaceTensor()],
    [`tensor ${tensor.name} as F64`, replaceTensor({ ...tensor, type: "F64" })],
    [
      `tensor ${tensor.name} with half its data`,
      replaceTensor({ ...tensor, data: tensor.data!.subarray(1) }),
    ],
    [`tensor ${tensor.name} turned`, replaceTensor({ ...tensor, shape: [...tensor.shape].reverse() })],
    [
      `tensor ${tensor.name} with a dimension of 1 more`,
      replaceTensor({ ...tensor, shape: [...tensor.shape, 1] }),
    ],
    [`tensor ${tensor.name} without dimensions`, replaceTensor({ ...tensor, shape: [] })],
    ["no tensors", { ...good, tensors: [] }],
    ["no metadata", { ...good, metadata: [] }],
    ["alignment 64 not said", { ...good, alignment: 64 }],
    ["alignment 8 not said", { ...good, alignment: 8 }],
  ]);
  return { bytes: writeGguf(description).bytes, what };
}

const blindChanges: readonly Change[] = [
  function truncate(bytes, random) {
    const length = random.chance(0.5)
      ? random.below(Math.min(bytes.length, 8192))
      : random.below(bytes.length);
    return { bytes: bytes.subarray(0, length), what: `cut to ${length} bytes` };
  },
  function flipBits(bytes, random) {
    const copy = Buffer.from(bytes);
    const places = Array.from({ length: 1 + random.below(8) }, () => random.place(copy.length));
    for (const at of places) copy[at]! ^= 1 << random.below(8);
    return { bytes: copy, what: `bits flipped at ${places.join(", ")}` };
  },
  function fill(bytes, random) {
    const copy = Buffer.from(bytes);
    const at = random.place(copy.length);
    const length = Math.min(1 + random.below(64), copy.length - at);
    const byte = random.pick([0, 0xff, 0x7f, 0x80, random.below(256)]);
    copy.fill(byte, at, at + length);
    return { bytes: copy, what: `${length} bytes at ${at} = ${byte}` };
  },
  function remove(bytes, random) {
    const at = random.place(bytes.length);
    const length = 1 + random.below(64);
    return {
      bytes: Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]),
      what: `${length} bytes removed at ${at}`,
    };
  },
  function insert(bytes, random) {
    const at = random.place(bytes.length);
    const inserted = Buffer.from(Array.from({ length: 1 + random.below(64) }, () => random.below(256)));
    return {
      bytes: Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at)]),
      what: `${inserted.length} bytes inserted at ${at}`,
    };
  },
  function copyWithin(bytes, random) {
    const copy = Buffer.from(bytes);
    const from = random.place(copy.length);
    const to = random.place(copy.length);
    const length = 1 + random.below(256);
    copy.copyWithin(to, from, from + length);
    return { bytes: copy, what: `${length} bytes copied from ${from} to ${to}` };
  },
];

/** mulberry32. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** A whole number from 0 to below `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let x = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  chance(probability: number): boolean {
    return this.below(2 ** 32) < probability * 2 ** 32;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  /** A place in a file, mostly in its header. */
  place(length: number): number {
    return this.below(this.chance(0.8) ? Math.min(length, 8192) : length);
  }
}
