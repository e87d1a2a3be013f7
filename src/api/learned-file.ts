import { createHash, randomUUID } from "node:crypto";
import { open, readFile, rename, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { DraftMemory } from "../decoding/memory.js";
import { createFolder } from "../hub/folder.js";
import type { ModelSource } from "../weights/model-source.js";

/** Fewer tokens than this are not worth a file. */
const WORTH_TOKENS = 32;
const SAVE_EVERY_MS = 10 * 60_000;

/**
 * Keeps what drafting learned from a model's texts between processes, so that drafts are better from the first token
 * on. The file is found by the model's content, never grows beyond a few megabytes, and is replaced as a whole; of two
 * processes the last one's counts stay. Deleting it costs nothing but speed, and so does a damaged one: whatever fails
 * here is no reason for a text to fail.
 */
export class LearnedFile {
  readonly #memory: DraftMemory;
  readonly #file: string | undefined;
  /** Not looked at yet. */
  readonly #candidates: string[];
  #unpacked: Promise<Buffer | undefined> | undefined;
  #tokens = 0;
  #savedAt = Date.now();
  #saving: Promise<void> | undefined;

  private constructor(memory: DraftMemory, file: string | undefined, candidates: string[]) {
    this.#memory = memory;
    this.#file = file;
    this.#candidates = candidates;
  }

  /**
   * Finds the user's file, or else the one that lies beside the model (NAME.learned beside NAME.gguf), and begins to
   * unpack it off the main thread. Without `folder` nothing of the user's is read or written.
   */
  static async open(
    memory: DraftMemory,
    source: ModelSource,
    folder: string | undefined,
  ): Promise<LearnedFile> {
    // A model file that cannot be read any more is told by whoever reads its weights.
    const name = folder && (await fingerprint(source).catch(() => undefined));
    const file = folder && name && path.join(folder, "learned", `${name}.learned`);
    const beside = source.path.replace(/\.gguf$/, ".learned");
    const candidates = [file, beside === source.path ? undefined : beside];
    const learned = new LearnedFile(
      memory,
      file,
      candidates.filter((candidate) => candidate !== undefined),
    );
    await learned.#readNext();
    return learned;
  }

  async #readNext(): Promise<void> {
    this.#unpacked = undefined;
    for (let file = this.#candidates.shift(); file; file = this.#candidates.shift()) {
      const bytes = await readFile(file).catch(() => undefined);
      if (bytes === undefined) continue;
      this.#unpacked = DraftMemory.unpack(bytes);
      return;
    }
  }

  /** Fills the memory with what was found; token ids are below `vocab`. */
  async fill(vocab: number): Promise<void> {
    while (this.#unpacked && !this.#memory.add(await this.#unpacked, vocab)) await this.#readNext();
    this.#unpacked = undefined;
  }

  /** So many tokens more were written. Saves now and then, in the background. */
  learned(tokens: number): void {
    this.#tokens += tokens;
    if (Date.now() - this.#savedAt >= SAVE_EVERY_MS) void this.save();
  }

  /** Saves what is new; harmless where nothing is, or where it may not be written. */
  async save(): Promise<void> {
    await this.#saving;
    if (this.#file === undefined || this.#tokens < WORTH_TOKENS) return;
    this.#tokens = 0;
    this.#savedAt = Date.now();
    this.#saving = this.#write(this.#file).catch(() => undefined);
    await this.#saving;
  }

  async #write(file: string): Promise<void> {
    await replaceFile(file, await this.#memory.save());
  }
}

/** Writes a file as a whole, with its folder: a reader finds the old one or the new one. */
export async function replaceFile(file: string, contents: Uint8Array | string): Promise<void> {
  await createFolder(path.dirname(file));
  const draft = `${file}.${randomUUID()}`;
  try {
    // What a model said may be private.
    await writeFile(draft, contents, { mode: 0o600 });
    await rename(draft, file);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}

/**
 * Where Outrider keeps what it can do without: `OUTRIDER_CACHE`, or the place that the system has for such things.
 * Undefined for a user without a home folder, as in containers that run under any number.
 */
export function cacheFolder(
  env: NodeJS.ProcessEnv = process.env,
  platform = process.platform,
  homeFolder = os.homedir,
): string | undefined {
  if (env.OUTRIDER_CACHE) return path.resolve(env.OUTRIDER_CACHE);
  if (env.XDG_CACHE_HOME) return path.join(env.XDG_CACHE_HOME, "outrider");
  if (platform === "win32" && env.LOCALAPPDATA) return path.join(env.LOCALAPPDATA, "outrider");
  let home: string;
  try {
    home = homeFolder();
  } catch {
    return undefined;
  }
  if (home === "") return undefined;
  return platform === "darwin"
    ? path.join(home, "Library", "Caches", "outrider")
    : path.join(home, ".cache", "outrider");
}

const SAMPLES = 16;
const SAMPLE_BYTES = 4096;

/** By sizes and samples of the files' content: two models that share all of these draft alike anyway. */
export async function fingerprint(source: ModelSource): Promise<string> {
  const hash = createHash("sha256");
  const bytes = Buffer.alloc(SAMPLE_BYTES);
  for (const name of source.files) {
    const file = await open(name);
    try {
      const { size } = await file.stat();
      hash.update(`${size};`);
      for (let i = 0; i < SAMPLES; i++) {
        const at = Math.floor((i * Math.max(0, size - SAMPLE_BYTES)) / (SAMPLES - 1));
        const { bytesRead } = await file.read(bytes, 0, SAMPLE_BYTES, at);
        hash.update(bytes.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  }
  return hash.digest("hex").slice(0, 32);
}
