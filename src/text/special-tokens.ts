import { OutriderError } from "../errors.js";

/** A token that stands in text as a whole. */
export interface SpecialToken {
  readonly text: string;
  readonly id: number;
  /** White space before or behind it belongs to it. */
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
}

/** Nodes and tokens are numbered in the order they come; a key is node * UNITS + UTF-16 unit. */
const UNITS = 1 << 16;
const MAX_NODES = 1 << 22;
/** Characters looked at between two pauses. */
const STEP = 1 << 18;

const spacesBehind = /\p{White_Space}*/uy;
const spacesBefore = /\p{White_Space}+$/u;

/**
 * Finds tokens that stand in text as a whole, such as `<|im_end|>`.
 * A trie instead of one regular expression: a file may declare a million of them.
 */
export class SpecialTokens {
  readonly #next = new Map<number, number>();
  readonly #tokens = new Map<number, SpecialToken>();
  readonly #firstUnits = new Uint8Array(UNITS);
  #nodes = 1;

  /** @param tokens their texts are not empty. Throws ERR_TOKENIZER if they are too many. */
  constructor(tokens: Iterable<SpecialToken>) {
    for (const token of tokens) {
      const { text } = token;
      let node = 0;
      this.#firstUnits[text.charCodeAt(0)] = 1;
      for (let i = 0; i < text.length; i++) {
        const key = node * UNITS + text.charCodeAt(i);
        const child = this.#next.get(key);
        if (child === undefined) this.#next.set(key, this.#nodes);
        node = child ?? this.#nodes++;
      }
      if (this.#nodes > MAX_NODES) {
        throw new OutriderError("ERR_TOKENIZER", `the special tokens have more than ${MAX_NODES} characters`);
      }
      this.#tokens.set(node, token);
    }
  }

  get size(): number {
    return this.#tokens.size;
  }

  /**
   * `text` cut at its special tokens, leftmost first, the longest at each place: plain pieces and token ids.
   * `undefined` now and then in a long text: a pause.
   */
  *parts(text: string): Generator<string | number | undefined, void, undefined> {
    let plain = 0;
    let pause = STEP;
    for (let i = 0; i < text.length; ) {
      if (--pause <= 0) {
        pause = STEP;
        yield undefined;
      }
      if (this.#firstUnits[text.charCodeAt(i)] === 0) {
        i++;
        continue;
      }
      const { token, end, seen } = this.#match(text, i);
      pause -= 8 * seen;
      if (token === undefined) {
        i++;
        continue;
      }
      if (plain < i) {
        const before = text.slice(plain, i);
        const kept = token.lstrip ? before.replace(spacesBefore, "") : before;
        if (kept !== "") yield kept;
      }
      yield token.id;
      spacesBehind.lastIndex = end;
      plain = i = token.rstrip && spacesBehind.test(text) ? spacesBehind.lastIndex : end;
    }
    if (plain === 0) yield text;
    else if (plain < text.length) yield text.slice(plain);
  }

  /**
   * `text` with `mark` inside everything that is a special token, and inside an end that text after it could
   * complete to one; so `parts` finds none that begins here. Undone by removing every `mark`.
   */
  guard(text: string, mark: string): string {
    let guarded = "";
    let done = 0;
    for (let i = 0; i < text.length; i++) {
      if (this.#firstUnits[text.charCodeAt(i)] === 0) continue;
      const { token, open } = this.#match(text, i);
      if (token === undefined && !open) continue;
      guarded += text.slice(done, i + 1) + mark;
      done = i + 1;
    }
    return guarded + text.slice(done);
  }

  /** The longest token at `start`; `open`: the text ends inside a token; `seen`: how far it was compared. */
  #match(text: string, start: number) {
    let token: SpecialToken | undefined;
    let end = start;
    let node = 0;
    let i = start;
    while (i < text.length) {
      const child = this.#next.get(node * UNITS + text.charCodeAt(i));
      if (child === undefined) return { token, end, open: false, seen: i - start };
      node = child;
      i++;
      const here = this.#tokens.get(node);
      if (here === undefined) continue;
      token = here;
      end = i;
    }
    return { token, end, open: true, seen: i - start };
  }
}
