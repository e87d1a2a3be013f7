import { OutriderError, quote } from "../errors.js";

const MAX_PATTERN = 16_384;

/** Characters with a meaning outside of classes, within them, and within them with the flag v. */
const SYNTAX = "^$\\.*+?()[]{}|/";
const CLASS_SYNTAX = `${SYNTAX}-`;
const CLASS_SET_SYNTAX = `${CLASS_SYNTAX}&!#%,:;<=>@\`~`;

const CLASSES: Record<string, string> = {
  s: "\\p{White_Space}",
  d: "\\p{Nd}",
  w: "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}",
  h: "0-9a-fA-F",
};
const CONTROLS: Record<string, string> = {
  n: "\n",
  r: "\r",
  t: "\t",
  f: "\f",
  v: "\v",
  a: "\x07",
  e: "\x1b",
};

/** A regular expression to be. Flag v only where it must be: its classes make V8 use several times the stack. */
export interface Pattern {
  readonly source: string;
  readonly flag: "u" | "v";
}

/**
 * A pattern of a tokenizer.json (Oniguruma, as in Ruby) as JavaScript's.
 * It comes with a model and is not trusted: repeated groups that could match in exponentially many ways are refused.
 * Throws ERR_TOKENIZER naming `where` and the part that is not supported.
 */
export function fromOniguruma(pattern: string, where: string): Pattern {
  if (pattern.length > MAX_PATTERN) {
    throw new OutriderError(
      "ERR_TOKENIZER",
      `${where}: the pattern has ${pattern.length} characters, at most ${MAX_PATTERN} are allowed`,
    );
  }
  const flag = /&&|\[[^\]\\]*\[/.test(pattern.replace(/\\./gs, "")) ? "v" : "u";
  const source = new Translation(pattern, where, flag).translate();
  try {
    new RegExp(source, flag);
  } catch (cause) {
    throw new OutriderError(
      "ERR_TOKENIZER",
      `${where}: ${quote(pattern)} is not a valid pattern: ${quote(String((cause as Error).message))}`,
      { cause },
    );
  }
  return { source, flag };
}

/** What is known of a part already translated. */
interface Part {
  readonly source: string;
  /** Holds a repetition without an upper limit. */
  readonly open: boolean;
  readonly alternatives: boolean;
}

class Translation {
  #at = 0;
  #groups = 0;
  #ignoreCase = false;

  constructor(
    readonly pattern: string,
    readonly where: string,
    readonly flag: Pattern["flag"],
  ) {}

  translate(): string {
    const { source } = this.#alternatives(0);
    if (this.#at < this.pattern.length)
      throw this.#unsupported("a closing parenthesis without an opening one");
    return source;
  }

  /** Up to a closing parenthesis or the end. */
  #alternatives(depth: number): Part {
    if (depth > 50) throw this.#unsupported("more than 50 nested groups");
    let source = "";
    let open = false;
    let alternatives = false;
    while (this.#at < this.pattern.length && this.pattern[this.#at] !== ")") {
      if (this.pattern[this.#at] === "|") {
        this.#at++;
        source += "|";
        alternatives = true;
        continue;
      }
      const atom = this.#repeated(this.#atom(depth));
      source += atom.source;
      open ||= atom.open;
    }
    return { source, open, alternatives };
  }

  /** The atom with its quantifier, if it has one. */
  #repeated(atom: Part): Part {
    const match = /^(?:[*+?]|\{(\d+)(?:,(\d*))?\}|\{,(\d+)\})/.exec(
      this.pattern.slice(this.#at, this.#at + 24),
    );
    if (match === null) return atom;
    this.#at += match[0].length;
    const unlimited = match[0] === "*" || match[0] === "+" || match[2] === "";
    if (unlimited && (atom.open || atom.alternatives)) {
      throw this.#unsupported("a repeated group that repeats or has alternatives itself");
    }
    const quantifier = match[3] === undefined ? match[0] : `{0,${match[3]}}`;
    const open = unlimited || atom.open;
    const mode = this.pattern[this.#at];
    if (mode === "?" && !quantifier.startsWith("{")) {
      this.#at++;
      return { source: `${atom.source}${quantifier}?`, open, alternatives: false };
    }
    if (mode === "+" && !quantifier.startsWith("{")) {
      // Possessive: what a lookahead has matched is not given back.
      this.#at++;
      const name = `p${this.#groups++}`;
      return { source: `(?=(?<${name}>${atom.source}${quantifier}))\\k<${name}>`, open, alternatives: false };
    }
    if (/[*+?]/.test(mode ?? "")) throw this.#unsupported("a quantifier of a quantifier");
    return { source: `${atom.source}${quantifier}`, open, alternatives: false };
  }

  #atom(depth: number): Part {
    const simple = (source: string): Part => ({ source, open: false, alternatives: false });
    const character = this.#next();
    switch (character) {
      case "(":
        return this.#group(depth);
      case "[":
        return simple(this.#class());
      case ".":
        return simple("[^\\n]");
      case "^":
        return simple("(?<![^\\n])");
      case "$":
        return simple("(?![^\\n])");
      case "\\":
        return simple(this.#escape());
      case "*":
      case "+":
      case "?":
        throw this.#unsupported("a quantifier of nothing");
      default:
        return simple(this.#literal(character));
    }
  }

  #group(depth: number): Part {
    const rest = this.pattern.slice(this.#at, this.#at + 4);
    const opening = /^\?(?:[:=!]|<[=!]|>|i:)/.exec(rest)?.[0];
    if (opening === undefined && rest.startsWith("?")) throw this.#unsupported(`the group (${rest}`);
    this.#at += opening?.length ?? 0;
    const outer = this.#ignoreCase;
    if (opening === "?i:") this.#ignoreCase = true;
    const inner = this.#alternatives(depth + 1);
    this.#ignoreCase = outer;
    if (this.pattern[this.#at++] !== ")") throw this.#unsupported("a group that does not end");
    if (opening === "?>") {
      const name = `p${this.#groups++}`;
      return { ...inner, source: `(?=(?<${name}>${inner.source}))\\k<${name}>` };
    }
    const open = opening === undefined || opening === "?i:" ? "?:" : opening;
    return { ...inner, source: `(${open}${inner.source})` };
  }

  /** After the opening bracket. Nested classes and intersections are the same with flag v. */
  #class(): string {
    let source = "[";
    if (this.pattern[this.#at] === "^") {
      this.#at++;
      source += "^";
    }
    for (let first = true; ; first = false) {
      if (this.#at >= this.pattern.length) throw this.#unsupported("a class that does not end");
      const character = this.#next();
      if (character === "]" && !first) return `${source}]`;
      if (character === "[") {
        if (this.pattern[this.#at] === ":") throw this.#unsupported("a POSIX class");
        source += this.#class();
      } else if (character === "&" && this.pattern[this.#at] === "&") {
        this.#at++;
        source += "&&";
      } else {
        const from = this.#member(character);
        const isRange =
          from.single && this.pattern[this.#at] === "-" && !"]".includes(this.pattern[this.#at + 1] ?? "]");
        if (!isRange) {
          source += from.source;
          continue;
        }
        this.#at++;
        const to = this.#member(this.#next());
        if (!to.single) throw this.#unsupported("a range that ends in a class");
        source += `${from.source}-${to.source}`;
      }
    }
  }

  #member(character: string): { source: string; single: boolean } {
    if (character !== "\\") {
      if (this.#ignoreCase && /[a-z]/i.test(character)) throw this.#unsupported("a class that ignores case");
      return { source: this.#classCharacter(character), single: true };
    }
    const kind = this.pattern[this.#at] ?? "";
    if (CLASSES[kind] !== undefined) {
      this.#at++;
      return { source: CLASSES[kind], single: false };
    }
    if (/[SDWHpP]/.test(kind)) return { source: this.#escape(), single: false };
    return { source: this.#classCharacter(this.#escapedCharacter()), single: true };
  }

  /** After a backslash, outside a class or standing for a class. */
  #escape(): string {
    const kind = this.pattern[this.#at] ?? "";
    const lower = kind.toLowerCase();
    if (CLASSES[lower] !== undefined) {
      this.#at++;
      return kind === lower ? `[${CLASSES[lower]}]` : `[^${CLASSES[lower]}]`;
    }
    if (lower === "p") return this.#property();
    return this.#literal(this.#escapedCharacter());
  }

  #property(): string {
    const match = /^([pP])\{(\^?)([A-Za-z_=]+)\}/.exec(this.pattern.slice(this.#at, this.#at + 64));
    if (match === null) throw this.#unsupported("a property");
    this.#at += match[0].length;
    const negated = (match[1] === "P") !== (match[2] === "^");
    const name = [match[3]!, `Script=${match[3]}`].find(isProperty);
    if (name === undefined) throw this.#unsupported(`the property ${match[3]}`);
    return `\\${negated ? "P" : "p"}{${name}}`;
  }

  #escapedCharacter(): string {
    const match =
      /^(?:x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4}))/.exec(
        this.pattern.slice(this.#at, this.#at + 9),
      ) ?? undefined;
    const code = match && (match[1] ?? match[2] ?? match[3]);
    if (match !== undefined && code !== undefined) {
      this.#at += match[0].length;
      const point = Number.parseInt(code, 16);
      if (point > 0x10ffff) throw this.#unsupported("a character that does not exist");
      return String.fromCodePoint(point);
    }
    if (this.#at >= this.pattern.length) throw this.#unsupported("a backslash at the end");
    const character = this.#next();
    if (CONTROLS[character] !== undefined) return CONTROLS[character];
    if (/[A-Za-z0-9]/.test(character)) throw this.#unsupported(`\\${character}`);
    return character;
  }

  #literal(character: string): string {
    if (this.#ignoreCase && /[a-z]/i.test(character)) {
      const lower = character.toLowerCase();
      // U+017F and U+212A fold to s and k.
      return `[${lower}${character.toUpperCase()}${{ s: "\u017f", k: "\u212a" }[lower] ?? ""}]`;
    }
    return SYNTAX.includes(character) ? `\\${character}` : character;
  }

  #classCharacter(character: string): string {
    const special = this.flag === "v" ? CLASS_SET_SYNTAX : CLASS_SYNTAX;
    return special.includes(character) ? `\\${character}` : character;
  }

  #next(): string {
    const character = String.fromCodePoint(this.pattern.codePointAt(this.#at)!);
    this.#at += character.length;
    return character;
  }

  #unsupported(what: string): OutriderError {
    return new OutriderError(
      "ERR_TOKENIZER",
      `${this.where}: ${quote(this.pattern)} has ${what} before character ${this.#at}; this is not supported`,
    );
  }
}

function isProperty(name: string): boolean {
  try {
    new RegExp(`\\p{${name}}`, "u");
    return true;
  } catch {
    return false;
  }
}

/** Matches exactly this text. */
export function literalPattern(text: string): Pattern {
  const characters = Array.from(text, (character) =>
    SYNTAX.includes(character) ? `\\${character}` : character,
  );
  return { source: characters.join(""), flag: "u" };
}
