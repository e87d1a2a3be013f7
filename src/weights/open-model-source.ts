import { type GgufFile, openGguf } from "./gguf.js";
import { openGgufShards, shardCount } from "./gguf-shards.js";
import type { ModelSource } from "./model-source.js";

/**
 * Opens what a path names: a GGUF file, or all files of a model of which it is one. Reads headers, never weights.
 * Throws ERR_PATH, ERR_MODEL_FORMAT, ERR_MODEL_TRUNCATED, ERR_MODEL_LIMIT, ERR_MODEL_UNSUPPORTED.
 */
export async function openModelSource(path: string): Promise<ModelSource> {
  const file = await openGguf(path);
  if (await isWhole(file)) return file;
  return await openGgufShards(file);
}

async function isWhole(file: GgufFile): Promise<boolean> {
  try {
    return shardCount(file) === 1;
  } catch (error) {
    await file[Symbol.asyncDispose]();
    throw error;
  }
}
