import { OutriderError } from "../errors.js";
import { BytePairEncoder, Merges } from "./bpe.js";
import { byteCharacters, byteLevelBytes } from "./byte-level.js";
import { type PreTokenizer, preTokenizer, words } from "./pre-tokenizer.js";
import { SpecialTokens } from "./special-tokens.js";
import type { Tokenizer } from "./tokenizer.js";
import { isControl, requiredString, requiredStrings, TokenType, type Vocabulary } from "./vocabulary.js";
import { WordCache } from "./word-cache.js";

const CACHE_BYTES = 4 << 20;
/** Longer words are rare and seldom come again. */
const MAX_CACHED_WORD = 64;

const encoder = new TextEncoder();
const noBytes = new Uint8Array(0);

/**
 * Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM …). Our own, because @huggingface/tokenizers 0.2 takes 165 ms and
 * 33 MB to start with 49,152 tokens (this: 50 ms, 13 MB), is 15 times slower on prose, and splits off ASCII digits
 * only. Throws ERR_MODEL_UNSUPPORTED for an unknown pre-tokenizer,
 * ERR_TOKENIZER for merges that do not fit the vocabulary.
 */
export function bpeTokenizer(metadata: ReadonlyMap<string, unknown>, vocabulary: Vocabulary): Tokenizer {
  const pre = preTokenizer(requiredString(metadata, "tokenizer.ggml.pre"));
  const merges = new Merges(requiredStrings(metadata, "tokenizer.ggml.merges"), vocabulary);
  return new BpeTokenizer(vocabulary, pre, merges);
}

class BpeTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosId?: number;
  readonly eosId?: number;
  readonly padId?: number;
  readonly addBos: boolean;
  readonly endIds: ReadonlySet<number>;
  readonly controlTokens: SpecialTokens;
  readonly chatTemplate?: string;
  readonly warnings: readonly string[];

  readonly #vocabulary: Vocabulary;
  readonly #pre: PreTokenizer;
  readonly #userTokens: SpecialTokens;
  /** The token of each single byte; `vocabSize` where there is none. */
  readonly #byteIds: Int32Array;
  readonly #pairs: BytePairEncoder;
  readonly #cache = new WordCache(CACHE_BYTES);

  constructor(vocabulary: Vocabulary, pre: PreTokenizer, merges: Merges) {
    const { tokens, types, idOf, bosId } = vocabulary;
    this.#vocabulary = vocabulary;
    this.#pre = pre;
    this.vocabSize = tokens.length;
    this.bosId = bosId;
    this.eosId = vocabulary.eosId;
    this.padId = vocabulary.padId;
    this.endIds = vocabulary.endIds;
    this.chatTemplate = vocabulary.chatTemplate;
    this.addBos = (vocabulary.addBos ?? pre.addBos) && bosId !== undefined;

    const warnings = [...vocabulary.warnings];
    if (vocabulary.addBos === true && bosId === undefined) {
      warnings.push(
        "tokenizer.ggml.add_bos_token is true but bos_token_id is missing: no BOS token is added",
      );
    }
    this.#byteIds = Int32Array.from(byteCharacters, (character) => idOf.get(character) ?? tokens.length);
    const missing = [...this.#byteIds.keys()].filter(
      (byte) => occursInUtf8(byte) && this.#byteIds[byte] === tokens.length,
    );
    if (missing.length > 0) {
      const list = missing.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
      warnings.push(
        `tokenizer.ggml.tokens has no token for the bytes ${list} (hexadecimal): such text is dropped`,
      );
    }
    this.warnings = warnings;

    const length = new Int32Array(tokens.length + 1);
    const control: [string, number][] = [];
    const user: [string, number][] = [];
    for (let id = 0; id < tokens.length; id++) {
      const text = tokens[id]!;
      length[id] = text.length;
      if (text === "" || types[id] === TokenType.normal) continue;
      if (isControl(types, id)) control.push([text, id]);
      else if (types[id] === TokenType.user) user.push([text, id]);
    }
    length[tokens.length] = 1;
    this.#pairs = new BytePairEncoder(merges, length);
    this.controlTokens = new SpecialTokens(control);
    this.#userTokens = new SpecialTokens(user);
  }

  encode(text: string, options?: { special?: boolean }): number[] {
    const ids: number[] = [];
    for (const part of options?.special ? this.controlTokens.split(text) : [text]) {
      if (typeof part === "number") ids.push(part);
      else this.#encodePlain(part, ids);
    }
    return ids;
  }

  #encodePlain(text: string, out: number[]): void {
    for (const part of this.#userTokens.split(text)) {
      if (typeof part === "number") {
        out.push(part);
        continue;
      }
      for (const word of words(part, this.#pre)) {
        if (word.length > MAX_CACHED_WORD) {
          this.#encodeWord(word, out);
          continue;
        }
        let ids = this.#cache.get(word);
        if (ids === undefined) {
          const fresh: number[] = [];
          this.#encodeWord(word, fresh);
          this.#cache.set(word, fresh);
          ids = fresh;
        }
        for (const id of ids) out.push(id);
      }
    }
  }

  #encodeWord(word: string, out: number[]): void {
    const bytes = encoder.encode(word);
    if (this.#pre.ignoreMerges) {
      const { idOf, types } = this.#vocabulary;
      const whole = idOf.get(Array.from(bytes, (byte) => byteCharacters[byte]).join(""));
      if (whole !== undefined && !isControl(types, whole)) {
        out.push(whole);
        return;
      }
    }
    const cells = this.#pairs.cells(bytes.length);
    for (let i = 0; i < bytes.length; i++) cells[i] = this.#byteIds[bytes[i]!]!;
    this.#pairs.encode(bytes.length, out);
  }

  decode(ids: Iterable<number>, options?: { special?: boolean }): string {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    let text = "";
    for (const id of ids) {
      if (options?.special || !this.isControl(id)) text += decoder.decode(this.bytes(id), { stream: true });
    }
    return text + decoder.decode();
  }

  bytes(id: number): Uint8Array {
    const text = this.text(id);
    switch (this.#vocabulary.types[id]) {
      case TokenType.normal:
        return byteLevelBytes(text);
      case TokenType.byte:
        return Uint8Array.of(Number.parseInt(text.slice(3, 5), 16));
      case TokenType.unused:
      case TokenType.undefined:
        return noBytes;
      default:
        return encoder.encode(text);
    }
  }

  text(id: number): string {
    const text = this.#vocabulary.tokens[id];
    if (text !== undefined) return text;
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      `token id ${id} does not exist: ids are 0 to ${this.vocabSize - 1}`,
    );
  }

  isControl(id: number): boolean {
    return isControl(this.#vocabulary.types, id);
  }
}

/** C0, C1 and F5 to FF never do. */
function occursInUtf8(byte: number): boolean {
  return byte !== 0xc0 && byte !== 0xc1 && byte < 0xf5;
}
