import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { OutriderError } from "../errors.js";
import { cachedCommit, link, repositoryFolder, snapshotFiles, snapshotPath, writeRef } from "./cache.js";
import { type Choice, chooseFiles } from "./choose.js";
import { diskError, downloadBlob } from "./download.js";
import { type HubName, parseHubName } from "./name.js";
import { listRepository } from "./repository.js";
import type { Patience } from "./request.js";
import type { HubSettings } from "./settings.js";

export interface DownloadProgress {
  /** The file that bytes arrived of. */
  readonly file: string;
  /** Bytes of all files of the model that are there, and in all. */
  readonly done: number;
  readonly total: number;
}

export interface PullOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  readonly patience?: Patience | undefined;
}

/** A model's files in the cache. */
export interface PulledModel {
  /** What to open: a GGUF file, or the folder of a safetensors model. */
  readonly path: string;
  readonly commit: string;
  readonly files: readonly string[];
}

/**
 * Brings a model into the cache as the hub has it now, and says where it is. Files that are there already are not
 * fetched again. Throws ERR_PATH, ERR_DOWNLOAD, ERR_ABORTED.
 */
export async function pull(
  settings: HubSettings,
  name: string,
  options: PullOptions = {},
): Promise<PulledModel> {
  const parsed = parseHubName(name);
  if (settings.offline) return await offlineModel(settings, parsed, name);
  const repository = await listRepository(settings, parsed, options);
  const choice = chooseFiles(
    repository.files.map((file) => file.name),
    parsed.selector,
    name,
  );
  const files = choice.files.map((wanted) => repository.files.find((file) => file.name === wanted)!);
  const folder = repositoryFolder(settings.cache, parsed.repository);
  const total = files.reduce((sum, file) => sum + file.size, 0);
  let done = 0;
  for (const file of files) {
    await downloadBlob(settings, repository, folder, file, {
      signal: options.signal,
      patience: options.patience,
      onBytes: (bytes) => {
        done += bytes;
        options.onProgress?.({ file: file.name, done, total });
      },
    });
    await inCache(folder, () => link(folder, repository.commit, file.name, file.hash.value));
  }
  await inCache(folder, () => writeRef(folder, parsed.revision, repository.commit));
  return found(folder, repository.commit, choice);
}

async function inCache(folder: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw diskError(error, folder);
  }
}

/** Where a model is: in the cache, or else it is pulled. Throws what `pull` does. */
export async function locate(
  settings: HubSettings,
  name: string,
  options: PullOptions = {},
): Promise<PulledModel> {
  const cached = await findCached(settings, parseHubName(name));
  return cached ?? (await pull(settings, name, options));
}

/** The model if all its files are in the cache, without asking the hub. */
export async function findCached(settings: HubSettings, name: HubName): Promise<PulledModel | undefined> {
  const folder = repositoryFolder(settings.cache, name.repository);
  const commit = await cachedCommit(folder, name);
  if (commit === undefined) return undefined;
  const snapshot = snapshotPath(folder, commit);
  const names = await snapshotFiles(snapshot);
  try {
    const choice = chooseFiles(names, name.selector, name.repository);
    if (choice.kind === "safetensors" && !(await isComplete(snapshot, names))) return undefined;
    return found(folder, commit, choice);
  } catch (error) {
    if (error instanceof OutriderError) return undefined;
    throw error;
  }
}

/** Whether all weights that an index names are there. */
async function isComplete(snapshot: string, names: readonly string[]): Promise<boolean> {
  if (!names.includes("model.safetensors.index.json")) return true;
  try {
    const index = JSON.parse(await readFile(join(snapshot, "model.safetensors.index.json"), "utf8"));
    return Object.values(index.weight_map).every((file) => names.includes(file as string));
  } catch {
    return true; // whoever opens it says what is wrong with it
  }
}

async function offlineModel(settings: HubSettings, name: HubName, given: string): Promise<PulledModel> {
  const cached = await findCached(settings, name);
  if (cached !== undefined) return cached;
  throw new OutriderError(
    "ERR_DOWNLOAD",
    `${given} is not in the cache (${settings.cache}), and the network is not to be used` +
      `${settings.offline === "HF_HUB_OFFLINE" ? " while HF_HUB_OFFLINE is set; without it" : ";"} outrider pull ${given} fetches it`,
  );
}

function found(folder: string, commit: string, choice: Choice): PulledModel {
  const main = join(snapshotPath(folder, commit), choice.main);
  return { path: choice.kind === "GGUF" ? main : dirname(main), commit, files: choice.files };
}
