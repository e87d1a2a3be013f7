import type { MetadataValue } from "./gguf-metadata.js";
import type { WeightType } from "./weight-type.js";

export interface TensorInfo {
  readonly name: string;
  readonly type: WeightType;
  /** `shape[0]` is the length of a row, whose weights are contiguous (GGUF's order). At least one dimension. */
  readonly shape: readonly number[];
  /** The product of all dimensions but the first. */
  readonly rows: number;
  /** `shape[0]`. */
  readonly columns: number;
  /** Where the first byte is, from the start of the file; of several files, as if they lay one after another. */
  readonly offset: number;
  /** Size in the file; `bytes / rows` is the size of one row. */
  readonly bytes: number;
  /** The type that the core packs it as, where that is not its own: see `quantised`. */
  readonly packAs?: WeightType;
}

export interface RowChunk {
  readonly firstRow: number;
  readonly rows: number;
  /** [rows × bytes of a row], in the layout of the tensor's type. Borrowed: valid until the next chunk is asked for. */
  readonly bytes: Uint8Array;
}

export interface ReadOptions {
  /** Rows in each chunk but the last. Default: what fits in 2 MiB, at least one. */
  readonly chunkRows?: number;
}

/** The files of a tokenizer as the Hugging Face libraries write them, parsed. */
export interface TokenizerFiles {
  readonly tokenizer: unknown;
  /** `{}` where there is no such file. */
  readonly config: unknown;
  readonly chatTemplate?: string | undefined;
  /** Tokens that end a text, beside those of the tokenizer. */
  readonly endIds: readonly number[];
}

/**
 * A model's description and weights, wherever they lie: a GGUF file, its shards, a folder of safetensors files. What
 * it tells, it tells in GGUF's words: `metadata` by GGUF's keys, `tensors` by GGUF's names in GGUF's layout. So an
 * architecture knows one set of names. Whoever opened it disposes it; `metadata` and `tensors` stay valid afterwards.
 */
export interface ModelSource extends AsyncDisposable {
  readonly format: "GGUF" | "safetensors";
  /** The file or folder, for messages. */
  readonly path: string;
  /** The files that hold weights. */
  readonly files: readonly string[];
  /** Bytes of these files together. */
  readonly size: number;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Where the tokenizer is not part of `metadata` as GGUF has it. */
  readonly tokenizer?: TokenizerFiles | undefined;
  /**
   * Streams a tensor's rows in order. Reads ahead by one chunk. Memory: two chunks per stream that is being read.
   * Throws ERR_MODEL_TRUNCATED if a file has become shorter, ERR_PATH if reading fails, ERR_MODEL_LIMIT if a row is
   * larger than 64 MiB, ERR_DISPOSED after disposal.
   */
  read(tensor: TensorInfo, options?: ReadOptions): AsyncIterable<RowChunk>;
}
