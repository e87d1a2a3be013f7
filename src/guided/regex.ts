// Regular expressions as people write them in JSON schemas, without what is not regular.
import { type Characters, character, complement } from "./characters.js";
import { choice, type Expression, empty, grammarError, repeat, sequence } from "./grammar.js";

const maxLength = 2048;
const maxDepth = 100;
const maxRepeat = 10_000;

const digits: Characters = [[48, 57]];
const word: Characters = [
  [48, 57],
  [65, 90],
  [95, 95],
  [97, 122],
];
const space: Characters = [
  [9, 13],
  [32, 32],
  [0xa0, 0xa0],
  [0xfeff, 0xfeff],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
];
const lineEnds: Characters = [
  [10, 10],
  [13, 13],
  [0x2028, 0x2029],
];
const classes: Readonly<Record<string, Characters>> = {
  d: digits,
  D: complement(digits),
  w: word,
  W: complement(word),
  s: space,
  S: complement(space),
};
const controls: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, v: 11, "0": 0 };

export interface Regex {
  readonly body: Expression;
  readonly anchoredStart: boolean;
  readonly anchoredEnd: boolean;
}

/**
 * Parses a pattern of JavaScript's syntax: characters, classes, groups, alternatives, quantifiers, `^` at the start and
 * `$` at the end. Look-around, back-references, word boundaries and flags are refused by name, with their position.
 * `one` makes the expression of a set of characters; default: their UTF-8 bytes.
 */
export function parseRegex(pattern: string, one: (set: Characters) => Expression = character): Regex {
  const text = Array.from(pattern);
  if (pattern.length > maxLength)
    throw grammarError(`the pattern has ${pattern.length} characters, at most ${maxLength} are supported`);
  let at = 0;
  const fail = (what: string, where = at): never => {
    throw grammarError(`the pattern, position ${where}: ${what}`);
  };
  const point = (c: string) => c.codePointAt(0)!;

  const anchoredStart = text[0] === "^";
  let end = text.length;
  let backslashes = 0;
  while (text[end - 2 - backslashes] === "\\") backslashes++;
  const anchoredEnd = text[end - 1] === "$" && backslashes % 2 === 0 && end > (anchoredStart ? 1 : 0);
  if (anchoredStart) at = 1;
  if (anchoredEnd) end--;

  const hex = (count: number): number => {
    const digitsText = text.slice(at, at + count).join("");
    if (!new RegExp(`^[0-9a-fA-F]{${count}}$`).test(digitsText))
      fail(`${count} hexadecimal digits are expected`);
    at += count;
    return Number.parseInt(digitsText, 16);
  };
  /** After a backslash. */
  const escaped = (inClass: boolean): Characters => {
    const c = text[at++];
    if (c === undefined || at > end) return fail("a backslash at the end", at - 1);
    if (Object.hasOwn(classes, c)) return classes[c]!;
    if (Object.hasOwn(controls, c)) return [[controls[c]!, controls[c]!]];
    if (c === "b" && inClass) return [[8, 8]];
    if (c === "b" || c === "B") return fail("word boundaries are not supported", at - 2);
    if (/[1-9k]/.test(c)) return fail("back-references are not supported", at - 2);
    if (c === "p" || c === "P") return fail("Unicode property classes are not supported", at - 2);
    if (c === "x" || c === "u") {
      const value = hex(c === "x" ? 2 : 4);
      return [[value, value]];
    }
    if (c === "c") return fail("control escapes are not supported", at - 2);
    return [[point(c), point(c)]];
  };
  const set = (): Characters => {
    const begin = at - 1;
    const negated = text[at] === "^";
    if (negated) at++;
    const members: [number, number][] = [];
    while (at < end && text[at] !== "]") {
      const item = (): Characters => {
        const c = text[at++]!;
        return c === "\\" ? escaped(true) : [[point(c), point(c)]];
      };
      const low = item();
      const isSingle = low.length === 1 && low[0]![0] === low[0]![1];
      if (isSingle && text[at] === "-" && at + 1 < end && text[at + 1] !== "]") {
        at++;
        const high = item();
        const [from, to] = [low[0]![0], high.length === 1 ? high[0]![1] : -1];
        if (to < from) fail("a range that ends before it begins");
        members.push([from, to]);
      } else members.push(...low.map(([a, b]): [number, number] => [a, b]));
    }
    if (at >= end) fail("a class that is not closed", begin);
    at++;
    const chosen = negated ? complement(members) : members;
    if (chosen.length === 0) fail("a class that matches nothing", begin);
    return chosen;
  };
  const quantified = (atom: Expression, begin: number): Expression => {
    const c = text[at];
    let [least, most] = [1, 1];
    if (at < end && c === "*") [least, most] = [0, Number.POSITIVE_INFINITY];
    else if (at < end && c === "+") [least, most] = [1, Number.POSITIVE_INFINITY];
    else if (at < end && c === "?") [least, most] = [0, 1];
    else if (at < end && c === "{") {
      const match = /^\{(\d{1,9})(,(\d{0,9}))?\}/.exec(text.slice(at, Math.min(end, at + 24)).join(""));
      if (!match) return fail("{ must be followed by a count, as in {2,5}, or be written \\{");
      least = Number(match[1]);
      most = match[2] === undefined ? least : match[3] === "" ? Number.POSITIVE_INFINITY : Number(match[3]);
      if (least > most) fail(`{${least},${most}}: the least is more than the most`);
      if (least > maxRepeat || (most !== Number.POSITIVE_INFINITY && most > maxRepeat))
        fail(`repetitions of more than ${maxRepeat} are not supported`);
      at += match[0].length - 1;
    } else return atom;
    at++;
    if (at < end && text[at] === "?") at++; // lazy: the same set of texts
    if (at < end && /[*+?{]/.test(text[at]!)) fail("two quantifiers in a row");
    if (begin === at) fail("nothing to repeat");
    return repeat(atom, least, most);
  };
  const alternatives = (depth: number): Expression => {
    if (depth > maxDepth) fail(`groups nested more than ${maxDepth} deep`);
    const options: Expression[] = [];
    let parts: Expression[] = [];
    while (at < end && text[at] !== ")") {
      const begin = at;
      const c = text[at++]!;
      if (c === "|") {
        options.push(sequence(...parts));
        parts = [];
        continue;
      }
      if (/[*+?]/.test(c)) fail("nothing to repeat", begin);
      if (c === "{") fail("nothing to repeat; a brace itself is written \\{", begin);
      if (c === "^" || c === "$")
        fail(`"${c}" is supported at the ${c === "^" ? "start" : "end"} of the pattern only`, begin);
      if (c === "(") {
        if (text[at] === "?") {
          if (text[at + 1] === ":") at += 2;
          else if (text[at + 1] === "<" && /[A-Za-z_]/.test(text[at + 2] ?? "")) {
            while (at < end && text[at] !== ">") at++;
            at++;
          } else fail("look-around and flags in groups are not supported", begin);
        }
        const inner = alternatives(depth + 1);
        if (text[at] !== ")" || at >= end) fail("a group that is not closed", begin);
        at++;
        parts.push(quantified(inner, begin));
        continue;
      }
      const chosen: Characters =
        c === "."
          ? complement(lineEnds)
          : c === "["
            ? set()
            : c === "\\"
              ? escaped(false)
              : [[point(c), point(c)]];
      parts.push(quantified(one(chosen), begin));
    }
    options.push(sequence(...parts));
    return choice(...options);
  };
  const body = text.length === 0 ? empty : alternatives(0);
  if (at < end) fail("a closing parenthesis without an opening one");
  return { body, anchoredStart, anchoredEnd };
}
