/**
 * A GGUF model in several files, `NAME-00001-of-00003.gguf` and so on, as llama.cpp's gguf-split writes them. Every shard
 * is a GGUF file with its own table of tensors; the first one also has the model's metadata. Keys `split.*` say which
 * shard it is (from 0), of how many, and how many tensors all have.
 */
import { basename, dirname, join } from "node:path";
import { OutriderError, quote } from "../errors.js";
import { type GgufFile, openGguf } from "./gguf.js";
import type { MetadataValue } from "./gguf-metadata.js";
import type { ModelSource, ReadOptions, RowChunk, TensorInfo } from "./model-source.js";

const shardName = /^(.*-)(\d{5})-of-(\d{5})\.gguf$/;
const MOST_SHARDS = 1000;

/** The names of all shards that belong to the one of that name; undefined where the name is not that of a shard. */
export function shardNames(name: string): string[] | undefined {
  const match = shardName.exec(name);
  if (!match) return undefined;
  const [, stem, index, count] = match as unknown as [string, string, string, string];
  const total = Number(count);
  if (Number(index) < 1 || Number(index) > total || total > MOST_SHARDS) return undefined;
  return Array.from({ length: total }, (_, i) => `${stem}${String(i + 1).padStart(5, "0")}-of-${count}.gguf`);
}

/** `split.count` of a GGUF file; 1 for a whole model. */
export function shardCount(file: GgufFile): number {
  const value = file.metadata.get("split.count");
  return value === undefined ? 1 : splitNumber(file, "split.count");
}

/**
 * Opens all shards of which `first` is one; `first` belongs to the result from then on. Throws ERR_MODEL_TRUNCATED
 * where shards are missing, ERR_MODEL_FORMAT where they do not belong together, and what `openGguf` throws.
 */
export async function openGgufShards(first: GgufFile): Promise<ModelSource> {
  const opened: GgufFile[] = [first];
  try {
    const names = shardNames(basename(first.path));
    const count = shardCount(first);
    if (names === undefined || names.length !== count)
      throw new OutriderError(
        "ERR_MODEL_FORMAT",
        `${first.path}: this is one of the ${count} files of a model, but its name is not ` +
          `NAME-00001-of-${String(count).padStart(5, "0")}.gguf, so the others cannot be found; give all their first names back`,
      );
    const folder = dirname(first.path);
    const missing: string[] = [];
    const shards: GgufFile[] = [];
    for (const name of names) {
      if (name === basename(first.path)) {
        shards.push(first);
        continue;
      }
      try {
        const shard = await openGguf(join(folder, name));
        opened.push(shard);
        shards.push(shard);
      } catch (error) {
        if ((error as { cause?: { code?: string } }).cause?.code !== "ENOENT") throw error;
        missing.push(name);
      }
    }
    if (missing.length > 0)
      throw new OutriderError(
        "ERR_MODEL_TRUNCATED",
        `${first.path}: ${missing.length} of the model's ${count} files are missing beside it: ` +
          `${missing.slice(0, 3).map(quote).join(", ")}${missing.length > 3 ? " …" : ""}; download them too`,
      );
    return new GgufShards(first.path, shards);
  } catch (error) {
    await Promise.all(opened.map((file) => file[Symbol.asyncDispose]()));
    throw error;
  }
}

class GgufShards implements ModelSource {
  readonly format = "GGUF";
  readonly files: readonly string[];
  readonly size: number;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #shards: readonly GgufFile[];
  /** The shard that holds a tensor, and the tensor as that shard describes it. */
  readonly #places = new Map<string, { readonly shard: GgufFile; readonly tensor: TensorInfo }>();

  constructor(
    readonly path: string,
    shards: readonly GgufFile[],
  ) {
    this.#shards = shards;
    this.files = shards.map((shard) => shard.path);
    this.size = shards.reduce((sum, shard) => sum + shard.size, 0);
    const first = shards[0]!;
    this.metadata = first.metadata;
    const tensors = new Map<string, TensorInfo>();
    let before = 0;
    for (const [index, shard] of shards.entries()) {
      checkShard(shard, index, first, shards.length);
      for (const tensor of shard.tensors.values()) {
        const other = this.#places.get(tensor.name)?.shard.path;
        if (other !== undefined)
          throw new OutriderError(
            "ERR_MODEL_FORMAT",
            `${shard.path}: tensor ${quote(tensor.name)} is in ${basename(other)} too; get both files again`,
          );
        this.#places.set(tensor.name, { shard, tensor });
        tensors.set(tensor.name, { ...tensor, offset: before + tensor.offset });
      }
      before += shard.size;
    }
    const declared = first.metadata.has("split.tensors.count")
      ? splitNumber(first, "split.tensors.count")
      : tensors.size;
    if (declared !== tensors.size)
      throw new OutriderError(
        "ERR_MODEL_FORMAT",
        `${first.path}: split.tensors.count is ${declared}, the ${shards.length} files have ${tensors.size} tensors; ` +
          "they are not of the same model or version",
      );
    this.tensors = tensors;
  }

  read(tensor: TensorInfo, options?: ReadOptions): AsyncIterable<RowChunk> {
    const place = this.#places.get(tensor.name)!;
    return place.shard.read(place.tensor, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#shards.map((shard) => shard[Symbol.asyncDispose]()));
  }
}

function checkShard(shard: GgufFile, index: number, first: GgufFile, count: number): void {
  const fail = (what: string) => {
    throw new OutriderError(
      "ERR_MODEL_FORMAT",
      `${shard.path}: ${what}; the model's files do not belong together, get them again`,
    );
  };
  const found = shardCount(shard);
  if (found !== count) fail(`split.count is ${found}, the name says ${count}`);
  const number = splitNumber(shard, "split.no");
  if (number !== index)
    fail(`this is file ${number + 1} of the model (split.no ${number}), the name says ${index + 1}`);
  const architecture = shard.metadata.get("general.architecture");
  const expected = first.metadata.get("general.architecture");
  if (architecture !== undefined && architecture !== expected)
    fail(
      `general.architecture is ${quote(String(architecture))}, in the first file ${quote(String(expected))}`,
    );
}

function splitNumber(file: GgufFile, key: string): number {
  const value = file.metadata.get(key);
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
  const found = value === undefined ? "missing" : "not a whole number";
  throw new OutriderError("ERR_MODEL_FORMAT", `${file.path}: ${key} is ${found}`);
}
