import { OutriderError, quote } from "../errors.js";
import type { WordModel } from "./bpe-models.js";
import { appendUnknown } from "./byte-fallback.js";

/** Nodes are numbered in the order they come; a key is node * UNITS + UTF-16 unit. */
const UNITS = 1 << 16;
const MAX_NODES = 1 << 23;
/** Each place in a text may be compared with so many characters: that is time. */
const MAX_LENGTH = 1024;
/** How much worse an unknown character is than the worst token (SentencePiece's constant). */
const UNKNOWN_PENALTY = 10;
const STEP = 1 << 13;

/**
 * SentencePiece's unigram model: of all ways to write a word as tokens that with the highest sum of scores, found by
 * the Viterbi algorithm (Kudo 2018, "Subword Regularization"). A character that no token is counts as unknown.
 */
export class Unigram implements WordModel {
  readonly #next = new Map<number, number>();
  readonly #tokens = new Map<number, number>();
  readonly #scores: ArrayLike<number>;
  readonly #unknownScore: number;
  readonly #unknownId: number | undefined;
  readonly #bytes: Int32Array | undefined;

  /**
   * @param tokens texts and ids of those that text may become
   * @param scores by id, finite
   * @param leastScore the lowest score that there is
   * @param bytes ids of the byte tokens that stand for an unknown character; undefined: the unknown token does
   * Throws ERR_TOKENIZER for a token that is too long, or too many of them.
   */
  constructor(
    tokens: Iterable<readonly [text: string, id: number]>,
    scores: ArrayLike<number>,
    leastScore: number,
    unknownId: number | undefined,
    bytes: Int32Array | undefined,
  ) {
    this.#scores = scores;
    this.#unknownScore = leastScore - UNKNOWN_PENALTY;
    this.#unknownId = unknownId;
    this.#bytes = bytes;
    let nodes = 1;
    for (const [text, id] of tokens) {
      if (text.length > MAX_LENGTH || nodes + text.length > MAX_NODES) {
        throw new OutriderError(
          "ERR_TOKENIZER",
          `the token ${quote(text)} is too long, or the tokens are too many`,
        );
      }
      let node = 0;
      for (let i = 0; i < text.length; i++) {
        const key = node * UNITS + text.charCodeAt(i);
        const child = this.#next.get(key);
        if (child === undefined) this.#next.set(key, nodes);
        node = child ?? nodes++;
      }
      this.#tokens.set(node, id);
    }
  }

  *steps(word: string, out: number[]): Generator<void, void, undefined> {
    const n = word.length;
    // The best way to each place: its score, where its last token begins, and that token, -1 if it is unknown.
    const best = new Float64Array(n + 1).fill(Number.NEGATIVE_INFINITY);
    const from = new Int32Array(n + 1);
    const token = new Int32Array(n + 1);
    best[0] = 0;
    let pause = STEP;
    for (let at = 0; at < n; ) {
      const next = at + (word.codePointAt(at)! > 0xffff ? 2 : 1);
      const score = best[at]!;
      let single = false;
      let node = 0;
      for (let end = at; end < n; ) {
        const child = this.#next.get(node * UNITS + word.charCodeAt(end++));
        pause--;
        if (child === undefined) break;
        node = child;
        const id = this.#tokens.get(node);
        if (id === undefined) continue;
        if (end === next) single = true;
        const reached = score + this.#scores[id]!;
        if (reached <= best[end]!) continue;
        best[end] = reached;
        from[end] = at;
        token[end] = id;
      }
      if (!single && score + this.#unknownScore > best[next]!) {
        best[next] = score + this.#unknownScore;
        from[next] = at;
        token[next] = -1;
      }
      at = next;
      if (pause > 0) continue;
      pause = STEP;
      yield;
    }
    const ends: number[] = [];
    for (let at = n; at > 0; at = from[at]!) ends.push(at);
    let afterUnknown = false;
    for (const end of ends.reverse()) {
      const id = token[end]!;
      if (id >= 0) out.push(id);
      // A run of unknown characters is one unknown token.
      else appendUnknown(word.codePointAt(from[end]!)!, out, this.#bytes, this.#unknownId, afterUnknown);
      afterUnknown = id < 0;
      if (--pause > 0) continue;
      pause = STEP;
      yield;
    }
  }
}
