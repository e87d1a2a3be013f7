import { link, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { createFolder } from "./folder.js";
import { pause } from "./request.js";

const POLL_MS = 200;
// Of another machine on the same network drive one cannot see whether it still works.
const FOREIGN_STALE_MS = 10 * 60_000;
let counter = 0;

/**
 * Runs `work` while no other process does so for the same `path`; waits for its turn. A lock whose process is gone is
 * taken over. Throws ERR_ABORTED, and errors of the file system.
 */
export async function withLock<T>(
  path: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  await createFolder(dirname(path));
  const mine = `${process.pid} ${++counter} ${hostname()}`;
  const draft = `${path}.${process.pid}.${counter}`;
  await writeFile(draft, mine);
  try {
    while (!(await take(draft, path))) {
      if (await removeStale(path, draft)) continue;
      await pause(POLL_MS, signal);
    }
  } finally {
    await rm(draft, { force: true });
  }
  try {
    return await work();
  } finally {
    if ((await readFile(path, "utf8").catch(() => "")) === mine) await rm(path, { force: true });
  }
}

/** A link appears whole or not at all, and only one process makes it. */
async function take(draft: string, path: string): Promise<boolean> {
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function removeStale(path: string, draft: string): Promise<boolean> {
  const found = await readFile(path, "utf8").catch(() => undefined);
  if (found === undefined) return true;
  if (!(await isStale(path, found))) return false;
  const aside = `${draft}.stale`;
  try {
    await rename(path, aside);
  } catch {
    return true; // another one was faster
  }
  // Between the look and the grasp somebody may have taken the lock anew: then it goes back.
  if ((await readFile(aside, "utf8")) !== found) await link(aside, path).catch(() => undefined);
  await rm(aside, { force: true });
  return true;
}

async function isStale(path: string, found: string): Promise<boolean> {
  const [pid, , host] = found.split(" ");
  if (host !== hostname()) {
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }));
    return Date.now() - mtimeMs > FOREIGN_STALE_MS;
  }
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "EPERM";
  }
}
