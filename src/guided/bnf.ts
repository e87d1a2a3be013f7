// Grammars in the notation of llama.cpp ("GBNF"): name ::= "text" [class] other-rule ( … | … ) x* x+ x? x{2,5}
import { type Characters, character, complement } from "./characters.js";
import { choice, type Expression, grammarError, literal, repeat, rule, sequence } from "./grammar.js";

const maxLength = 65_536;
const maxDepth = 100;
const maxRepeat = 10_000;

/** The rules of a grammar; it begins with `root`. Throws `ERR_GRAMMAR` with line and column. */
export function parseBnf(source: string): Map<string, Expression> {
  if (source.length > maxLength)
    throw grammarError(`the grammar has ${source.length} characters, at most ${maxLength} are supported`);
  const rules = new Map<string, Expression>();
  let at = 0;
  const fail = (what: string): never => {
    const before = source.slice(0, at).split("\n");
    throw grammarError(`the grammar, line ${before.length}, column ${before.at(-1)!.length + 1}: ${what}`);
  };
  const skip = (newlines: boolean) => {
    for (;;) {
      const c = source[at];
      if (c === "#") while (at < source.length && source[at] !== "\n") at++;
      else if (c === " " || c === "\t" || c === "\r" || (newlines && c === "\n")) at++;
      else return;
    }
  };
  const nameHere = () => /^[A-Za-z][A-Za-z0-9_-]*/.exec(source.slice(at, at + 200))?.[0];
  const beginsRule = () => {
    const name = nameHere();
    return name !== undefined && /^[ \t]*::=/.test(source.slice(at + name.length, at + name.length + 20));
  };
  const escaped = (): number => {
    const c = source[at++];
    const simple: Record<string, number> = {
      n: 10,
      r: 13,
      t: 9,
      "\\": 92,
      '"': 34,
      "[": 91,
      "]": 93,
      "-": 45,
      "^": 94,
    };
    if (c !== undefined && Object.hasOwn(simple, c)) return simple[c]!;
    const length = c === "x" ? 2 : c === "u" ? 4 : c === "U" ? 8 : 0;
    const digits = source.slice(at, at + length);
    if (length === 0 || !new RegExp(`^[0-9a-fA-F]{${length}}$`).test(digits))
      return fail(
        'an escape that is not \\n, \\r, \\t, \\\\, \\", \\[, \\], \\-, \\^, \\xHH, \\uHHHH or \\UHHHHHHHH',
      );
    at += length;
    const value = Number.parseInt(digits, 16);
    return value <= 0x10ffff ? value : fail("a code point beyond U+10FFFF");
  };
  const characterHere = (): number => {
    const value = source.codePointAt(at)!;
    at += value > 0xffff ? 2 : 1;
    return value === 92 ? escaped() : value;
  };
  const classHere = (): Expression => {
    const negated = source[at] === "^";
    if (negated) at++;
    const members: [number, number][] = [];
    while (source[at] !== "]") {
      if (at >= source.length || source[at] === "\n") fail("a class that is not closed");
      const low = characterHere();
      let high = low;
      if (source[at] === "-" && source[at + 1] !== "]") {
        at++;
        high = characterHere();
        if (high < low) fail("a range that ends before it begins");
      }
      members.push([low, high]);
    }
    at++;
    const chosen: Characters = negated ? complement(members) : members;
    return chosen.length > 0 ? character(chosen) : fail("a class that matches nothing");
  };
  const suffixed = (item: Expression): Expression => {
    const c = source[at];
    if (c === "*" || c === "+" || c === "?") {
      at++;
      return repeat(item, c === "+" ? 1 : 0, c === "?" ? 1 : Number.POSITIVE_INFINITY);
    }
    if (c !== "{") return item;
    const match = /^\{\s*(\d{1,9})\s*(,\s*(\d{0,9})\s*)?\}/.exec(source.slice(at, at + 60));
    if (!match) return fail("a count is expected, as in {2,5}");
    const least = Number(match[1]);
    const most =
      match[2] === undefined ? least : match[3] === "" ? Number.POSITIVE_INFINITY : Number(match[3]);
    if (least > most || least > maxRepeat || (most > maxRepeat && most !== Number.POSITIVE_INFINITY))
      fail(`a count must be 0 to ${maxRepeat}, the least before the most`);
    at += match[0].length;
    return repeat(item, least, most);
  };
  const alternatives = (depth: number): Expression => {
    if (depth > maxDepth) fail(`groups nested more than ${maxDepth} deep`);
    const options: Expression[] = [];
    let parts: Expression[] = [];
    for (;;) {
      skip(true);
      const c = source[at];
      if (c === undefined || c === ")" || beginsRule()) break;
      if (c === "|") {
        at++;
        options.push(sequence(...parts));
        parts = [];
      } else if (c === '"') {
        at++;
        let text = "";
        while (source[at] !== '"') {
          if (at >= source.length || source[at] === "\n") fail("a text that is not closed");
          text += String.fromCodePoint(characterHere());
        }
        at++;
        parts.push(suffixed(literal(text)));
      } else if (c === "[") {
        at++;
        parts.push(suffixed(classHere()));
      } else if (c === "(") {
        at++;
        const inner = alternatives(depth + 1);
        if (source[at] !== ")") fail("a group that is not closed");
        at++;
        parts.push(suffixed(inner));
      } else if (c === ".") {
        at++;
        parts.push(suffixed(character([[0, 0x10ffff]])));
      } else {
        const name = nameHere();
        if (name === undefined) return fail(`${JSON.stringify(c)} is not expected here`);
        at += name.length;
        parts.push(suffixed(rule(name)));
      }
    }
    options.push(sequence(...parts));
    return choice(...options);
  };
  for (skip(true); at < source.length; skip(true)) {
    const name = nameHere();
    if (name === undefined || !beginsRule()) return fail("a rule is expected: name ::= …");
    if (rules.has(name)) fail(`the rule "${name}" is defined twice`);
    at = source.indexOf("::=", at) + 3;
    rules.set(name, alternatives(0));
    if (source[at] === ")") fail("a closing parenthesis without an opening one");
  }
  if (!rules.has("root")) throw grammarError('the grammar has no rule "root"');
  return rules;
}
