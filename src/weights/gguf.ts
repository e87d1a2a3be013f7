/** Reads GGUF files: the header at once, the data of tensors as a stream of rows. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { OutriderError, quote } from "../errors.js";
import { defaultGgufLimits, type GgufLimits } from "./gguf-cursor.js";
import { FIXED_HEADER_BYTES, type GgufHeader, parseGgufHeader, type TensorInfo } from "./gguf-header.js";

export { defaultGgufLimits, type GgufLimits } from "./gguf-cursor.js";
export type { GgufHeader, TensorInfo } from "./gguf-header.js";
export type { MetadataArray, MetadataValue } from "./gguf-metadata.js";
export type { WeightType } from "./weight-type.js";

export interface RowChunk {
  readonly firstRow: number;
  readonly rows: number;
  /** [rows × bytes of a row], as in the file. Borrowed: valid until the next chunk is asked for. */
  readonly bytes: Uint8Array;
}

export interface ReadOptions {
  /** Rows in each chunk but the last. Default: what fits in 4 MiB, at least one. */
  readonly chunkRows?: number;
}

/** An open GGUF file. Whoever opened it disposes it; what is in `metadata` and `tensors` stays valid afterwards. */
export interface GgufFile extends GgufHeader, AsyncDisposable {
  readonly path: string;
  /** Bytes of the file when it was opened. */
  readonly size: number;
  /**
   * Streams a tensor's rows in order. Reads ahead by one chunk. Memory: two chunks per stream that is being read.
   * Throws ERR_MODEL_TRUNCATED if the file has become shorter, ERR_PATH if reading fails, ERR_MODEL_LIMIT if a row is
   * larger than 64 MiB, ERR_DISPOSED after disposal.
   */
  read(tensor: TensorInfo, options?: ReadOptions): AsyncIterable<RowChunk>;
}

const CHUNK_BYTES = 4 * 2 ** 20;
const MAX_ROW_BYTES = 64 * 2 ** 20;
// The header of a 49k vocabulary has 1.8 MB, of a 256k vocabulary 15 MB. A header that goes on is read again from
// the start with four times as much.
const FIRST_READ_BYTES = 2 * 2 ** 20;

/**
 * Opens a GGUF file and reads its header (never the data). Throws ERR_PATH if there is no readable file at `path`,
 * ERR_MODEL_FORMAT, ERR_MODEL_TRUNCATED, ERR_MODEL_LIMIT or ERR_MODEL_UNSUPPORTED if the file is not what it should be.
 */
export async function openGguf(path: string, limits?: Partial<GgufLimits>): Promise<GgufFile> {
  const handle = await openFile(path);
  try {
    const { size } = await handle.stat();
    const header = await readHeader(handle, size, path, { ...defaultGgufLimits, ...limits });
    return new OpenGguf(handle, path, size, header);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function openFile(path: string): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    // Non-blocking, or opening a named pipe would wait for a writer for ever.
    handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    throw pathError(path, error);
  }
  const stat = await handle.stat();
  if (stat.isFile()) return handle;
  await handle.close();
  throw stat.isDirectory()
    ? pathError(path, { code: "EISDIR" })
    : new OutriderError("ERR_PATH", `${path}: this is a device, pipe or socket, expected a model file`);
}

function pathError(path: string, cause: unknown): OutriderError {
  const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
  const problems: Record<string, string | undefined> = {
    ENOENT: "no such file",
    ENOTDIR: "no such file: a part of the path is not a folder",
    EISDIR: "this is a folder, expected a model file",
    EACCES: "no permission to read this file",
    EPERM: "no permission to read this file",
    EMFILE: "too many open files",
  };
  return new OutriderError("ERR_PATH", `${path}: ${problems[code] ?? `the file cannot be read (${code})`}`, {
    cause,
  });
}

async function readHeader(
  handle: FileHandle,
  size: number,
  path: string,
  limits: GgufLimits,
): Promise<GgufHeader> {
  // First the fixed part with some bytes more, so that a wrong file costs no memory.
  let wanted = Math.min(size, FIXED_HEADER_BYTES + 1024);
  for (;;) {
    const bytes = Buffer.allocUnsafeSlow(wanted);
    await readFully(handle, bytes, 0, path, "header");
    const header = parseGgufHeader(bytes, size, path, limits);
    if (!("bytesNeeded" in header)) return header;
    wanted = Math.min(size, Math.max(FIRST_READ_BYTES, 4 * wanted, header.bytesNeeded));
  }
}

/** Fills `bytes` with what the file has from `position` on. */
async function readFully(
  handle: FileHandle,
  bytes: Uint8Array,
  position: number,
  path: string,
  what: string,
): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    let bytesRead: number;
    try {
      ({ bytesRead } = await handle.read(bytes, done, bytes.length - done, position + done));
    } catch (error) {
      throw pathError(path, error);
    }
    if (bytesRead === 0) {
      throw new OutriderError(
        "ERR_MODEL_TRUNCATED",
        `${path}: ${what}: the file now ends at byte ${position + done}, it was longer when it was opened; ` +
          "is something writing to it?",
      );
    }
    done += bytesRead;
  }
}

class OpenGguf implements GgufFile {
  readonly version: number;
  readonly metadata: GgufHeader["metadata"];
  readonly tensors: GgufHeader["tensors"];
  readonly dataOffset: number;
  readonly alignment: number;
  #handle: FileHandle | undefined;
  /** Buffers of streams that have ended: allocating two for each of hundreds of tensors costs more than reading. */
  readonly #spare: Buffer[] = [];

  constructor(
    handle: FileHandle,
    readonly path: string,
    readonly size: number,
    header: GgufHeader,
  ) {
    this.#handle = handle;
    this.version = header.version;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
    this.dataOffset = header.dataOffset;
    this.alignment = header.alignment;
  }

  async *read(tensor: TensorInfo, options: ReadOptions = {}): AsyncGenerator<RowChunk, void, undefined> {
    const what = `tensor ${quote(tensor.name)}`;
    const rowBytes = tensor.bytes / tensor.rows;
    if (rowBytes > MAX_ROW_BYTES) {
      throw new OutriderError(
        "ERR_MODEL_LIMIT",
        `${this.path}: ${what}: a row has ${rowBytes} bytes, the limit is ${MAX_ROW_BYTES}`,
      );
    }
    const chunkRows = options.chunkRows ?? Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
    if (!Number.isSafeInteger(chunkRows) || chunkRows < 1) {
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `chunkRows is ${chunkRows}, expected a whole number from 1`,
        {
          param: "chunkRows",
        },
      );
    }
    const chunkBytes = Math.min(chunkRows, tensor.rows) * rowBytes;
    const buffers: Buffer[] = [];
    const fill = async (firstRow: number): Promise<RowChunk> => {
      const handle = this.#handle;
      if (handle === undefined) {
        throw new OutriderError("ERR_DISPOSED", `${this.path}: ${what} is read after the file was disposed`);
      }
      const rows = Math.min(chunkRows, tensor.rows - firstRow);
      const which = (firstRow / chunkRows) % 2;
      buffers[which] ??= this.#takeBuffer(chunkBytes);
      const bytes = buffers[which].subarray(0, rows * rowBytes);
      await readFully(handle, bytes, tensor.offset + firstRow * rowBytes, this.path, what);
      return { firstRow, rows, bytes };
    };
    let next: Promise<RowChunk> | undefined = fill(0);
    try {
      while (next !== undefined) {
        const chunk: RowChunk = await next;
        const following = chunk.firstRow + chunk.rows;
        next = following < tensor.rows ? fill(following) : undefined;
        // Its failure belongs to whoever asks for that chunk, and must not count as unhandled until then.
        next?.catch(() => {});
        yield chunk;
      }
    } finally {
      // Left early: the buffers are free only when the read ahead has ended.
      await next?.catch(() => {});
      this.#spare.push(...buffers.filter((buffer) => buffer.length === CHUNK_BYTES));
      this.#spare.length = Math.min(this.#spare.length, 2);
    }
  }

  #takeBuffer(bytes: number): Buffer {
    if (bytes > CHUNK_BYTES) return Buffer.allocUnsafeSlow(bytes);
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    this.#spare.length = 0;
    await handle?.close();
  }
}
