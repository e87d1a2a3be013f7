/**
 * One file from the hub into the cache: in pieces over several connections, each piece written down with its hash as
 * soon as it is whole, so that an interrupted download goes on from the pieces that are still as they were. The file
 * gets its name when all of it has the hash that the hub gave.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open, readFile, rename, rm, stat, statfs } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { basename, dirname, join } from "node:path";
import { OutriderError, quote } from "../errors.js";
import { blobPath } from "./cache.js";
import { createFolder } from "./folder.js";
import { withLock } from "./lock.js";
import type { HubFile, Repository } from "./repository.js";
import { aborted, defaultPatience, networkError, type Patience, pause, requestHub } from "./request.js";
import type { HubSettings } from "./settings.js";

const PIECE_BYTES = 4 * 2 ** 20;
/** What one request asks for at most: each one passes by the hub itself, which counts them. */
const PIECES_A_REQUEST = 16;
const CONNECTIONS = 4;

export interface DownloadOptions {
  readonly signal?: AbortSignal | undefined;
  readonly patience?: Patience | undefined;
  /** Hears bytes of the file that are there now; negative where some have to be fetched again. */
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

/** Makes sure that a file's blob is in the cache. Throws ERR_DOWNLOAD, ERR_PATH, ERR_ABORTED. */
export async function downloadBlob(
  settings: HubSettings,
  repository: Repository,
  folder: string,
  file: HubFile,
  options: DownloadOptions = {},
): Promise<void> {
  const blob = blobPath(folder, file.hash.value);
  if (await hasSize(blob, file.size)) return options.onBytes?.(file.size);
  const lock = join(dirname(folder), ".locks", basename(folder), `${file.hash.value}.outrider.lock`);
  try {
    await createFolder(dirname(blob));
    await withLock(lock, options.signal, async () => {
      if (await hasSize(blob, file.size)) return options.onBytes?.(file.size); // another process was faster
      await rm(blob, { force: true }); // damaged
      await using transfer = await Transfer.open(settings, repository, blob, file, options);
      await transfer.run();
    });
  } catch (error) {
    throw diskError(error, folder);
  }
}

async function hasSize(path: string, size: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true && found.size === size;
}

/** What the file system refused in the cache, told in words; other errors as they are. */
export function diskError(error: unknown, folder: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (error instanceof OutriderError || code === undefined) return error;
  const problems: Record<string, string | undefined> = {
    ENOSPC: "the disk is full; make room, what has arrived is kept",
    EDQUOT: "the quota is used up; make room, what has arrived is kept",
    EFBIG: "this file system does not take files of that size; HF_HUB_CACHE names another folder",
    EACCES: "no permission to write there; HF_HUB_CACHE names another folder",
    EPERM: "no permission to write there; HF_HUB_CACHE names another folder",
    EROFS: "the folder is read-only; HF_HUB_CACHE names another one",
  };
  return new OutriderError("ERR_DOWNLOAD", `${folder}: ${problems[code] ?? `cannot write (${code})`}`, {
    cause: error,
  });
}

/** The server gives whole files only. */
class RangeIgnored extends Error {}

class Transfer implements AsyncDisposable {
  /** Pieces that are on the disk as they arrived. */
  readonly #done: Set<number>;
  readonly #url: string;
  readonly #patience: Patience;

  private constructor(
    private readonly settings: HubSettings,
    repository: Repository,
    private readonly blob: string,
    private readonly file: HubFile,
    private readonly options: DownloadOptions,
    private readonly part: FileHandle,
    private readonly journal: FileHandle,
    done: Set<number>,
  ) {
    this.#done = done;
    this.#patience = options.patience ?? defaultPatience;
    const path = file.name.split("/").map(encodeURIComponent).join("/");
    this.#url = `${settings.endpoint}/${repository.name.repository}/resolve/${repository.commit}/${path}`;
  }

  static async open(
    settings: HubSettings,
    repository: Repository,
    blob: string,
    file: HubFile,
    options: DownloadOptions,
  ): Promise<Transfer> {
    const [partPath, journalPath] = [`${blob}.outrider-part`, `${blob}.outrider-journal`];
    // "r+" keeps what is there, "a" makes the file where it is not.
    await (await open(partPath, "a")).close();
    const part = await open(partPath, "r+");
    try {
      const done = await verifiedPieces(part, await readFile(journalPath, "utf8").catch(() => ""), file.size);
      const have = [...done].reduce((sum, piece) => sum + pieceLength(piece, file.size), 0);
      await checkRoom(dirname(blob), file.size - have, file.name);
      const journal = await open(journalPath, done.size > 0 ? "a" : "w");
      options.onBytes?.(have);
      return new Transfer(settings, repository, blob, file, options, part, journal, done);
    } catch (error) {
      await part.close();
      throw error;
    }
  }

  /** Fetches what is missing, checks the whole, gives it its name. */
  async run(): Promise<void> {
    const { file, blob } = this;
    if (file.size <= PIECE_BYTES) await this.#fetchWhole();
    else
      try {
        await this.#fetchPieces();
      } catch (error) {
        if (!(error instanceof RangeIgnored)) throw error;
        await this.#fetchWhole();
      }
    await this.part.truncate(file.size);
    await this.part.sync();
    const found = await hashOf(this.part, file);
    if (found !== file.hash.value) {
      await rm(`${blob}.outrider-part`, { force: true });
      await rm(`${blob}.outrider-journal`, { force: true });
      throw new OutriderError(
        "ERR_DOWNLOAD",
        `${this.#url}: the file has the ${file.hash.kind} ${found}, expected ${file.hash.value}; ` +
          "it was removed. Try again; if it happens again, the server or the way to it is broken",
      );
    }
    await rename(`${blob}.outrider-part`, blob);
    await rm(`${blob}.outrider-journal`, { force: true });
  }

  async #fetchPieces(): Promise<void> {
    const queue = this.#missingRuns();
    const stop = new AbortController();
    const signal = this.options.signal ? AbortSignal.any([this.options.signal, stop.signal]) : stop.signal;
    const worker = async () => {
      for (let run = queue.shift(); run !== undefined; run = queue.shift()) await this.#fetchRun(run, signal);
    };
    const workers = Array.from({ length: CONNECTIONS }, async () => {
      try {
        await worker();
      } catch (error) {
        stop.abort(error);
        throw error;
      }
    });
    const results = await Promise.allSettled(workers);
    if (this.options.signal?.aborted) throw aborted(this.options.signal.reason);
    const failed = results.filter((r) => r.status === "rejected").map((r): unknown => r.reason);
    // The first one stopped the others.
    if (failed.length > 0) throw stop.signal.reason;
  }

  /** Pieces that are missing, in runs that one request can ask for. */
  #missingRuns(): { first: number; end: number }[] {
    const runs: { first: number; end: number }[] = [];
    const pieces = Math.ceil(this.file.size / PIECE_BYTES);
    const most = Math.min(PIECES_A_REQUEST, Math.max(1, Math.ceil(pieces / CONNECTIONS)));
    for (let piece = 0; piece < pieces; piece++) {
      if (this.#done.has(piece)) continue;
      const last = runs.at(-1);
      if (last !== undefined && last.end === piece && piece - last.first < most) last.end++;
      else runs.push({ first: piece, end: piece + 1 });
    }
    return runs;
  }

  async #fetchRun(run: { first: number; end: number }, signal: AbortSignal): Promise<void> {
    let next = run.first;
    for (let failures = 0; next < run.end; ) {
      const before = next;
      try {
        const start = next * PIECE_BYTES;
        const end = Math.min(run.end * PIECE_BYTES, this.file.size);
        const response = await requestHub(this.settings, this.#url, {
          headers: { range: `bytes=${start}-${end - 1}` },
          signal,
          patience: this.#patience,
        });
        try {
          this.#checkRange(response, start, end);
          await this.#receive(response, start, end, () => next++);
        } finally {
          response.destroy();
        }
      } catch (error) {
        if (error instanceof OutriderError || error instanceof RangeIgnored || isDiskError(error))
          throw error;
        if (signal.aborted) throw aborted(error);
        failures = next > before ? 0 : failures + 1;
        if (failures >= this.#patience.attempts) throw networkError(error, this.#url);
        await pause(this.#patience.retryMs * 2 ** failures, signal);
      }
    }
  }

  #checkRange(response: IncomingMessage, start: number, end: number): void {
    if (response.statusCode === 200) throw new RangeIgnored();
    const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(response.headers["content-range"] ?? "");
    if (response.statusCode !== 206 || range === null || Number(range[1]) !== start)
      throw new OutriderError(
        "ERR_DOWNLOAD",
        `${this.#url}: the server does not give the part that was asked for`,
      );
    if (Number(range[3]) !== this.file.size || Number(range[2]) !== end - 1)
      throw this.#wrongLength(Number(range[3]));
  }

  async #fetchWhole(): Promise<void> {
    for (let failures = 0; ; ) {
      this.options.onBytes?.(
        -[...this.#done].reduce((sum, piece) => sum + pieceLength(piece, this.file.size), 0),
      );
      this.#done.clear();
      await this.journal.truncate(0);
      try {
        const response = await requestHub(this.settings, this.#url, {
          signal: this.options.signal,
          patience: this.#patience,
        });
        try {
          const length = response.headers["content-length"];
          if (length !== undefined && Number(length) !== this.file.size)
            throw this.#wrongLength(Number(length));
          await this.#receive(response, 0, this.file.size, () => {});
          return;
        } finally {
          response.destroy();
        }
      } catch (error) {
        if (error instanceof OutriderError || isDiskError(error)) throw error;
        if (this.options.signal?.aborted) throw aborted(error);
        if (++failures >= this.#patience.attempts) throw networkError(error, this.#url);
        await pause(this.#patience.retryMs * 2 ** failures, this.options.signal);
      }
    }
  }

  #wrongLength(found: number): OutriderError {
    return new OutriderError(
      "ERR_DOWNLOAD",
      `${this.#url}: the server's file has ${found} bytes, the hub says ${this.file.size}; try again later`,
    );
  }

  /** Writes [start, end) of the file as it arrives; each whole piece goes into the journal. */
  async #receive(
    response: AsyncIterable<Buffer>,
    start: number,
    end: number,
    onPiece: () => void,
  ): Promise<void> {
    let at = start;
    let hash = createHash("sha256");
    for await (const chunk of response) {
      if (at + chunk.length > end) throw this.#wrongLength(at + chunk.length);
      for (let from = 0; from < chunk.length; ) {
        const pieceEnd = Math.min((Math.floor(at / PIECE_BYTES) + 1) * PIECE_BYTES, end);
        const bytes = chunk.subarray(from, from + Math.min(chunk.length - from, pieceEnd - at));
        await writeFully(this.part, bytes, at);
        hash.update(bytes);
        at += bytes.length;
        from += bytes.length;
        if (at < pieceEnd) continue;
        const piece = Math.floor((at - 1) / PIECE_BYTES);
        await this.journal.appendFile(`${piece} ${hash.digest("hex")}\n`);
        hash = createHash("sha256");
        this.#done.add(piece);
        this.options.onBytes?.(pieceLength(piece, this.file.size));
        onPiece();
      }
    }
    if (at < end) throw new Error(`the answer ended after ${at - start} of ${end - start} bytes`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.part.close(), this.journal.close()]);
  }
}

const isDiskError = (error: unknown) =>
  ["write", "open", "ftruncate", "fsync"].includes(String((error as { syscall?: unknown }).syscall)) &&
  (error as NodeJS.ErrnoException).code !== "EPIPE";

const pieceLength = (piece: number, size: number) => Math.min(PIECE_BYTES, size - piece * PIECE_BYTES);

async function writeFully(part: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; )
    done += (await part.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
}

/** The pieces of the journal whose bytes still have the hash that is written there. */
async function verifiedPieces(part: FileHandle, journal: string, size: number): Promise<Set<number>> {
  const done = new Set<number>();
  const buffer = Buffer.alloc(Math.min(PIECE_BYTES, size));
  for (const line of journal.split("\n")) {
    const match = /^(\d{1,9}) ([0-9a-f]{64})$/.exec(line);
    if (match === null) continue;
    const piece = Number(match[1]);
    if (piece * PIECE_BYTES >= size) continue;
    const bytes = buffer.subarray(0, pieceLength(piece, size));
    const { bytesRead } = await part.read(bytes, 0, bytes.length, piece * PIECE_BYTES);
    const hash = createHash("sha256").update(bytes).digest("hex");
    if (bytesRead === bytes.length && hash === match[2]) done.add(piece);
  }
  return done;
}

async function hashOf(part: FileHandle, file: HubFile): Promise<string> {
  const hash = createHash(file.hash.kind === "sha256" ? "sha256" : "sha1");
  if (file.hash.kind === "git-sha1") hash.update(`blob ${file.size}\0`);
  const buffer = Buffer.alloc(PIECE_BYTES);
  for (let at = 0; at < file.size; ) {
    const { bytesRead } = await part.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
  return hash.digest("hex");
}

async function checkRoom(folder: string, needed: number, name: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (needed <= bavail * bsize) return;
  throw new OutriderError(
    "ERR_DOWNLOAD",
    `${folder}: ${quote(name)} needs ${gigabytes(needed)} more, the disk has ${gigabytes(bavail * bsize)} free; ` +
      "make room, or name another folder with HF_HUB_CACHE",
  );
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
