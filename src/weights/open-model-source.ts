import { stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { OutriderError, quote } from "../errors.js";
import { type GgufFile, openGguf } from "./gguf.js";
import { openGgufShards, shardCount } from "./gguf-shards.js";
import { isHuggingFaceFolder, openHuggingFace } from "./hugging-face.js";
import type { ModelSource } from "./model-source.js";
import { checkQuantization, type Quantization, quantised } from "./quantise.js";

/**
 * Opens what a path names: a GGUF file, or all files of a model of which it is one; a folder with config.json and
 * safetensors files, or one of these files. Reads headers, never weights. `quantization`: see `quantised`.
 * Throws ERR_PATH, ERR_MODEL_FORMAT, ERR_MODEL_TRUNCATED, ERR_MODEL_LIMIT, ERR_MODEL_UNSUPPORTED, ERR_BAD_REQUEST.
 */
export async function openModelSource(path: string, quantization?: Quantization): Promise<ModelSource> {
  checkQuantization(quantization);
  return quantised(await openAsItIs(path), quantization);
}

async function openAsItIs(path: string): Promise<ModelSource> {
  if (path === "") throw new OutriderError("ERR_PATH", "the path of the model is empty");
  if (/^https?:\/\//i.test(path))
    throw new OutriderError(
      "ERR_PATH",
      `${path}: this is an address, expected a path: download it, or name a model of the hub as hf:OWNER/REPO`,
    );
  if (path.endsWith(".safetensors") || path.endsWith(".safetensors.index.json")) {
    const folder = dirname(path);
    if (await isHuggingFaceFolder(folder)) return await openHuggingFace(folder);
    throw new OutriderError(
      "ERR_PATH",
      `${path}: the folder has no config.json beside ${quote(basename(path))}; weights alone are not a model`,
    );
  }
  if (await isFolder(path)) return await openHuggingFace(path);
  const file = await openGguf(path);
  if (await isWhole(file)) return file;
  return await openGgufShards(file);
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isDirectory(),
    () => false, // whatever it is, opening it as a file will tell
  );
}

async function isWhole(file: GgufFile): Promise<boolean> {
  try {
    return shardCount(file) === 1;
  } catch (error) {
    await file[Symbol.asyncDispose]();
    throw error;
  }
}
