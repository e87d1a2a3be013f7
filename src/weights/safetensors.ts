/**
 * Reads safetensors files: 8 bytes of length, a JSON table of tensors, then their data without gaps. Nothing that the
 * table says is believed before it has been compared with the size of the file.
 * Format: https://github.com/huggingface/safetensors#format
 */
import { OutriderError, quote } from "../errors.js";
import { ModelFile } from "./model-file.js";

export interface SafetensorsTensor {
  readonly name: string;
  readonly dtype: string;
  /** Row-major: the last dimension is contiguous. A scalar has none. */
  readonly shape: readonly number[];
  /** From the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

/** An open file. Whoever opened it disposes `file`. */
export interface Safetensors {
  readonly file: ModelFile;
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
}

/** Bits of an element. */
const dtypes: ReadonlyMap<string, number> = new Map(
  Object.entries({
    ...{ BOOL: 8, U8: 8, I8: 8, U16: 16, I16: 16, U32: 32, I32: 32, U64: 64, I64: 64 },
    ...{
      F4: 4,
      F6_E2M3: 6,
      F6_E3M2: 6,
      F8_E4M3: 8,
      F8_E5M2: 8,
      F8_E8M0: 8,
      F16: 16,
      BF16: 16,
      F32: 32,
      F64: 64,
      C64: 64,
    },
  }),
);

const MAX_HEADER_BYTES = 100_000_000; // the format's own limit
const MAX_TENSORS = 2 ** 20;
const MAX_DIMENSIONS = 8;
const MAX_NAME = 65_535;

/** Opens a file and reads its table. Throws ERR_PATH, ERR_MODEL_FORMAT, ERR_MODEL_LIMIT, ERR_MODEL_TRUNCATED. */
export async function openSafetensors(path: string): Promise<Safetensors> {
  const file = await ModelFile.open(path);
  try {
    const length = Buffer.alloc(8);
    if (file.size < 8)
      throw fail(path, "ERR_MODEL_FORMAT", `the file has ${file.size} bytes, a header has at least 8`);
    await file.fill(length, 0, "header");
    const headerBytes = headerLength(length, file.size, path);
    const header = Buffer.allocUnsafeSlow(headerBytes);
    await file.fill(header, 8, "header");
    return { file, tensors: parseSafetensorsHeader(header, file.size, path) };
  } catch (error) {
    await file[Symbol.asyncDispose]();
    throw error;
  }
}

function headerLength(bytes: Buffer, size: number, path: string): number {
  const length = bytes.readBigUInt64LE(0);
  const start = bytes.toString("latin1");
  if (start.startsWith("version "))
    throw fail(
      path,
      "ERR_MODEL_FORMAT",
      "this is a git-LFS pointer, not the weights; run `git lfs pull` in its folder",
    );
  if (start.startsWith("GGUF"))
    throw fail(path, "ERR_MODEL_FORMAT", "this is a GGUF file, expected safetensors");
  if (/^\s*</.test(start))
    throw fail(
      path,
      "ERR_MODEL_FORMAT",
      "this is an HTML or XML page, probably an error page; get the file again",
    );
  if (length > BigInt(MAX_HEADER_BYTES))
    throw fail(
      path,
      "ERR_MODEL_LIMIT",
      `at byte 0: a header of ${length} bytes, the limit is ${MAX_HEADER_BYTES}`,
    );
  if (Number(length) + 8 > size)
    throw fail(
      path,
      "ERR_MODEL_TRUNCATED",
      `at byte 0: a header of ${length} bytes does not fit in a file of ${size}; was the download cut off? Get it again`,
    );
  return Number(length);
}

/** The table of tensors. `bytes`: the header without its length; `size`: of the whole file; `path`: for messages. */
export function parseSafetensorsHeader(
  bytes: Uint8Array,
  size: number,
  path: string,
): ReadonlyMap<string, SafetensorsTensor> {
  const entries = Object.entries(parseObject(bytes, path));
  if (entries.length > MAX_TENSORS)
    throw fail(
      path,
      "ERR_MODEL_LIMIT",
      `the header names ${entries.length} tensors, the limit is ${MAX_TENSORS}`,
    );
  const dataOffset = 8 + bytes.length;
  const tensors = new Map<string, SafetensorsTensor>();
  for (const [name, entry] of entries)
    if (name !== "__metadata__") tensors.set(name, readEntry(name, entry, dataOffset, size, path));
  checkCoverage(tensors, dataOffset, size, path);
  return tensors;
}

function parseObject(bytes: Uint8Array, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw fail(path, "ERR_MODEL_FORMAT", "at byte 8: the header is not JSON", error);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw fail(path, "ERR_MODEL_FORMAT", "at byte 8: the header is not a JSON object");
}

function readEntry(
  name: string,
  entry: unknown,
  dataOffset: number,
  size: number,
  path: string,
): SafetensorsTensor {
  const where = `tensor ${quote(name)}`;
  const wrong = (what: string, code: "ERR_MODEL_FORMAT" | "ERR_MODEL_LIMIT" = "ERR_MODEL_FORMAT") =>
    fail(path, code, `${where}: ${what}`);
  if (name === "" || name.length > MAX_NAME) throw wrong("its name is empty or too long");
  if (typeof entry !== "object" || entry === null) throw wrong("its entry is not an object");
  const { dtype, shape, data_offsets: offsets } = entry as Record<string, unknown>;
  if (typeof dtype !== "string") throw wrong("dtype is missing");
  const bits = dtypes.get(dtype);
  if (bits === undefined) throw wrong(`dtype ${quote(dtype)} is not known`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw wrong("shape is not a list of whole numbers");
  if (shape.length > MAX_DIMENSIONS)
    throw wrong(`${shape.length} dimensions, the limit is ${MAX_DIMENSIONS}`, "ERR_MODEL_LIMIT");
  let elements = 1;
  for (const dimension of shape) elements *= dimension;
  if (!Number.isSafeInteger(elements)) throw wrong("it has more than 2^53 weights", "ERR_MODEL_LIMIT");
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize))
    throw wrong("data_offsets are not two whole numbers");
  const [begin, end] = offsets as [number, number];
  const bytes = (elements * bits) / 8;
  if (end - begin !== bytes)
    throw wrong(
      `data_offsets [${begin}, ${end}] hold ${end - begin} bytes, ${dtype} [${shape.join(", ")}] has ${bytes}`,
    );
  if (dataOffset + end > size)
    throw fail(
      path,
      "ERR_MODEL_TRUNCATED",
      `${where}: its data end at byte ${dataOffset + end}, the file at ${size}; was the download cut off? Get it again`,
    );
  return { name, dtype, shape, offset: dataOffset + begin, bytes };
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Every byte of the data belongs to exactly one tensor. */
function checkCoverage(
  tensors: ReadonlyMap<string, SafetensorsTensor>,
  dataOffset: number,
  size: number,
  path: string,
): void {
  let at = dataOffset;
  let before = "";
  for (const { name, offset, bytes } of [...tensors.values()].sort(
    (a, b) => a.offset - b.offset || a.bytes - b.bytes,
  )) {
    if (offset < at)
      throw fail(
        path,
        "ERR_MODEL_FORMAT",
        `tensor ${quote(name)}: its data overlap those of ${quote(before)}`,
      );
    if (offset > at)
      throw fail(
        path,
        "ERR_MODEL_FORMAT",
        `${offset - at} bytes before tensor ${quote(name)} belong to none`,
      );
    at = offset + bytes;
    before = name;
  }
  if (at !== size)
    throw fail(path, "ERR_MODEL_FORMAT", `${size - at} bytes at the end of the file belong to no tensor`);
}

function fail(
  path: string,
  code: "ERR_MODEL_FORMAT" | "ERR_MODEL_LIMIT" | "ERR_MODEL_TRUNCATED",
  problem: string,
  cause?: unknown,
): OutriderError {
  return new OutriderError(code, `${path}: ${problem}`, cause === undefined ? undefined : { cause });
}
