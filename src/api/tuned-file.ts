import { readFile } from "node:fs/promises";
import path from "node:path";
import { areDraftLayers } from "../engine/draft-layers.js";
import type { ModelSource } from "../weights/model-source.js";
import { fingerprint, replaceFile } from "./learned-file.js";

/** Where the layers that `tune` chose for a model are kept: found by the model's content. */
export async function tunedFile(source: ModelSource, folder: string): Promise<string> {
  return path.join(folder, "tuned", `${await fingerprint(source)}.json`);
}

/** The layers that it holds; undefined where there is no such file, or none that fits a model of so many layers. */
export async function readTuned(file: string, layers: number): Promise<readonly number[] | undefined> {
  try {
    const { kept } = JSON.parse(await readFile(file, "utf8"));
    return areDraftLayers(kept, layers) ? kept : undefined;
  } catch {
    return undefined;
  }
}

export function writeTuned(file: string, kept: readonly number[]): Promise<void> {
  return replaceFile(file, `${JSON.stringify({ kept })}\n`);
}
