import { OutriderError } from "../errors.js";
import type { WordModel } from "./bpe-models.js";
import { type SpecialToken, SpecialTokens } from "./special-tokens.js";
import { type Cut, pieces } from "./split.js";
import type { EncodeOptions, Tokenizer } from "./tokenizer.js";
import { isControl, TokenType, type Vocabulary } from "./vocabulary.js";
import { WordCache } from "./word-cache.js";

const CACHE_BYTES = 4 << 20;
/** Longer words are rare and seldom come again. */
const MAX_CACHED_WORD = 64;
/** Characters of words between two pauses. */
const STEP = 1 << 13;
/** How long `encodeAsync` keeps the thread, roughly. */
const TURN_MS = 8;

const encoder = new TextEncoder();
const noBytes = new Uint8Array(0);

/** What a tokenizer is made of: text is normalised, cut into words, and the words become tokens. */
export interface Pipeline {
  readonly vocabulary: Vocabulary;
  /** Changes the text between two special tokens. */
  readonly normalize?: (text: string) => string;
  /** How that is cut into words. */
  readonly cuts: readonly Cut[];
  readonly model: WordModel;
  /** The bytes of a normal token. */
  readonly tokenBytes: (text: string) => Uint8Array;
  /** The bytes of a token of the user's own kind; default: its text in UTF-8. */
  readonly userBytes?: (text: string) => Uint8Array;
  /** Encoding puts a space before the text, which decoding takes away again. */
  readonly prefixSpace: boolean;
  readonly addBos: boolean;
  readonly warnings: readonly string[];
  readonly remarks?: readonly string[];
  /** How special tokens differ from what the vocabulary says of them, by id. */
  readonly special?: ReadonlyMap<number, Omit<SpecialToken, "id" | "text"> & { normalized?: boolean }>;
}

/** A tokenizer of these parts. */
export class PipelineTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosId?: number;
  readonly eosId?: number;
  readonly padId?: number;
  readonly addBos: boolean;
  readonly endIds: ReadonlySet<number>;
  readonly controlTokens: SpecialTokens;
  readonly chatTemplate?: string;
  readonly chatTemplates: ReadonlyMap<string, string>;
  readonly warnings: readonly string[];
  readonly remarks: readonly string[];

  readonly #pipeline: Pipeline;
  /** Tokens of the user's own kind: those found in the text as it is, those in normalised text, and all special ones. */
  readonly #userTokens: SpecialTokens;
  readonly #normalizedTokens: SpecialTokens;
  readonly #allTokens: SpecialTokens;
  readonly #cache = new WordCache(CACHE_BYTES);

  constructor(pipeline: Pipeline) {
    const { vocabulary, normalize = (text) => text, special } = pipeline;
    const { tokens, types } = vocabulary;
    this.#pipeline = pipeline;
    this.vocabSize = tokens.length;
    this.bosId = vocabulary.bosId;
    this.eosId = vocabulary.eosId;
    this.padId = vocabulary.padId;
    this.addBos = pipeline.addBos;
    this.endIds = vocabulary.endIds;
    this.chatTemplate = vocabulary.chatTemplates.get("default");
    this.chatTemplates = vocabulary.chatTemplates;
    this.warnings = pipeline.warnings;
    this.remarks = pipeline.remarks ?? [];

    const control: SpecialToken[] = [];
    const user: SpecialToken[] = [];
    const normalized: SpecialToken[] = [];
    for (let id = 0; id < tokens.length; id++) {
      const text = tokens[id]!;
      if (text === "" || types[id] === TokenType.normal) continue;
      const token = { text, id, ...special?.get(id) };
      if (isControl(types, id)) control.push(token);
      else if (types[id] !== TokenType.user) continue;
      else if (token.normalized && normalize(text) !== "")
        normalized.push({ ...token, text: normalize(text) });
      else user.push(token);
    }
    this.controlTokens = new SpecialTokens(control);
    this.#userTokens = new SpecialTokens(user);
    this.#normalizedTokens = new SpecialTokens(normalized);
    this.#allTokens = user.length === 0 ? this.controlTokens : new SpecialTokens([...user, ...control]);
  }

  encode(text: string, options?: EncodeOptions): number[] {
    const ids: number[] = [];
    for (const _ of this.#steps(text, options ?? {}, ids));
    return ids;
  }

  async encodeAsync(text: string, options?: EncodeOptions & { signal?: AbortSignal }): Promise<number[]> {
    const ids: number[] = [];
    let started = performance.now();
    for (const _ of this.#steps(text, options ?? {}, ids)) {
      if (performance.now() - started < TURN_MS) continue;
      await new Promise((resolve) => setImmediate(resolve));
      if (options?.signal?.aborted) {
        throw new OutriderError("ERR_ABORTED", "tokenizing was aborted", { cause: options.signal.reason });
      }
      started = performance.now();
    }
    return ids;
  }

  /** Appends the tokens of `text` to `out`; pauses after every few milliseconds' work. */
  *#steps(text: string, { special, mark }: EncodeOptions, out: number[]): Generator<void, void, undefined> {
    if (!isWellFormed(text)) text = text.replace(/\p{Surrogate}/gu, "\ufffd");
    let first = true;
    for (const part of special ? this.#allTokens.parts(text) : [text]) {
      if (part === undefined) yield;
      else if (typeof part === "number") out.push(part);
      else yield* this.#encodePlain(mark === undefined ? part : part.replaceAll(mark, ""), first, out);
      if (part !== undefined) first = false;
    }
  }

  *#encodePlain(text: string, first: boolean, out: number[]): Generator<void, void, undefined> {
    const { normalize, cuts } = this.#pipeline;
    let work = 0;
    for (const part of this.#userTokens.size > 0 ? this.#userTokens.parts(text) : [text]) {
      if (part === undefined) {
        yield;
        continue;
      }
      if (typeof part === "number") {
        out.push(part);
        first = false;
        continue;
      }
      const normalized = normalize === undefined ? part : normalize(part);
      for (const inner of this.#normalizedTokens.size > 0
        ? this.#normalizedTokens.parts(normalized)
        : [normalized]) {
        if (inner === undefined) yield;
        else if (typeof inner === "number") out.push(inner);
        else {
          for (const word of pieces(inner, cuts, first)) {
            work += word.length;
            if (word.length > MAX_CACHED_WORD) yield* this.#pipeline.model.steps(word, out);
            else this.#encodeShort(word, out);
            if (work < STEP) continue;
            work = 0;
            yield;
          }
        }
        if (inner !== undefined) first = false;
      }
    }
  }

  #encodeShort(word: string, out: number[]): void {
    let ids = this.#cache.get(word);
    if (ids === undefined) {
      const fresh: number[] = [];
      for (const _ of this.#pipeline.model.steps(word, fresh));
      this.#cache.set(word, fresh);
      ids = fresh;
    }
    for (const id of ids) out.push(id);
  }

  decode(ids: Iterable<number>, options?: { special?: boolean }): string {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    let text = "";
    let first = this.#pipeline.prefixSpace;
    for (const id of ids) {
      const control = this.isControl(id);
      if (control && !options?.special) continue;
      const bytes = this.bytes(id);
      const prefixed = first && !control && bytes[0] === 0x20;
      first = false;
      text += decoder.decode(prefixed ? bytes.subarray(1) : bytes, { stream: true });
    }
    return text + decoder.decode();
  }

  bytes(id: number): Uint8Array {
    const text = this.text(id);
    const { vocabulary, tokenBytes, userBytes } = this.#pipeline;
    switch (vocabulary.types[id]) {
      case TokenType.normal:
        return tokenBytes(text);
      case TokenType.user:
        return userBytes?.(text) ?? encoder.encode(text);
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
    const text = this.#pipeline.vocabulary.tokens[id];
    if (text !== undefined) return text;
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      `token id ${id} does not exist: ids are 0 to ${this.vocabSize - 1}`,
    );
  }

  isControl(id: number): boolean {
    return isControl(this.#pipeline.vocabulary.types, id);
  }
}

/** `String.prototype.isWellFormed`, which Node 20 has and its types do not. */
function isWellFormed(text: string): boolean {
  return (text as string & { isWellFormed(): boolean }).isWellFormed();
}
