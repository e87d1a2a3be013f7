/** Reads GGUF files: the header at once, the data of tensors as a stream of rows. */
import { quote } from "../errors.js";
import { defaultGgufLimits, type GgufLimits } from "./gguf-cursor.js";
import { FIXED_HEADER_BYTES, type GgufHeader, parseGgufHeader } from "./gguf-header.js";
import { ModelFile } from "./model-file.js";
import type { ModelSource, ReadOptions, RowChunk, TensorInfo } from "./model-source.js";

export { defaultGgufLimits, type GgufLimits } from "./gguf-cursor.js";
export type { GgufHeader } from "./gguf-header.js";
export type { MetadataArray, MetadataValue } from "./gguf-metadata.js";
export type { ReadOptions, RowChunk, TensorInfo } from "./model-source.js";
export type { WeightType } from "./weight-type.js";

/** An open GGUF file. */
export interface GgufFile extends GgufHeader, ModelSource {}

// The header of a 49k vocabulary has 1.8 MB, of a 256k vocabulary 15 MB. A header that goes on is read again from
// the start with four times as much.
const FIRST_READ_BYTES = 2 * 2 ** 20;

/**
 * Opens a GGUF file and reads its header (never the data). Throws ERR_PATH if there is no readable file at `path`,
 * ERR_MODEL_FORMAT, ERR_MODEL_TRUNCATED, ERR_MODEL_LIMIT or ERR_MODEL_UNSUPPORTED if the file is not what it should be.
 */
export async function openGguf(path: string, limits?: Partial<GgufLimits>): Promise<GgufFile> {
  const file = await ModelFile.open(path);
  try {
    return new OpenGguf(file, await readHeader(file, { ...defaultGgufLimits, ...limits }));
  } catch (error) {
    await file[Symbol.asyncDispose]();
    throw error;
  }
}

async function readHeader(file: ModelFile, limits: GgufLimits): Promise<GgufHeader> {
  // First the fixed part with some bytes more, so that a wrong file costs no memory.
  let wanted = Math.min(file.size, FIXED_HEADER_BYTES + 1024);
  for (;;) {
    const bytes = Buffer.allocUnsafeSlow(wanted);
    await file.fill(bytes, 0, "header");
    const header = parseGgufHeader(bytes, file.size, file.path, limits);
    if (!("bytesNeeded" in header)) return header;
    wanted = Math.min(file.size, Math.max(FIRST_READ_BYTES, 4 * wanted, header.bytesNeeded));
  }
}

class OpenGguf implements GgufFile {
  readonly format = "GGUF";
  readonly path: string;
  readonly files: readonly string[];
  readonly size: number;
  readonly version: number;
  readonly metadata: GgufHeader["metadata"];
  readonly tensors: GgufHeader["tensors"];
  readonly dataOffset: number;
  readonly alignment: number;
  readonly #file: ModelFile;

  constructor(file: ModelFile, header: GgufHeader) {
    this.#file = file;
    this.path = file.path;
    this.files = [file.path];
    this.size = file.size;
    this.version = header.version;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
    this.dataOffset = header.dataOffset;
    this.alignment = header.alignment;
  }

  read(tensor: TensorInfo, options?: ReadOptions): AsyncIterable<RowChunk> {
    const { offset, rows, bytes } = tensor;
    const what = `tensor ${quote(tensor.name)}`;
    return this.#file.rows({ what, offset, rows, rowBytes: bytes / rows }, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }
}
