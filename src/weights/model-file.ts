/** An open file of weights: positioned reads, and streams of rows. Never mapped, so a file that shrinks is an error. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { OutriderError } from "../errors.js";
import type { ReadOptions, RowChunk } from "./model-source.js";

// Small enough that what was read is packed out of the processor's cache, large enough that the event loop, which two
// streams pass for each chunk, is not what loading waits for.
const CHUNK_BYTES = 2 * 2 ** 20;
/** Of two streams, each with a chunk ahead. */
const MOST_SPARE = 4;
const MAX_ROW_BYTES = 64 * 2 ** 20;

/** Rows that lie one after another in a file. */
export interface RowRange {
  /** For messages: `tensor "x"`. */
  readonly what: string;
  readonly offset: number;
  readonly rows: number;
  readonly rowBytes: number;
}

/** Whoever opened it disposes it. */
export class ModelFile implements AsyncDisposable {
  #handle: FileHandle | undefined;
  /** Buffers of streams that have ended: allocating two for each of hundreds of tensors costs more than reading. */
  readonly #spare: Buffer[] = [];

  private constructor(
    handle: FileHandle,
    readonly path: string,
    /** Bytes of the file when it was opened. */
    readonly size: number,
  ) {
    this.#handle = handle;
  }

  /** Throws ERR_PATH if there is no readable file at `path`. */
  static async open(path: string): Promise<ModelFile> {
    let handle: FileHandle;
    try {
      // Non-blocking, or opening a named pipe would wait for a writer for ever.
      handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    } catch (error) {
      throw pathError(path, error);
    }
    const stat = await handle.stat();
    if (stat.isFile()) return new ModelFile(handle, path, stat.size);
    await handle.close();
    throw stat.isDirectory()
      ? pathError(path, { code: "EISDIR" })
      : new OutriderError("ERR_PATH", `${path}: this is a device, pipe or socket, expected a model file`);
  }

  /** Fills `bytes` with what the file has from `position` on. */
  async fill(bytes: Uint8Array, position: number, what: string): Promise<void> {
    if (this.#handle === undefined) {
      throw new OutriderError("ERR_DISPOSED", `${this.path}: ${what} is read after the file was disposed`);
    }
    let done = 0;
    while (done < bytes.length) {
      let bytesRead: number;
      try {
        ({ bytesRead } = await this.#handle.read(bytes, done, bytes.length - done, position + done));
      } catch (error) {
        throw pathError(this.path, error);
      }
      if (bytesRead === 0) {
        throw new OutriderError(
          "ERR_MODEL_TRUNCATED",
          `${this.path}: ${what}: the file now ends at byte ${position + done}, it was longer when it was opened; ` +
            "is something writing to it?",
        );
      }
      done += bytesRead;
    }
  }

  /** Streams rows in order, a chunk ahead: see `ModelSource.read`. */
  async *rows(range: RowRange, options: ReadOptions = {}): AsyncGenerator<RowChunk, void, undefined> {
    const { what, rowBytes } = range;
    if (rowBytes > MAX_ROW_BYTES) {
      throw new OutriderError(
        "ERR_MODEL_LIMIT",
        `${this.path}: ${what}: a row has ${rowBytes} bytes, the limit is ${MAX_ROW_BYTES}`,
      );
    }
    const chunkRows = options.chunkRows ?? defaultChunkRows(rowBytes);
    if (!Number.isSafeInteger(chunkRows) || chunkRows < 1) {
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `chunkRows is ${chunkRows}, expected a whole number from 1`,
        { param: "chunkRows" },
      );
    }
    const chunkBytes = Math.min(chunkRows, range.rows) * rowBytes;
    const buffers: Buffer[] = [];
    const fill = async (firstRow: number): Promise<RowChunk> => {
      const rows = Math.min(chunkRows, range.rows - firstRow);
      const which = (firstRow / chunkRows) % 2;
      buffers[which] ??= this.#takeBuffer(chunkBytes);
      const bytes = buffers[which].subarray(0, rows * rowBytes);
      await this.fill(bytes, range.offset + firstRow * rowBytes, what);
      return { firstRow, rows, bytes };
    };
    let next: Promise<RowChunk> | undefined = fill(0);
    try {
      while (next !== undefined) {
        const chunk: RowChunk = await next;
        const following = chunk.firstRow + chunk.rows;
        next = following < range.rows ? fill(following) : undefined;
        // Its failure belongs to whoever asks for that chunk, and must not count as unhandled until then.
        next?.catch(() => {});
        yield chunk;
      }
    } finally {
      // Left early: the buffers are free only when the read ahead has ended.
      await next?.catch(() => {});
      this.#spare.push(...buffers.filter((buffer) => buffer.length === CHUNK_BYTES));
      this.#spare.length = Math.min(this.#spare.length, MOST_SPARE);
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

/** What fits in a chunk, at least one. */
export function defaultChunkRows(rowBytes: number): number {
  return Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
}

/** A file that cannot be read, told in words. */
export function pathError(path: string, cause: unknown): OutriderError {
  const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
  const hint = /^[\w.-]+\/[\w.:-]+$/.test(path) ? `; of the hub's models it would be hf:${path}` : "";
  const problems: Record<string, string | undefined> = {
    ENOENT: `no such file${hint}`,
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
