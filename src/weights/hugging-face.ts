/**
 * A folder of the Hugging Face libraries as a model source: config.json, model.safetensors or its shards with an index,
 * tokenizer.json and what belongs to it. Names, layouts and settings are translated to GGUF's while they are read.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { OutriderError, quote } from "../errors.js";
import { toFloat32 } from "./float-vector.js";
import type { MetadataValue } from "./gguf-metadata.js";
import { type Config, type DescribedModel, describeModel } from "./hugging-face-config.js";
import type { Change } from "./hugging-face-families.js";
import { type JsonObject, readJson, readText } from "./json-file.js";
import { defaultChunkRows, type ModelFile } from "./model-file.js";
import type { ModelSource, ReadOptions, RowChunk, TensorInfo, TokenizerFiles } from "./model-source.js";
import { openSafetensors, type Safetensors, type SafetensorsTensor } from "./safetensors.js";

const MiB = 2 ** 20;
const CONFIG_BYTES = 16 * MiB;
const INDEX_BYTES = 64 * MiB;
const TOKENIZER_BYTES = 256 * MiB;
const TEMPLATE_BYTES = 4 * MiB;
// Read whole: vectors, and matrices that are turned.
const WHOLE_TENSOR_BYTES = 1024 * MiB;

/** Whether a folder describes a model to the Hugging Face libraries. */
export async function isHuggingFaceFolder(path: string): Promise<boolean> {
  return await stat(join(path, "config.json")).then(
    (found) => found.isFile(),
    () => false,
  );
}

/**
 * Opens a folder. Reads tables and settings, never weights. Throws ERR_PATH (a file that cannot be read, an index that
 * points out of the folder), ERR_MODEL_FORMAT, ERR_MODEL_LIMIT, ERR_MODEL_TRUNCATED (a file is missing or cut),
 * ERR_MODEL_UNSUPPORTED.
 */
export async function openHuggingFace(folder: string): Promise<ModelSource> {
  const configPath = join(folder, "config.json");
  const config = await readJson(configPath, CONFIG_BYTES);
  if (config === undefined) {
    const files = await readdir(folder).catch(() => []);
    const gguf = files.find((name) => name.endsWith(".gguf"));
    throw new OutriderError(
      "ERR_PATH",
      gguf === undefined
        ? `${folder}: the folder has no config.json, expected a model`
        : `${folder}: the folder has no config.json; name the file in it, ${join(folder, gguf)}`,
    );
  }
  const model = describeModel(config, configPath);
  const tokenizer = await readTokenizer(folder, config);
  const opened: Safetensors[] = [];
  try {
    const weights = await openWeights(folder, opened);
    return new HuggingFaceModel(folder, model, tokenizer, weights, opened);
  } catch (error) {
    await Promise.all(opened.map(({ file }) => file[Symbol.asyncDispose]()));
    throw error;
  }
}

async function readTokenizer(folder: string, config: JsonObject): Promise<TokenizerFiles | undefined> {
  const tokenizer = await readJson(join(folder, "tokenizer.json"), TOKENIZER_BYTES);
  if (tokenizer === undefined) return undefined;
  const generation = await readJson(join(folder, "generation_config.json"), CONFIG_BYTES);
  const ofProcessor = await readJson(join(folder, "chat_template.json"), TEMPLATE_BYTES);
  const template = await readText(join(folder, "chat_template.jinja"), TEMPLATE_BYTES);
  return {
    tokenizer,
    config: (await readJson(join(folder, "tokenizer_config.json"), CONFIG_BYTES)) ?? {},
    chatTemplate:
      template ?? (typeof ofProcessor?.chat_template === "string" ? ofProcessor.chat_template : undefined),
    endIds: wholeNumbers(generation?.eos_token_id ?? config.eos_token_id),
  };
}

/** One number or a list of them. */
function wholeNumbers(value: unknown): number[] {
  return [value].flat().filter((id): id is number => Number.isSafeInteger(id));
}

/** A tensor and the file that holds it. */
interface Place {
  readonly file: ModelFile;
  readonly tensor: SafetensorsTensor;
  /** Bytes of the files before this one. */
  readonly before: number;
}

async function openWeights(folder: string, opened: Safetensors[]): Promise<Map<string, Place>> {
  const indexPath = join(folder, "model.safetensors.index.json");
  const index = await readJson(indexPath, INDEX_BYTES);
  const places = new Map<string, Place>();
  if (index === undefined) {
    const path = join(folder, "model.safetensors");
    opened.push(await openShard(path, `the folder has neither model.safetensors nor its index`, folder));
    for (const tensor of opened[0]!.tensors.values())
      places.set(tensor.name, { file: opened[0]!.file, tensor, before: 0 });
    return places;
  }
  const shards = shardsOf(index, indexPath);
  for (const name of shards.keys())
    opened.push(
      await openShard(join(folder, name), `${quote(name)}, which the index names, is missing`, folder),
    );
  let before = 0;
  for (const [i, [name, tensors]] of [...shards].entries()) {
    const shard = opened[i]!;
    for (const tensor of tensors) {
      const found = shard.tensors.get(tensor);
      if (found === undefined)
        throw new OutriderError(
          "ERR_MODEL_FORMAT",
          `${indexPath}: tensor ${quote(tensor)} is not in ${quote(name)}; get both files again`,
        );
      places.set(tensor, { file: shard.file, tensor: found, before });
    }
    for (const tensor of shard.tensors.keys())
      if (places.get(tensor)?.file !== shard.file)
        throw new OutriderError(
          "ERR_MODEL_FORMAT",
          `${join(folder, name)}: tensor ${quote(tensor)} is in this file, but not by the index; get both again`,
        );
    before += shard.file.size;
  }
  return places;
}

/** The files that an index names, each with its tensors. */
function shardsOf(index: JsonObject, path: string): Map<string, string[]> {
  const map = index.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw new OutriderError("ERR_MODEL_FORMAT", `${path}: weight_map is missing or not an object`);
  const shards = new Map<string, string[]>();
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== "string")
      throw new OutriderError(
        "ERR_MODEL_FORMAT",
        `${path}: weight_map of ${quote(tensor)} is not a file's name`,
      );
    // Only names of files in the folder itself: no folders, drives, URLs.
    if (!/^[^/\\:\0]+\.safetensors$/.test(file))
      throw new OutriderError(
        "ERR_PATH",
        `${path}: weight_map of ${quote(tensor)} is ${quote(file)}, expected the name of a .safetensors file in the same folder`,
      );
    const tensors = shards.get(file);
    if (tensors === undefined) shards.set(file, [tensor]);
    else tensors.push(tensor);
  }
  if (shards.size === 0) throw new OutriderError("ERR_MODEL_FORMAT", `${path}: weight_map is empty`);
  return new Map([...shards].sort(([a], [b]) => (a < b ? -1 : 1)));
}

async function openShard(path: string, ifMissing: string, folder: string): Promise<Safetensors> {
  try {
    return await openSafetensors(path);
  } catch (error) {
    if ((error as { cause?: { code?: string } }).cause?.code !== "ENOENT") throw error;
    throw new OutriderError("ERR_MODEL_TRUNCATED", `${folder}: ${ifMissing}; download it too`, {
      cause: error,
    });
  }
}

const floatTypes = ["F32", "F16", "BF16"] as const;
type FloatType = (typeof floatTypes)[number];

/** Where a tensor's numbers come from. */
type Recipe =
  | {
      /** Several matrices with one row behind the other's: experts. */
      readonly parts: readonly Place[];
      readonly type: FloatType;
      readonly change: Change | undefined;
      /** Rows of a head that is interleaved. */
      readonly headRows: number;
    }
  | { readonly numbers: Float32Array };

class HuggingFaceModel implements ModelSource {
  readonly format = "safetensors";
  readonly files: readonly string[];
  readonly size: number;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #recipes = new Map<string, Recipe>();
  readonly #opened: readonly Safetensors[];

  constructor(
    readonly path: string,
    model: DescribedModel,
    readonly tokenizer: TokenizerFiles | undefined,
    places: ReadonlyMap<string, Place>,
    opened: readonly Safetensors[],
  ) {
    this.#opened = opened;
    this.files = opened.map(({ file }) => file.path);
    this.size = opened.reduce((sum, { file }) => sum + file.size, 0);
    this.metadata = model.metadata;
    this.tensors = this.#translate(model, places);
  }

  #translate(model: DescribedModel, places: ReadonlyMap<string, Place>): Map<string, TensorInfo> {
    const { family, config } = model;
    const tied = config.boolean("tie_word_embeddings");
    const experts = new Map<string, Place[]>();
    const tensors = new Map<string, TensorInfo>();
    const add = (name: string, parts: readonly Place[], change: Change | undefined) => {
      const { tensor } = parts[0]!;
      if (tensors.has(name))
        throw this.#wrong(tensor, "ERR_MODEL_FORMAT", `it is the second one for ${name}`);
      const type = this.#floatType(tensor);
      this.#recipes.set(name, { parts, type, change, headRows: this.#headRows(tensor, change, config) });
      tensors.set(name, describe(name, parts, type, change));
    };
    for (const [name, place] of places) {
      if (family.ignored?.some((pattern) => pattern.test(name))) continue;
      const target = findTarget(family.tensors, name);
      if (target === undefined)
        throw this.#wrong(
          place.tensor,
          "ERR_MODEL_UNSUPPORTED",
          `it is not part of a ${quote(family.modelTypes[0]!)} model: the folder needs something that Outrider does not have`,
        );
      if (target.name === "output.weight" && tied) continue;
      if (target.expert === undefined) {
        add(target.name, [place], target.change);
        continue;
      }
      const parts = experts.get(target.name) ?? [];
      if (target.expert > 4096)
        throw this.#wrong(place.tensor, "ERR_MODEL_LIMIT", "the number of its expert is over 4096");
      parts[target.expert] = place;
      experts.set(target.name, parts);
    }
    for (const [name, parts] of experts) {
      const missing = Array.from<Place | undefined>(parts).indexOf(undefined);
      if (missing >= 0)
        throw new OutriderError("ERR_MODEL_FORMAT", `${this.path}: expert ${missing} of ${name} is missing`);
      const first = parts[0]!.tensor;
      const other = parts.find(
        ({ tensor }) => String(tensor.shape) !== String(first.shape) || tensor.dtype !== first.dtype,
      );
      if (other !== undefined)
        throw this.#wrong(
          other.tensor,
          "ERR_MODEL_FORMAT",
          `it differs in shape or dtype from ${quote(first.name)}`,
        );
      add(name, parts, undefined);
    }
    for (const [name, numbers] of Object.entries(family.extraTensors?.(config) ?? {})) {
      this.#recipes.set(name, { numbers });
      const [columns, bytes] = [numbers.length, numbers.byteLength];
      tensors.set(name, { name, type: "F32", shape: [columns], rows: 1, columns, offset: this.size, bytes });
    }
    return tensors;
  }

  /** Rows of a head, where they are interleaved; else 1. */
  #headRows(tensor: SafetensorsTensor, change: Change | undefined, config: Config): number {
    if (change !== "interleave q" && change !== "interleave k") return 1;
    const all = config.required("num_attention_heads");
    const heads = change === "interleave k" ? (config.number("num_key_value_heads") ?? all) : all;
    const rows = tensor.shape[0] ?? 1;
    if (rows % (2 * heads) === 0) return rows / heads;
    throw this.#wrong(tensor, "ERR_MODEL_FORMAT", `${rows} rows are not ${heads} heads of an even size`);
  }

  #floatType(tensor: SafetensorsTensor): FloatType {
    const type = floatTypes.find((known) => known === tensor.dtype);
    if (type !== undefined && tensor.bytes > 0) return type;
    throw this.#wrong(
      tensor,
      type === undefined ? "ERR_MODEL_UNSUPPORTED" : "ERR_MODEL_FORMAT",
      type === undefined
        ? `dtype ${tensor.dtype} is not supported; supported: ${floatTypes.join(", ")}`
        : "it is empty",
    );
  }

  #wrong(
    tensor: SafetensorsTensor,
    code: "ERR_MODEL_FORMAT" | "ERR_MODEL_UNSUPPORTED" | "ERR_MODEL_LIMIT",
    problem: string,
  ): OutriderError {
    return new OutriderError(code, `${this.path}: tensor ${quote(tensor.name)}: ${problem}`);
  }

  async *read(info: TensorInfo, options: ReadOptions = {}): AsyncGenerator<RowChunk, void, undefined> {
    const recipe = this.#recipes.get(info.name)!;
    if ("numbers" in recipe) {
      yield { firstRow: 0, rows: 1, bytes: new Uint8Array(recipe.numbers.buffer) };
    } else if (info.shape.length === 1) {
      yield { firstRow: 0, rows: 1, bytes: await readVector(recipe.parts[0]!, recipe) };
    } else if (recipe.change === "transpose") {
      yield* readTransposed(recipe.parts[0]!, info, options);
    } else {
      let firstRow = 0;
      for (const part of recipe.parts) {
        for await (const chunk of readRows(part, recipe.headRows, options))
          yield { ...chunk, firstRow: firstRow + chunk.firstRow };
        firstRow += part.tensor.shape[0]!;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#opened.map(({ file }) => file[Symbol.asyncDispose]()));
  }
}

/** The GGUF name for a tensor's name; the layer's and the expert's number are carried over. */
function findTarget(
  table: DescribedModel["family"]["tensors"],
  name: string,
): { name: string; change: Change | undefined; expert: number | undefined } | undefined {
  const match =
    /^(?:model\.language_model\.|(?:language_model\.)?model\.|language_model\.|transformer\.)?(.+)\.(weight|bias)$/.exec(
      name,
    );
  if (match === null) return undefined;
  const [, stem, kind] = match as unknown as [string, string, string];
  const numbers: string[] = [];
  const pattern = stem.replace(/(?<=\.)\d{1,6}(?=\.|$)/g, (number) => {
    numbers.push(number);
    return numbers.length === 1 ? "{i}" : "{e}";
  });
  if (!Object.hasOwn(table, pattern)) return undefined;
  const target = table[pattern]!;
  const [to, change] = typeof target === "string" ? [target, undefined] : target;
  return {
    name: `${to.replace("{i}", numbers[0] ?? "")}.${kind}`,
    change: kind === "bias" && change === "transpose" ? undefined : change,
    expert: numbers[1] === undefined ? undefined : Number(numbers[1]),
  };
}

function describe(
  name: string,
  parts: readonly Place[],
  type: FloatType,
  change: Change | undefined,
): TensorInfo {
  const { tensor, before } = parts[0]!;
  const offset = before + tensor.offset;
  if (tensor.shape.length < 2) {
    const columns = tensor.shape[0] ?? 1;
    return { name, type: "F32", shape: [columns], rows: 1, columns, offset, bytes: 4 * columns };
  }
  const inner = change === "transpose" ? [...tensor.shape] : tensor.shape.toReversed();
  const shape = parts.length === 1 ? inner : [...inner, parts.length];
  const columns = shape[0]!;
  const rows = shape.slice(1).reduce((product, n) => product * n, 1);
  return { name, type, shape, rows, columns, offset, bytes: parts.length * tensor.bytes };
}

async function readWhole({ file, tensor }: Place): Promise<Uint8Array<ArrayBuffer>> {
  const what = `tensor ${quote(tensor.name)}`;
  if (tensor.bytes > WHOLE_TENSOR_BYTES)
    throw new OutriderError(
      "ERR_MODEL_LIMIT",
      `${file.path}: ${what}: it has ${tensor.bytes} bytes, the limit for its kind is ${WHOLE_TENSOR_BYTES}`,
    );
  const bytes = new Uint8Array(tensor.bytes);
  await file.fill(bytes, tensor.offset, what);
  return bytes;
}

async function readVector(
  place: Place,
  recipe: { type: FloatType; change: Change | undefined; headRows: number },
) {
  const numbers = toFloat32(recipe.type, await readWhole(place));
  if (recipe.change === "add one") for (let i = 0; i < numbers.length; i++) numbers[i]! += 1;
  const bytes = new Uint8Array(numbers.buffer);
  if (recipe.change?.startsWith("interleave")) interleave(bytes, 4, recipe.headRows);
  return bytes;
}

/** Rows as they are, or with those of each head interleaved. */
async function* readRows(
  { file, tensor }: Place,
  headRows: number,
  options: ReadOptions,
): AsyncGenerator<RowChunk, void, undefined> {
  const rows = tensor.shape[0]!;
  const rowBytes = tensor.bytes / rows;
  const range = { what: `tensor ${quote(tensor.name)}`, offset: tensor.offset, rows, rowBytes };
  if (headRows === 1) return yield* file.rows(range, options);
  const wanted = options.chunkRows ?? defaultChunkRows(rowBytes);
  const chunkRows = Math.max(1, Math.floor(wanted / headRows)) * headRows;
  for await (const chunk of file.rows(range, { chunkRows })) {
    interleave(chunk.bytes, rowBytes, headRows);
    yield chunk;
  }
}

/** In each head, row j of the first half goes to 2 j, row j of the second half to 2 j + 1. */
function interleave(bytes: Uint8Array, rowBytes: number, headRows: number): void {
  const headBytes = headRows * rowBytes;
  const half = headBytes / 2;
  const head = new Uint8Array(headBytes);
  for (let at = 0; at < bytes.length; at += headBytes) {
    head.set(bytes.subarray(at, at + headBytes));
    for (let row = 0; row < headRows; row++) {
      const from = (row >> 1) * rowBytes + (row & 1) * half;
      bytes.set(head.subarray(from, from + rowBytes), at + row * rowBytes);
    }
  }
}

async function* readTransposed(
  place: Place,
  info: TensorInfo,
  options: ReadOptions,
): AsyncGenerator<RowChunk, void, undefined> {
  const whole = await readWhole(place);
  const rowBytes = info.bytes / info.rows;
  const size = rowBytes / info.columns;
  const element = size === 4 ? Uint32Array : Uint16Array;
  const from = new element(whole.buffer);
  const chunkRows = options.chunkRows ?? defaultChunkRows(rowBytes);
  for (let firstRow = 0; firstRow < info.rows; firstRow += chunkRows) {
    const rows = Math.min(chunkRows, info.rows - firstRow);
    const to = new element(rows * info.columns);
    for (let column = 0; column < info.columns; column++)
      for (let row = 0; row < rows; row++)
        to[row * info.columns + column] = from[column * info.rows + firstRow + row]!;
    yield { firstRow, rows, bytes: new Uint8Array(to.buffer) };
  }
}
