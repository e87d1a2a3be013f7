import { BytePairEncoder, type Pairs } from "./bpe.js";
import { appendUnknown } from "./byte-fallback.js";
import { byteCharacters } from "./byte-level.js";
import { isControl, type Vocabulary } from "./vocabulary.js";

/** From a word to tokens. */
export interface WordModel {
  /** Appends the tokens of a word to `out`; pauses now and then in a long one. */
  steps(word: string, out: number[]): Generator<void, void, undefined>;
}

/** Longer words get an encoder of their own: it may pause, and must not hold its memory for ever. */
const LONG_WORD = 1 << 14;

const encoder = new TextEncoder();

/**
 * Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM …): symbols are bytes. A byte without a token is dropped.
 * Our own, because @huggingface/tokenizers 0.2 takes 165 ms and 33 MB to start with 49,152 tokens (this: 50 ms, 13 MB),
 * is 15 times slower on prose, and splits off ASCII digits only.
 */
export class ByteLevelBpe implements WordModel {
  readonly #vocabulary: Vocabulary;
  readonly #pairs: Pairs;
  readonly #ignoreMerges: boolean;
  readonly #lengths: Int32Array;
  /** The token of each single byte; where there is none, the number of tokens plus the byte. */
  readonly #byteIds: Int32Array;
  readonly #encoder: BytePairEncoder;

  /** @param ignoreMerges a word that is a token is that token, whatever the merges say */
  constructor(vocabulary: Vocabulary, pairs: Pairs, ignoreMerges: boolean) {
    const { tokens, types, idOf } = vocabulary;
    this.#vocabulary = vocabulary;
    this.#pairs = pairs;
    this.#ignoreMerges = ignoreMerges;
    this.#byteIds = Int32Array.from(byteCharacters, (character, byte) => {
      const id = idOf.get(character);
      return id !== undefined && !isControl(types, id) ? id : tokens.length + byte;
    });
    this.#lengths = Int32Array.from(tokens, (text) => text.length);
    this.#encoder = new BytePairEncoder(pairs, this.#lengths);
  }

  /** Bytes of well-formed UTF-8 that no token stands for. */
  get missingBytes(): number[] {
    const tokens = this.#vocabulary.tokens.length;
    return [...this.#byteIds.keys()].filter((byte) => occursInUtf8(byte) && this.#byteIds[byte]! >= tokens);
  }

  *steps(word: string, out: number[]): Generator<void, void, undefined> {
    const bytes = encoder.encode(word);
    const { tokens, types, idOf } = this.#vocabulary;
    if (this.#ignoreMerges && bytes.length <= 1024) {
      const whole = idOf.get(Array.from(bytes, (byte) => byteCharacters[byte]).join(""));
      if (whole !== undefined && !isControl(types, whole)) {
        out.push(whole);
        return;
      }
    }
    const n = bytes.length;
    const pairs = n <= LONG_WORD ? this.#encoder : new BytePairEncoder(this.#pairs, this.#lengths);
    const cells = pairs.cells(n);
    for (let i = 0; i < n; i++) cells[i] = this.#byteIds[bytes[i]!]!;
    const symbols: number[] = [];
    yield* pairs.steps(n, symbols);
    for (const id of symbols) if (id < tokens.length) out.push(id);
  }
}

/** C0, C1 and F5 to FF never do. */
function occursInUtf8(byte: number): boolean {
  return byte !== 0xc0 && byte !== 0xc1 && byte < 0xf5;
}

/** BPE whose symbols are characters (SentencePiece: Llama 2, Mistral, Gemma …). */
export class CharacterBpe implements WordModel {
  readonly #vocabulary: Vocabulary;
  readonly #pairs: Pairs;
  readonly #lengths: Int32Array;
  readonly #encoder: BytePairEncoder;
  readonly #bytes: Int32Array | undefined;
  readonly #fuseUnknown: boolean;
  /** Ids of the characters up to U+FFFF: 0 not looked for yet, else the id + 1. */
  readonly #characterIds = new Int32Array(1 << 16);

  /**
   * @param bytes ids of the byte tokens that stand for a character without a token; undefined: the unknown token does
   * @param fuseUnknown a run of unknown characters is one unknown token
   */
  constructor(vocabulary: Vocabulary, pairs: Pairs, bytes: Int32Array | undefined, fuseUnknown: boolean) {
    this.#vocabulary = vocabulary;
    this.#pairs = pairs;
    this.#bytes = bytes;
    this.#fuseUnknown = fuseUnknown;
    this.#lengths = Int32Array.from(vocabulary.tokens, (text) => text.length);
    this.#encoder = new BytePairEncoder(pairs, this.#lengths);
  }

  *steps(word: string, out: number[]): Generator<void, void, undefined> {
    const n = word.length;
    const pairs = n <= LONG_WORD ? this.#encoder : new BytePairEncoder(this.#pairs, this.#lengths);
    const cells = pairs.cells(n);
    for (let at = 0; at < n; at++) {
      const point = word.codePointAt(at)!;
      cells[at] = this.#idOf(point);
      if (point > 0xffff) cells[++at] = ~(at - 1);
      if ((at & 0xffff) === 0xffff) yield;
    }
    const symbols: number[] = [];
    yield* pairs.steps(n, symbols);
    const tokens = this.#lengths.length;
    const start = out.length;
    for (const id of symbols) {
      if (id < tokens) out.push(id);
      else {
        const fuse = this.#fuseUnknown && out.length > start;
        appendUnknown(id - tokens, out, this.#bytes, this.#vocabulary.unknownId, fuse);
      }
    }
  }

  #idOf(point: number): number {
    if (point <= 0xffff) {
      const known = this.#characterIds[point]!;
      if (known > 0) return known - 1;
    }
    const { tokens, types, idOf } = this.#vocabulary;
    const found = idOf.get(String.fromCodePoint(point));
    const id = found !== undefined && !isControl(types, found) ? found : tokens.length + point;
    if (point <= 0xffff) this.#characterIds[point] = id + 1;
    return id;
  }
}
