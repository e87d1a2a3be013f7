import { OutriderError } from "../errors.js";
import type { Tokenizer } from "./tokenizer.js";

const MAX_STOPS = 16;
const MAX_STOP_BYTES = 256;

/**
 * Turns the tokens of a generation into text that may be shown at once: never half a character, never what might be
 * the beginning of a stop string. The text ends before the stop string that is complete first (the longest, if
 * several end at one character), so the cut does not depend on how the text was divided into tokens.
 * Control tokens add no text, unless they are to be visible.
 */
export class TextStream {
  readonly #tokenizer: Pick<Tokenizer, "bytes" | "isControl">;
  // A byte order mark is text here: the decoder must not swallow it.
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #matchers: readonly Matcher[];
  readonly #visible: ReadonlySet<number> | undefined;
  /** Decoded, but perhaps the beginning of a stop string. */
  #held = "";
  #stopped = false;

  /**
   * @param options.visible control tokens that are written out
   * @param options.stops none, or up to 16 strings of 1 to 256 bytes in UTF-8; lone surrogates count as U+FFFD
   * Throws ERR_BAD_REQUEST with `param: "stop"` for others.
   */
  constructor(
    tokenizer: Pick<Tokenizer, "bytes" | "isControl">,
    { stops = [], visible }: { stops?: readonly string[]; visible?: ReadonlySet<number> | undefined } = {},
  ) {
    this.#tokenizer = tokenizer;
    this.#visible = visible;
    this.#matchers = checkStops(stops).map((stop) => new Matcher(stop));
  }

  /** Whether a stop string was found; `push` then returns nothing more. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Adds a token. Returns the text that can be shown now, often empty. */
  push(id: number): string {
    if (this.#stopped) return "";
    if (this.#tokenizer.isControl(id) && !this.#visible?.has(id)) return "";
    return this.#add(this.#decoder.decode(this.#tokenizer.bytes(id), { stream: true }));
  }

  /** Ends the text: returns what was held back; a character that was not complete becomes U+FFFD. */
  finish(): string {
    if (this.#stopped) return "";
    const text = this.#add(this.#decoder.decode()) + this.#held;
    this.#held = "";
    return text;
  }

  #add(text: string): string {
    const known = this.#held + text;
    let open = 0;
    for (let i = this.#held.length; i < known.length; i++) {
      const unit = known.charCodeAt(i);
      let found = 0;
      open = 0;
      for (const matcher of this.#matchers) {
        const matched = matcher.advance(unit);
        if (matched === matcher.stop.length) found = Math.max(found, matched);
        open = Math.max(open, matched);
      }
      if (found === 0) continue;
      this.#stopped = true;
      this.#held = "";
      return known.slice(0, i + 1 - found);
    }
    if (text === "") return "";
    this.#held = known.slice(known.length - open);
    return known.slice(0, known.length - open);
  }
}

/** Knuth, Morris and Pratt: how much of one stop string the text so far ends with. */
class Matcher {
  /** For each length matched, the longest shorter beginning that is also its end. */
  readonly #fallback: Int32Array;
  #matched = 0;

  constructor(readonly stop: string) {
    this.#fallback = new Int32Array(stop.length);
    for (let length = 1, shorter = 0; length < stop.length; length++) {
      while (shorter > 0 && stop[length] !== stop[shorter]) shorter = this.#fallback[shorter - 1]!;
      if (stop[length] === stop[shorter]) shorter++;
      this.#fallback[length] = shorter;
    }
  }

  /** Takes the next UTF-16 unit; returns how much of the stop string is matched. Not to be called after a match. */
  advance(unit: number): number {
    while (this.#matched > 0 && this.stop.charCodeAt(this.#matched) !== unit) {
      this.#matched = this.#fallback[this.#matched - 1]!;
    }
    if (this.stop.charCodeAt(this.#matched) === unit) this.#matched++;
    return this.#matched;
  }
}

function checkStops(stops: readonly string[]): readonly string[] {
  if (!Array.isArray(stops) || stops.length > MAX_STOPS) {
    throw badStop(`must be an array of at most ${MAX_STOPS} strings`);
  }
  return stops.map((stop: unknown, i) => {
    if (typeof stop !== "string")
      throw badStop(`[${i}] must be a string, not ${stop === null ? "null" : typeof stop}`);
    const bytes = Buffer.byteLength(stop);
    if (bytes === 0) throw badStop(`[${i}] is empty; it would end every text at once`);
    if (bytes > MAX_STOP_BYTES)
      throw badStop(`[${i}] has ${bytes} bytes, at most ${MAX_STOP_BYTES} are allowed`);
    // As the decoder writes them: half of a character must not match within a whole one.
    return stop.replace(/\p{Surrogate}/gu, "\ufffd");
  });
}

function badStop(problem: string): OutriderError {
  return new OutriderError(
    "ERR_BAD_REQUEST",
    problem.startsWith("[") ? `stop${problem}` : `stop ${problem}`,
    {
      param: "stop",
    },
  );
}
