import { mkdir } from "node:fs/promises";
import path from "node:path";

/**
 * Creates a folder and those above it, where they are missing. Node's own `recursive` never ends where the system denies
 * that an existing folder exists, as /proc does.
 */
export async function createFolder(folder: string): Promise<void> {
  const create = () =>
    mkdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  const above = path.dirname(folder);
  try {
    await create();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || above === folder) throw error;
    await createFolder(above);
    await create();
  }
}
