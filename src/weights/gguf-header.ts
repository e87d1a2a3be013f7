/**
 * The header of a GGUF file, versions 2 and 3 (the layout is the same): counts, metadata, the table of tensors.
 * Pure: bytes in, maps out. Nothing that the file declares is believed before it has been compared with the size of
 * the file and with the limits. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { quote } from "../errors.js";
import { Cursor, defaultGgufLimits, EndOfBytes, type GgufLimits } from "./gguf-cursor.js";
import { type MetadataValue, readMetadata } from "./gguf-metadata.js";
import type { TensorInfo } from "./model-source.js";
import { layoutById } from "./weight-type.js";

export interface GgufHeader {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Where the data of the tensors begins, from the start of the file. */
  readonly dataOffset: number;
  readonly alignment: number;
}

/** The header goes on behind the bytes given: parse again with at least this many. */
export interface HeaderIncomplete {
  readonly bytesNeeded: number;
}

/** Bytes of the fixed part: magic, version, number of tensors, number of metadata keys. */
export const FIXED_HEADER_BYTES = 24;

// The least that an entry can take: a one-byte name with its length, then type and one byte of value; a tensor has
// its number of dimensions, one dimension, type and offset.
const LEAST_KEY_BYTES = 8 + 1 + 4 + 1;
const LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8;

/**
 * Parses the beginning of a file. `bytes`: the file from its first byte, as much as is at hand, at least
 * FIXED_HEADER_BYTES unless the file is shorter; `size`: the size of the whole file; `path` is for messages only.
 * Throws an OutriderError whose message names the file, the key or tensor and the byte offset.
 */
export function parseGgufHeader(
  bytes: Uint8Array,
  size: number,
  path: string,
  limits: GgufLimits = defaultGgufLimits,
): GgufHeader | HeaderIncomplete {
  try {
    return readHeader(new Cursor(bytes, size, path, limits), limits);
  } catch (error) {
    if (error instanceof EndOfBytes) return { bytesNeeded: error.needed };
    throw error;
  }
}

function readHeader(cursor: Cursor, limits: GgufLimits): GgufHeader {
  checkMagic(cursor);
  cursor.at = 4;
  const version = readVersion(cursor);
  const numTensors = readCount(cursor, "tensors", limits.tensors, LEAST_TENSOR_BYTES);
  const numKeys = readCount(cursor, "metadata keys", limits.keys, LEAST_KEY_BYTES);

  const { values: metadata, alignment } = readMetadata(cursor, numKeys);

  const tensors = new Map<string, TensorEntry>();
  const offsets: number[] = []; // where each tensor's offset stands
  for (let i = 0; i < numTensors; i++) {
    const start = cursor.at;
    cursor.where = `tensor ${i + 1} of ${numTensors}`;
    const name = cursor.name();
    cursor.where = `tensor ${quote(name)}`;
    if (tensors.has(name)) cursor.fail("ERR_MODEL_FORMAT", start, "it appears twice");
    const tensor = readTensor(cursor, name, limits);
    tensors.set(name, tensor);
    offsets.push(cursor.at - 8);
  }
  const dataOffset = Math.ceil(cursor.at / alignment) * alignment;
  placeTensors(cursor, tensors, offsets, dataOffset, alignment);
  return { version, metadata, tensors, dataOffset, alignment };
}

function readVersion(cursor: Cursor): number {
  const version = cursor.u32();
  if (version === 2 || version === 3) return version;
  if (version !== 0 && (version & 0xffff) === 0) {
    cursor.fail(
      "ERR_MODEL_FORMAT",
      4,
      "this is a big-endian GGUF file; take the little-endian one (nearly every published file is)",
    );
  }
  return cursor.fail(
    "ERR_MODEL_UNSUPPORTED",
    4,
    `GGUF version ${version} is not supported (supported: 2 and 3); convert the model again with a current llama.cpp`,
  );
}

function readCount(cursor: Cursor, what: string, limit: number, leastBytes: number): number {
  const start = cursor.at;
  const count = cursor.u64();
  if (count > limit) {
    cursor.fail("ERR_MODEL_LIMIT", start, `the header declares ${count} ${what}, the limit is ${limit}`);
  }
  if (count * leastBytes > cursor.size - FIXED_HEADER_BYTES) {
    cursor.fail(
      "ERR_MODEL_TRUNCATED",
      start,
      `the header declares ${count} ${what}, which do not fit in a file of ${cursor.size} bytes`,
    );
  }
  return count;
}

/** While the header is read: the offset is still to be placed. */
type TensorEntry = { -readonly [Field in keyof TensorInfo]: TensorInfo[Field] };

/** One row of the table; its `offset` still counts from the start of the data. */
function readTensor(cursor: Cursor, name: string, limits: GgufLimits): TensorEntry {
  const dimensionsAt = cursor.at;
  const numDimensions = cursor.u32();
  if (numDimensions > limits.dimensions) {
    cursor.fail(
      "ERR_MODEL_LIMIT",
      dimensionsAt,
      `${numDimensions} dimensions, the limit is ${limits.dimensions}`,
    );
  }
  if (numDimensions === 0) cursor.fail("ERR_MODEL_FORMAT", dimensionsAt, "it has no dimensions");
  const shape: number[] = [];
  let weights = 1;
  for (let i = 0; i < numDimensions; i++) {
    const at = cursor.at;
    const dimension = cursor.u64();
    if (dimension === 0) cursor.fail("ERR_MODEL_FORMAT", at, `dimension ${i} is 0`);
    shape.push(dimension);
    weights *= dimension;
    if (weights > Number.MAX_SAFE_INTEGER) {
      cursor.fail("ERR_MODEL_LIMIT", at, `shape [${shape.join(", ")}…] has more than 2^53 weights`);
    }
  }
  const typeAt = cursor.at;
  const typeId = cursor.u32();
  const layout = layoutById.get(typeId);
  if (layout === undefined) {
    return cursor.fail(
      "ERR_MODEL_UNSUPPORTED",
      typeAt,
      `unknown weight type ${typeId}; take a file in a common one such as Q4_K, Q8_0 or F16`,
    );
  }
  const columns = shape[0]!;
  if (columns % layout.blockWeights !== 0) {
    cursor.fail(
      "ERR_MODEL_FORMAT",
      dimensionsAt,
      `a row of ${columns} weights is not a multiple of the ${layout.blockWeights} weights of a ${layout.type} block`,
    );
  }
  const offset = cursor.u64();
  const bytes = (weights / layout.blockWeights) * layout.blockBytes;
  return { name, type: layout.type, shape, rows: weights / columns, columns, offset, bytes };
}

/** Turns offsets into places in the file and makes sure that each tensor has a place of its own inside it. */
function placeTensors(
  cursor: Cursor,
  tensors: ReadonlyMap<string, TensorEntry>,
  offsetsAt: readonly number[],
  dataOffset: number,
  alignment: number,
): void {
  let index = 0;
  for (const tensor of tensors.values()) {
    const at = offsetsAt[index++]!;
    const inData = tensor.offset;
    tensor.offset += dataOffset;
    cursor.where = `tensor ${quote(tensor.name)}`;
    // First the end: an offset beyond 2^53 is rounded, and its remainder below would mean nothing.
    if (tensor.offset + tensor.bytes > cursor.size) {
      cursor.fail(
        "ERR_MODEL_TRUNCATED",
        at,
        `its ${tensor.bytes} bytes from byte ${tensor.offset} on end past the file's ${cursor.size} bytes; ` +
          "was the download cut off? Get it again",
      );
    }
    if (inData % alignment !== 0) {
      cursor.fail(
        "ERR_MODEL_FORMAT",
        at,
        `its offset ${inData} is not a multiple of the alignment ${alignment}`,
      );
    }
  }
  const order = [...tensors.values()].sort((a, b) => a.offset - b.offset);
  for (let i = 1; i < order.length; i++) {
    const before = order[i - 1]!;
    const tensor = order[i]!;
    if (before.offset + before.bytes > tensor.offset) {
      cursor.where = `tensor ${quote(tensor.name)}`;
      cursor.fail(
        "ERR_MODEL_FORMAT",
        tensor.offset,
        `its data overlap those of tensor ${quote(before.name)}`,
      );
    }
  }
}

/** Other files that are taken for models, by their first bytes as Latin-1, with what to do. */
const lookalikes: readonly { readonly is: (head: string) => boolean; readonly message: string }[] = [
  {
    is: (head) => head.startsWith("version https://git-lfs"),
    message:
      "this is a git-LFS pointer, not the model itself; run `git lfs pull` in its folder or download the file",
  },
  {
    is: (head) => /^(ï»¿)?\s*<(!doctype|html|head|\?xml|!--)/i.test(head),
    message: "this is an HTML or XML page, probably an error page saved by a download; get the file again",
  },
  {
    is: (head) => head.startsWith("PK\x03\x04"),
    message: "this is a zip archive (PyTorch checkpoints are too); unpack it, or convert the model to GGUF",
  },
  { is: (head) => head.startsWith("\x1f\x8b"), message: "this is a gzip archive; unpack it first" },
  {
    is: (head) => /^(lmgg|fmgg|tjgg)/.test(head),
    message: "this is a GGML file, the format before GGUF; get the model as GGUF",
  },
  {
    // The length of a JSON text in 8 bytes, then the text.
    is: (head) => head.slice(5, 9) === "\0\0\0{",
    message: "this is a safetensors file, expected GGUF; convert it with llama.cpp's convert_hf_to_gguf.py",
  },
];

function checkMagic(cursor: Cursor): void {
  const { size } = cursor;
  const head = Buffer.from(cursor.bytes.subarray(0, 256)).toString("latin1");
  if (!head.startsWith("GGUF")) {
    const lookalike = lookalikes.find(({ is }) => is(head));
    if (lookalike !== undefined) cursor.fail("ERR_MODEL_FORMAT", 0, lookalike.message);
  }
  if (size < FIXED_HEADER_BYTES) {
    cursor.fail("ERR_MODEL_FORMAT", 0, `the file has ${size} bytes, a GGUF header has ${FIXED_HEADER_BYTES}`);
  }
  if (!head.startsWith("GGUF")) {
    cursor.fail("ERR_MODEL_FORMAT", 0, `the file begins with ${quote(head.slice(0, 4))}, expected "GGUF"`);
  }
}
