import { OutriderError, quote } from "../errors.js";
import { byteLevelTokenizer, sentencePieceTokenizer, unigramTokenizer } from "./gguf-tokenizers.js";
import type { SpecialTokens } from "./special-tokens.js";
import { requiredString, type Vocabulary, vocabularyFromMetadata } from "./vocabulary.js";

export interface EncodeOptions {
  /** Control tokens written out in the text become those tokens (default false: they are text). */
  readonly special?: boolean;
  /** A character that keeps control tokens from being recognised and is not encoded; see `SpecialTokens.guard`. */
  readonly mark?: string;
}

/** Text to token ids and back. Ids are integers from 0 to `vocabSize` - 1; others are ERR_BAD_REQUEST. */
export interface Tokenizer {
  readonly vocabSize: number;
  readonly bosId?: number;
  readonly eosId?: number;
  readonly padId?: number;
  /** Whether a prompt begins with `bosId`, which is then defined. `encode` does not add it. */
  readonly addBos: boolean;
  /** Tokens after which generation ends. */
  readonly endIds: ReadonlySet<number>;
  /** Finds control tokens written out in text. */
  readonly controlTokens: SpecialTokens;
  /** The model's Jinja template for conversations. */
  readonly chatTemplate?: string;
  /** All its templates by name; `chatTemplate` is the one called `default`. */
  readonly chatTemplates: ReadonlyMap<string, string>;
  /** What was odd in the file and could be lived with. */
  readonly warnings: readonly string[];
  /** What is odd in it and touches hardly any text: for who looks into the file. */
  readonly remarks: readonly string[];
  /** The tokens of `text`; nothing is added. Lone surrogates count as U+FFFD. */
  encode(text: string, options?: EncodeOptions): number[];
  /** The same, with a turn for the event loop every few milliseconds. Rejects with ERR_ABORTED on `signal`. */
  encodeAsync(text: string, options?: EncodeOptions & { signal?: AbortSignal }): Promise<number[]>;
  /** The text of `ids`; bytes that are not UTF-8 become U+FFFD. `special`: with control tokens written out (default false). */
  decode(ids: Iterable<number>, options?: { special?: boolean }): string;
  /** The bytes that a token adds to the text; of a control token, its name in UTF-8; may be part of a character. */
  bytes(id: number): Uint8Array;
  /** A token as the file writes it. */
  text(id: number): string;
  /** Whether a token is a sign to the program and adds no text. */
  isControl(id: number): boolean;
}

const models: Record<string, (metadata: ReadonlyMap<string, unknown>, vocabulary: Vocabulary) => Tokenizer> =
  {
    gpt2: byteLevelTokenizer,
    llama: sentencePieceTokenizer,
    t5: unigramTokenizer,
  };

/**
 * The tokenizer that a model file describes.
 * @param metadata the file's `tokenizer.*` keys: string arrays as string[], numeric arrays as typed arrays
 * Throws ERR_MODEL_UNSUPPORTED for a kind of tokenizer that is not known, ERR_TOKENIZER for data that is not valid.
 */
export function tokenizerFromMetadata(metadata: ReadonlyMap<string, unknown>): Tokenizer {
  const model = requiredString(metadata, "tokenizer.ggml.model");
  if (!Object.hasOwn(models, model)) {
    throw new OutriderError(
      "ERR_MODEL_UNSUPPORTED",
      `tokenizer.ggml.model: the tokenizer ${quote(model)} is not supported; supported: ${Object.keys(models).join(", ")}`,
    );
  }
  return models[model]!(metadata, vocabularyFromMetadata(metadata));
}
