import { OutriderError } from "../errors.js";
import { ModelFile } from "./model-file.js";

export type JsonObject = Readonly<Record<string, unknown>>;

/** A text file of at most `limit` bytes; undefined where there is none. Throws ERR_PATH, ERR_MODEL_LIMIT. */
export async function readText(path: string, limit: number): Promise<string | undefined> {
  let file: ModelFile;
  try {
    file = await ModelFile.open(path);
  } catch (error) {
    if ((error as { cause?: { code?: string } }).cause?.code === "ENOENT") return undefined;
    throw error;
  }
  await using _ = file;
  if (file.size > limit)
    throw new OutriderError(
      "ERR_MODEL_LIMIT",
      `${path}: the file has ${file.size} bytes, the limit is ${limit}`,
    );
  const bytes = Buffer.allocUnsafeSlow(file.size);
  await file.fill(bytes, 0, "text");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new OutriderError("ERR_MODEL_FORMAT", `${path}: the file is not valid UTF-8`, { cause: error });
  }
}

/** A JSON object; undefined where there is no such file. Throws ERR_PATH, ERR_MODEL_LIMIT, ERR_MODEL_FORMAT. */
export async function readJson(path: string, limit: number): Promise<JsonObject | undefined> {
  const text = await readText(path, limit);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const lfs = text.startsWith("version https://git-lfs")
      ? " but a git-LFS pointer; run `git lfs pull`"
      : "";
    throw new OutriderError("ERR_MODEL_FORMAT", `${path}: the file is not JSON${lfs}`, { cause: error });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw new OutriderError("ERR_MODEL_FORMAT", `${path}: the file is not a JSON object`);
}
