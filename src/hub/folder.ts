import { mkdir } from "node:fs/promises";
import path from "node:path";

/**
 * Creates a folder and those above it, where they are missing. Node's own `recursive` never ends where the system denies
 * that an existing folder exists, as /proc does.
 */
export async function createFolder(folder: string): Promise<void> {
  const create = (unless: (code: string | undefined) => boolean) =>
    mkdir(folder).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === "EEXIST") return true;
        if (unless(error.code)) return false;
        throw error;
      },
    );
  const above = path.dirname(folder);
  if (await create((code) => code === "ENOENT" && above !== folder)) return;
  await createFolder(above);
  await create(() => false);
}
