/** A value that a model writes in a call. */
export type CallValue =
  | string
  | number
  | boolean
  | null
  | readonly CallValue[]
  | { readonly [name: string]: CallValue };

const MAX_DEPTH = 64;
const constants: Record<string, CallValue> = {
  True: true,
  False: false,
  None: null,
  true: true,
  false: false,
  null: null,
};
const escapes: Record<string, string> = { n: "\n", t: "\t", r: "\r" };

/**
 * Calls as Python writes them, one below the other or in a list: `print(api.weather(city="Oslo", days=3))`.
 * Names lose what stands before the last dot but for `NAME.call(…)`; values are literals. Undefined if it is anything
 * else.
 */
export function parsePythonCalls(
  text: string,
): { name: string; arguments: Record<string, CallValue> }[] | undefined {
  try {
    return new PythonCalls(text).parse();
  } catch (error) {
    if (error instanceof NotPython) return undefined;
    throw error;
  }
}

class NotPython extends Error {}

class PythonCalls {
  #at = 0;

  constructor(readonly text: string) {}

  parse() {
    const calls: { name: string; arguments: Record<string, CallValue> }[] = [];
    const list = this.#take(/\[/y) !== undefined;
    while (this.#take(/[;,]/y) !== undefined || !this.#ends(list)) calls.push(this.#call());
    if (list) this.#need(/\]/y);
    if (!this.#ends(false) || calls.length === 0) throw new NotPython();
    return calls;
  }

  #ends(list: boolean): boolean {
    this.#take(/(?:)/y);
    return this.#at === this.text.length || (list && this.text[this.#at] === "]");
  }

  #call(): { name: string; arguments: Record<string, CallValue> } {
    const path = this.#need(/[A-Za-z_][\w.]*/y).split(".");
    this.#need(/\(/y);
    if (path.length === 1 && path[0] === "print") {
      const inner = this.#call();
      this.#need(/\)/y);
      return inner;
    }
    const name = path.at(-1) === "call" && path.length > 1 ? path.at(-2)! : path.at(-1)!;
    const given: Record<string, CallValue> = {};
    while (this.#take(/\)/y) === undefined) {
      const key = this.#need(/[A-Za-z_]\w*/y);
      this.#need(/=/y);
      define(given, key, this.#value(0));
      if (this.#take(/,/y) !== undefined) continue;
      this.#need(/\)/y);
      break;
    }
    return { name, arguments: given };
  }

  #value(depth: number): CallValue {
    if (depth > MAX_DEPTH) throw new NotPython();
    const quoted = this.#take(/"""|'''|["']/y);
    if (quoted !== undefined) return this.#string(quoted);
    const open = this.#take(/[[({]/y);
    if (open === "{") return this.#dictionary(depth);
    if (open !== undefined) return this.#list(open === "[" ? /\]/y : /\)/y, depth);
    const word = this.#need(/[+-]?\d[\w.+-]*|[A-Za-z]+/y);
    if (Object.hasOwn(constants, word)) return constants[word]!;
    const number = Number(word.replaceAll("_", ""));
    if (Number.isNaN(number)) throw new NotPython();
    return number;
  }

  #string(quote: string): string {
    let text = "";
    for (;;) {
      if (this.#at >= this.text.length) throw new NotPython();
      if (this.text.startsWith(quote, this.#at)) {
        this.#at += quote.length;
        return text;
      }
      const character = this.text[this.#at++]!;
      if (character !== "\\") text += character;
      else {
        const next = this.text[this.#at++] ?? "";
        text += escapes[next] ?? next;
      }
    }
  }

  #list(close: RegExp, depth: number): CallValue[] {
    const items: CallValue[] = [];
    while (this.#take(close) === undefined) {
      items.push(this.#value(depth + 1));
      if (this.#take(/,/y) === undefined) {
        this.#need(close);
        break;
      }
    }
    return items;
  }

  #dictionary(depth: number): Record<string, CallValue> {
    const fields: Record<string, CallValue> = {};
    while (this.#take(/\}/y) === undefined) {
      const key = this.#string(this.#need(/["']/y));
      this.#need(/:/y);
      define(fields, key, this.#value(depth + 1));
      if (this.#take(/,/y) === undefined) {
        this.#need(/\}/y);
        break;
      }
    }
    return fields;
  }

  /** What matches behind white space. */
  #take(pattern: RegExp): string | undefined {
    while (/\s/.test(this.text[this.#at] ?? "")) this.#at++;
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.text)?.[0];
    if (match !== undefined) this.#at += match.length;
    return match;
  }

  #need(pattern: RegExp): string {
    const found = this.#take(pattern);
    if (found === undefined) throw new NotPython();
    return found;
  }
}

/** Also where the name is `__proto__`. */
function define(object: Record<string, CallValue>, name: string, value: CallValue): void {
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}
