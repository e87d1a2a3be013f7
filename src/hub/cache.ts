/**
 * The cache folder of the Hugging Face libraries, as they lay it out, so that no file is stored twice: for each
 * repository `blobs/HASH`, `snapshots/COMMIT/NAME` as links into it, and `refs/REVISION` that hold a commit.
 */
import {
  lstat,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join, relative, resolve, sep } from "node:path";
import { OutriderError, quote } from "../errors.js";
import { createFolder } from "./folder.js";
import type { HubName } from "./name.js";

export function repositoryFolder(cache: string, repository: string): string {
  return join(cache, `models--${repository.replace("/", "--")}`);
}

export const blobPath = (folder: string, hash: string) => join(folder, "blobs", hash);
export const snapshotPath = (folder: string, commit: string) => join(folder, "snapshots", commit);

/** The commit that a revision stood for when it was last asked for; undefined where it never was. */
export async function cachedCommit(folder: string, { revision }: HubName): Promise<string | undefined> {
  if (/^[0-9a-f]{40}$/.test(revision)) return revision;
  const text = await readFile(join(folder, "refs", revision), "utf8").catch(() => "");
  return /^[0-9a-f]{40}$/.exec(text.trim())?.[0];
}

export async function writeRef(folder: string, revision: string, commit: string): Promise<void> {
  if (revision === commit) return;
  const path = join(folder, "refs", revision);
  if ((await readFile(path, "utf8").catch(() => "")) === commit) return;
  await createFolder(dirname(path));
  await writeAtomically(path, commit);
}

async function writeAtomically(path: string, text: string): Promise<void> {
  const draft = `${path}.${process.pid}.tmp`;
  await writeFile(draft, text);
  await rename(draft, path);
}

/** The names of a snapshot's files that are really there. */
export async function snapshotFiles(snapshot: string): Promise<string[]> {
  const entries = await readdir(snapshot, { recursive: true, withFileTypes: true }).catch(() => []);
  const names: string[] = [];
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    // A link whose blob is gone does not count.
    if ((await stat(path).catch(() => undefined))?.isFile())
      names.push(relative(snapshot, path).split(sep).join("/"));
  }
  return names.sort();
}

/** Makes `name` of a snapshot stand for a blob. Never leaves the snapshot's folder. */
export async function link(folder: string, commit: string, name: string, hash: string): Promise<string> {
  const snapshot = snapshotPath(folder, commit);
  const path = join(snapshot, name);
  await createFolder(dirname(path));
  // A folder on the way may be a link that somebody else put there.
  const real = await realpath(dirname(path));
  const inside = await realpath(snapshot);
  if (real !== inside && !real.startsWith(inside + sep))
    throw new OutriderError("ERR_PATH", `${quote(name)} leads out of ${snapshot}; remove what is there`);
  const target = relative(dirname(path), blobPath(folder, hash));
  if ((await readlink(path).catch(() => undefined)) === target) return path;
  const draft = `${path}.${process.pid}.tmp`;
  await rm(draft, { force: true });
  await symlink(target, draft);
  await rename(draft, path);
  return path;
}

export interface CachedModel {
  /** `OWNER/REPO` */
  readonly repository: string;
  readonly folder: string;
  readonly revisions: readonly {
    readonly commit: string;
    readonly refs: readonly string[];
    readonly files: readonly CachedFile[];
  }[];
  /** Bytes of its blobs, each once. */
  readonly bytes: number;
  /** When a file of it was last read or written, by the file system. */
  readonly lastUsed: Date;
}

export interface CachedFile {
  readonly name: string;
  readonly bytes: number;
  /** Where the bytes are. */
  readonly blob: string;
}

/** Every model in the cache; no folder is an empty cache. What is damaged is left out. */
export async function listCached(cache: string): Promise<CachedModel[]> {
  const models: CachedModel[] = [];
  for (const entry of await readdir(cache, { withFileTypes: true }).catch(() => [])) {
    const match = /^models--([^-].*?)--(.+)$/.exec(entry.name);
    if (match === null || !entry.isDirectory()) continue;
    const model = await readCached(join(cache, entry.name), `${match[1]}/${match[2]}`);
    if (model.revisions.length > 0) models.push(model);
  }
  return models.sort((a, b) => b.lastUsed.getTime() - a.lastUsed.getTime());
}

async function readCached(folder: string, repository: string): Promise<CachedModel> {
  const refs = new Map<string, string[]>();
  for (const entry of await readdir(join(folder, "refs"), { recursive: true, withFileTypes: true }).catch(
    () => [],
  )) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const commit = (await readFile(path, "utf8").catch(() => "")).trim();
    refs.set(commit, [...(refs.get(commit) ?? []), relative(join(folder, "refs"), path)]);
  }
  const blobs = new Map<string, number>();
  let lastUsed = 0;
  const revisions = [];
  for (const commit of (await readdir(join(folder, "snapshots")).catch(() => [])).sort()) {
    const snapshot = snapshotPath(folder, commit);
    const files: CachedFile[] = [];
    for (const name of await snapshotFiles(snapshot)) {
      const blob = await realpath(join(snapshot, name));
      const { size, atimeMs, mtimeMs } = await stat(blob);
      blobs.set(blob, size);
      lastUsed = Math.max(lastUsed, atimeMs, mtimeMs);
      files.push({ name, bytes: size, blob });
    }
    if (files.length > 0) revisions.push({ commit, refs: refs.get(commit) ?? [], files });
  }
  const bytes = [...blobs.values()].reduce((sum, size) => sum + size, 0);
  return { repository, folder, revisions, bytes, lastUsed: new Date(lastUsed) };
}

/**
 * Removes files of a model's revision, and of its blobs those that no other name stands for; without `names` the whole
 * model. Returns the bytes that became free. Throws ERR_PATH.
 */
export async function removeCached(
  cache: string,
  model: CachedModel,
  commit?: string,
  names?: readonly string[],
): Promise<number> {
  try {
    return await remove(cache, model, commit, names);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    const why = ["EACCES", "EPERM", "EROFS"].includes(code) ? "no permission to write there" : code;
    throw new OutriderError("ERR_PATH", `${model.folder}: cannot be removed: ${why}`, { cause: error });
  }
}

async function remove(
  cache: string,
  model: CachedModel,
  commit?: string,
  names?: readonly string[],
): Promise<number> {
  if (commit === undefined || names === undefined) {
    await rm(model.folder, { recursive: true });
    await rm(join(cache, ".locks", model.folder.slice(dirname(model.folder).length + 1)), {
      recursive: true,
      force: true,
    });
    return model.bytes;
  }
  const others = model.revisions.flatMap((revision) =>
    revision.files.filter(({ name }) => revision.commit !== commit || !names.includes(name)),
  );
  if (others.length === 0) return await remove(cache, model);
  let freed = 0;
  for (const { name, blob, bytes } of model.revisions.find((r) => r.commit === commit)?.files ?? []) {
    if (!names.includes(name)) continue;
    await rm(join(snapshotPath(model.folder, commit), name), { force: true });
    // Only in the repository's own folder, wherever a link may point.
    const own = resolve(blob).startsWith(join(await realpath(model.folder), "blobs") + sep);
    if (!own || others.some((other) => other.blob === blob)) continue;
    if (await lstat(blob).catch(() => undefined)) {
      await rm(blob);
      freed += bytes;
    }
  }
  return freed;
}
