// JSON schemas as grammars. The text is written as Python's json.dumps does: one space after commas and colons, none
// elsewhere, properties in the schema's order. What cannot be enforced is refused by name, never ignored.
import { type Characters, jsonCharacter } from "./characters.js";
import { choice, type Expression, empty, grammarError, literal, repeat, rule, sequence } from "./grammar.js";
import { parseRegex } from "./regex.js";

/** A JSON schema (draft 2020-12 or 7), or a boolean. */
export type JsonSchema = boolean | { readonly [keyword: string]: unknown };

const maxBytes = 65_536;
const maxDepth = 64;
const maxItems = 10_000;

const anyCharacter: Characters = [[0, 0x10ffff]];
const digit: Expression = { kind: "bytes", ranges: [[48, 57]] };
const nonZero: Expression = { kind: "bytes", ranges: [[49, 57]] };
const many = Number.POSITIVE_INFINITY;
// Whole numbers of up to 16 digits are what a double holds; a model that never ends a number never ends its text.
const wholePart = choice(literal("0"), sequence(nonZero, repeat(digit, 0, 15)));
const sign = repeat(literal("-"), 0, 1);

const exponentSign = repeat(choice(literal("+"), literal("-")), 0, 1);
const positiveNumber = sequence(
  wholePart,
  repeat(sequence(literal("."), repeat(digit, 1, 17)), 0, 1),
  repeat(sequence(choice(literal("e"), literal("E")), exponentSign, repeat(digit, 1, 3)), 0, 1),
);

/** Rules that every schema may call: `value`, `object`, `string`, … */
const common: readonly (readonly [string, Expression])[] = [
  ["character", jsonCharacter(anyCharacter)],
  ["string", sequence(literal('"'), repeat(rule("character"), 0, many), literal('"'))],
  ["integer", sequence(sign, wholePart)],
  ["number", sequence(sign, positiveNumber)],
  ["boolean", choice(literal("true"), literal("false"))],
  ["null", literal("null")],
  ["member", sequence(rule("string"), literal(": "), rule("value"))],
  ["object", list("{", rule("member"), "}", 0, many)],
  ["array", list("[", rule("value"), "]", 0, many)],
  ["value", choice(...["object", "array", "string", "number", "boolean", "null"].map((name) => rule(name)))],
];

function list(open: string, item: Expression, close: string, least: number, most: number): Expression {
  if (most === 0) return literal(open + close);
  const more = repeat(sequence(literal(", "), item), Math.max(0, least - 1), most - 1);
  const some = sequence(literal(open), item, more, literal(close));
  return least === 0 ? choice(literal(open + close), some) : some;
}

const annotations = new Set([
  ...["$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples"],
  ...["deprecated", "readOnly", "writeOnly"],
]);
const types = ["object", "array", "string", "integer", "number", "boolean", "null"] as const;
type TypeName = (typeof types)[number];
const keywordsOf: Readonly<Record<TypeName, readonly string[]>> = {
  object: ["properties", "required", "additionalProperties", "minProperties", "maxProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["minLength", "maxLength", "pattern", "format"],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  boolean: [],
  null: [],
};
const combining = ["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"];
const supported = new Set([...combining, ...annotations, ...Object.values(keywordsOf).flat()]);

const date = "\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])";
const time = "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)";
const byteNumber = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const formats: Readonly<Record<string, string>> = {
  date,
  time,
  "date-time": `${date}T${time}`,
  uuid: "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
  ipv4: `${byteNumber}(\\.${byteNumber}){3}`,
  email: "[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\\.[A-Za-z0-9-]{1,63}){0,4}\\.[A-Za-z]{2,24}",
};

type Schema = Readonly<Record<string, unknown>>;

/**
 * The rules of the texts that satisfy `schema`, beginning with `root`. Throws `ERR_GRAMMAR`, with a JSON pointer, for a
 * schema that is malformed, uses a keyword that is not supported, refers to another document, is larger than 64 KB or
 * deeper than 64, or that nothing satisfies.
 */
export function jsonSchemaRules(schema: JsonSchema): Map<string, Expression> {
  const root = checkSize(schema);
  const rules = new Map<string, Expression>(common);
  const references = new Map<string, string>(); // pointer → rule
  let serial = 0;

  const fail = (pointer: string, what: string): never => {
    throw grammarError(`the schema at ${pointer || "/"}: ${what}`);
  };
  const define = (name: string, make: () => Expression): Expression => {
    rules.set(name, empty); // the name is taken while its body is made
    rules.set(name, make());
    return rule(name);
  };
  const fresh = (kind: string) => `${kind}-${++serial}`;

  const resolve = (reference: unknown, pointer: string): Expression => {
    if (typeof reference !== "string") return fail(`${pointer}/$ref`, "is not a string");
    if (!reference.startsWith("#"))
      fail(`${pointer}/$ref`, "refers to another document, which is never fetched; put it under $defs");
    const known = references.get(reference);
    if (known !== undefined) return rule(known);
    let target: unknown = root;
    for (const part of reference.slice(1).split("/").slice(1)) {
      const key = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
      target =
        typeof target === "object" && target !== null && Object.hasOwn(target, key)
          ? (target as Schema)[key]
          : undefined;
    }
    if (target === undefined) fail(`${pointer}/$ref`, "refers to something that the schema does not have");
    const name = fresh("reference");
    references.set(reference, name);
    return define(name, () => build(target, reference.slice(1)));
  };

  const count = (s: Schema, keyword: string, pointer: string, fallback: number): number => {
    const value = s[keyword] ?? fallback;
    if (value === many) return many;
    if (!Number.isInteger(value) || (value as number) < 0)
      fail(`${pointer}/${keyword}`, "is not a whole number, 0 or more");
    if ((value as number) > maxItems) fail(`${pointer}/${keyword}`, `is more than ${maxItems}`);
    return value as number;
  };
  const bounds = (s: Schema, [least, most]: [string, string], pointer: string): [number, number] => {
    const range: [number, number] = [count(s, least, pointer, 0), count(s, most, pointer, many)];
    if (range[0] > range[1]) fail(pointer, `${least} is more than ${most}: nothing satisfies it`);
    return range;
  };

  const stringOf = (s: Schema, pointer: string): Expression => {
    // A rule of its own, so that its masks do not depend on what follows.
    const quoted = (body: Expression) =>
      define(fresh("string"), () => sequence(literal('"'), body, literal('"')));
    const [least, most] = bounds(s, ["minLength", "maxLength"], pointer);
    const isBounded = least > 0 || most !== many;
    if (s.pattern !== undefined) {
      if (typeof s.pattern !== "string") return fail(`${pointer}/pattern`, "is not a string");
      if (isBounded || s.format !== undefined)
        fail(
          `${pointer}/pattern`,
          "together with minLength, maxLength or format is not supported; say it in the pattern",
        );
      const { body, anchoredStart, anchoredEnd } = parseRegex(s.pattern, jsonCharacter);
      const anything = repeat(rule("character"), 0, many);
      return quoted(sequence(anchoredStart ? empty : anything, body, anchoredEnd ? empty : anything));
    }
    if (s.format !== undefined) {
      const pattern =
        typeof s.format === "string" && Object.hasOwn(formats, s.format) ? formats[s.format] : undefined;
      if (pattern === undefined)
        return fail(
          `${pointer}/format`,
          `${JSON.stringify(s.format)} is not supported; supported: ${Object.keys(formats).join(", ")}`,
        );
      if (isBounded) fail(`${pointer}/format`, "together with minLength or maxLength is not supported");
      return quoted(parseRegex(pattern, jsonCharacter).body);
    }
    return isBounded ? quoted(repeat(rule("character"), least, most)) : rule("string");
  };

  const integerOf = (s: Schema, pointer: string): Expression => {
    let least = Number.NEGATIVE_INFINITY;
    let most = many;
    for (const [keyword, value] of Object.entries(s)) {
      if (!keywordsOf.integer.includes(keyword)) continue;
      if (typeof value !== "number" || !(Math.abs(value) < 1e15))
        fail(`${pointer}/${keyword}`, "is not a number below 10^15");
      const bound = value as number;
      if (keyword === "minimum") least = Math.max(least, Math.ceil(bound));
      if (keyword === "exclusiveMinimum") least = Math.max(least, Math.floor(bound) + 1);
      if (keyword === "maximum") most = Math.min(most, Math.floor(bound));
      if (keyword === "exclusiveMaximum") most = Math.min(most, Math.ceil(bound) - 1);
    }
    if (least > most) fail(pointer, "minimum is more than maximum: nothing satisfies it");
    if (least === Number.NEGATIVE_INFINITY && most === many) return rule("integer");
    return integersBetween(least, most);
  };

  const numberOf = (s: Schema, pointer: string): Expression => {
    const bound = keywordsOf.number.filter((keyword) => s[keyword] !== undefined);
    if (bound.length === 0) return rule("number");
    if (bound.length === 1 && s.minimum === 0) return positiveNumber;
    return fail(
      `${pointer}/${bound[0]}`,
      'is supported for type "integer" only (for "number" just minimum 0)',
    );
  };

  const arrayOf = (s: Schema, pointer: string): Expression => {
    const [least, most] = bounds(s, ["minItems", "maxItems"], pointer);
    const prefix = s.prefixItems ?? [];
    if (!Array.isArray(prefix)) return fail(`${pointer}/prefixItems`, "is not an array");
    const first = prefix.map((item, i) => build(item, `${pointer}/prefixItems/${i}`));
    const item =
      s.items === false ? undefined : define(fresh("item"), () => build(s.items ?? true, `${pointer}/items`));
    if (first.length === 0)
      return item === undefined && least === 0
        ? literal("[]")
        : list("[", item ?? fail(pointer, "nothing satisfies it"), "]", least, most);
    if (most < first.length || least > first.length + (item ? many : 0))
      fail(pointer, "prefixItems together with these minItems and maxItems is not supported");
    const more = item
      ? repeat(sequence(literal(", "), item), Math.max(0, least - first.length), most - first.length)
      : empty;
    const parts = first.flatMap((e, i) => (i === 0 ? [e] : [literal(", "), e]));
    return sequence(literal("["), ...parts, more, literal("]"));
  };

  const objectOf = (s: Schema, pointer: string): Expression => {
    const properties = s.properties ?? {};
    if (typeof properties !== "object" || properties === null || Array.isArray(properties))
      return fail(`${pointer}/properties`, "is not an object");
    const required = s.required ?? [];
    if (!Array.isArray(required) || required.some((name) => typeof name !== "string"))
      return fail(`${pointer}/required`, "is not a list of names");
    const names = Object.keys(properties);
    const missing = (required as string[]).find((name) => !names.includes(name));
    if (missing !== undefined)
      fail(`${pointer}/required`, `${JSON.stringify(missing)} is not among the properties`);
    if (names.length === 0) {
      const [least, most] = bounds(s, ["minProperties", "maxProperties"], pointer);
      if (s.additionalProperties === false)
        return least === 0 ? literal("{}") : fail(pointer, "nothing satisfies it");
      const value = define(fresh("entry"), () =>
        build(s.additionalProperties ?? true, `${pointer}/additionalProperties`),
      );
      return list("{", sequence(rule("string"), literal(": "), value), "}", least, most);
    }
    for (const keyword of ["minProperties", "maxProperties"])
      if (s[keyword] !== undefined)
        fail(`${pointer}/${keyword}`, "together with properties is not supported");
    // One rule for every property and whether one stands before it: what may follow from there.
    const id = fresh("object");
    const tail = (i: number, comma: boolean): Expression => {
      const name = names[i];
      if (name === undefined) return literal("}");
      const key = `${id}-${i}${comma ? "-more" : ""}`;
      if (rules.has(key)) return rule(key);
      return define(key, () => {
        const value = rule(`${id}-value-${i}`);
        const present = sequence(
          literal(`${comma ? ", " : ""}${JSON.stringify(name)}: `),
          value,
          tail(i + 1, true),
        );
        return required.includes(name) ? present : choice(present, tail(i + 1, comma));
      });
    };
    names.forEach((name, i) => {
      define(`${id}-value-${i}`, () =>
        build((properties as Schema)[name], `${pointer}/properties/${escapePointer(name)}`),
      );
    });
    return sequence(literal("{"), tail(0, false));
  };

  const makers: Readonly<Record<TypeName, (s: Schema, pointer: string) => Expression>> = {
    object: objectOf,
    array: arrayOf,
    string: stringOf,
    integer: integerOf,
    number: numberOf,
    boolean: () => rule("boolean"),
    null: () => rule("null"),
  };

  const build = (schema: unknown, pointer: string): Expression => {
    if (schema === true) return rule("value");
    if (schema === false) return fail(pointer, "false: nothing satisfies it");
    if (typeof schema !== "object" || schema === null || Array.isArray(schema))
      return fail(pointer, "is not a schema (an object, true or false)");
    const s = schema as Schema;
    const keywords = Object.keys(s).filter((keyword) => !annotations.has(keyword));
    for (const keyword of keywords)
      if (!supported.has(keyword))
        fail(`${pointer}/${escapePointer(keyword)}`, "this keyword is not supported");
    const alone = (keyword: string) => {
      const other = keywords.find(
        (k) => k !== keyword && !(k === "type" && (keyword === "enum" || keyword === "const")),
      );
      if (other !== undefined) fail(`${pointer}/${keyword}`, `together with ${other} is not supported`);
    };
    if (s.$ref !== undefined) {
      alone("$ref");
      return resolve(s.$ref, pointer);
    }
    if (s.const !== undefined || s.enum !== undefined) {
      const keyword = s.const !== undefined ? "const" : "enum";
      alone(keyword);
      const values = keyword === "const" ? [s.const] : s.enum;
      if (!Array.isArray(values) || values.length === 0)
        return fail(`${pointer}/enum`, "is not a list with at least one value");
      const allowed =
        s.type === undefined ? values : values.filter((v) => typeList(s, pointer).some((t) => isOf(v, t)));
      if (allowed.length === 0)
        fail(pointer, `no value of ${keyword} is of the given type: nothing satisfies it`);
      return choice(...allowed.map((value) => literal(jsonText(value))));
    }
    for (const keyword of ["anyOf", "oneOf", "allOf"]) {
      if (s[keyword] === undefined) continue;
      alone(keyword);
      const options = s[keyword];
      if (!Array.isArray(options) || options.length === 0)
        return fail(`${pointer}/${keyword}`, "is not a list with at least one schema");
      if (keyword === "allOf" && options.length > 1)
        fail(`${pointer}/allOf`, "more than one schema is not supported");
      if (keyword === "oneOf" && !areDisjoint(options))
        fail(
          `${pointer}/oneOf`,
          "its schemas are not told apart by type or by a constant property; use anyOf",
        );
      return choice(...options.map((option, i) => build(option, `${pointer}/${keyword}/${i}`)));
    }
    const named =
      s.type === undefined
        ? types.filter((t) => keywordsOf[t].some((k) => s[k] !== undefined))
        : typeList(s, pointer);
    if (s.type === undefined && named.length === 0) return rule("value");
    const chosen =
      s.type === undefined && named.includes("number") ? named.filter((t) => t !== "integer") : named;
    for (const keyword of keywords)
      if (keyword !== "type" && !chosen.some((t) => keywordsOf[t].includes(keyword)))
        fail(`${pointer}/${keyword}`, `does not apply to type ${chosen.join(", ")}`);
    return choice(...chosen.map((t) => makers[t](s, pointer)));
  };

  const typeList = (s: Schema, pointer: string): TypeName[] => {
    const list = Array.isArray(s.type) ? s.type : [s.type];
    const unknown = list.find((t) => !types.includes(t));
    if (unknown !== undefined || list.length === 0)
      fail(`${pointer}/type`, `expected one of ${types.join(", ")}`);
    return list as TypeName[];
  };

  rules.set("root", build(root, ""));
  return rules;
}

/** Any JSON object. */
export const anyObject: JsonSchema = { type: "object" };

const escapePointer = (key: string) => key.slice(0, 80).replaceAll("~", "~0").replaceAll("/", "~1");

function isOf(value: unknown, type: TypeName): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}

function jsonText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(jsonText).join(", ")}]`;
  if (typeof value === "object" && value !== null)
    return `{${Object.entries(value)
      .map(([key, v]) => `${JSON.stringify(key)}: ${jsonText(v)}`)
      .join(", ")}}`;
  return JSON.stringify(value);
}

/** Whether no value can satisfy two of the schemas: other types, or other constants in one property. */
function areDisjoint(options: readonly unknown[]): boolean {
  const schemas = options.map((o) => (typeof o === "object" && o !== null ? (o as Schema) : {}));
  const kinds = schemas.map((s) => s.type);
  const apart = (list: readonly unknown[]) =>
    list.every((v) => v !== undefined) && new Set(list.map(String)).size === list.length;
  const overlap = kinds.includes("integer") && kinds.includes("number");
  if (kinds.every((k) => typeof k === "string") && apart(kinds) && !overlap) return true;
  if (schemas.every((s) => s.const !== undefined) && apart(schemas.map((s) => jsonText(s.const))))
    return true;
  const constants = schemas.map((s) => {
    const properties = (s.properties ?? {}) as Record<string, Schema>;
    const required = Array.isArray(s.required) ? s.required : [];
    return Object.fromEntries(
      Object.entries(properties)
        .filter(([name, p]) => p?.const !== undefined && required.includes(name))
        .map(([name, p]) => [name, jsonText(p.const)]),
    );
  });
  return Object.keys(constants[0] ?? {}).some((name) => apart(constants.map((c) => c[name])));
}

/** Depth and size are looked at before anything walks the schema; the copy holds nothing but JSON. */
function checkSize(schema: JsonSchema): unknown {
  let text: string | undefined;
  try {
    text = JSON.stringify(schema);
  } catch {
    throw grammarError("the schema is not JSON, or is nested too deep");
  }
  if (text === undefined) throw grammarError("the schema is not JSON");
  if (text.length > maxBytes)
    throw grammarError(`the schema has ${text.length} characters, at most ${maxBytes} are supported`);
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (inString) {
      if (c === "\\") i++;
      else if (c === '"') inString = false;
    } else if (c === '"') inString = true;
    else if (c === "{" || c === "[") {
      if (++depth > 2 * maxDepth) throw grammarError(`the schema is nested more than ${maxDepth} deep`);
    } else if (c === "}" || c === "]") depth--;
  }
  return JSON.parse(text);
}

/** Whole numbers from `least` to `most` (either may be infinite), in decimal. */
export function integersBetween(least: number, most: number): Expression {
  const options: Expression[] = [];
  if (least < 0) {
    const smallest = most < 0 ? -most : 1;
    options.push(
      sequence(literal("-"), naturals(smallest, least === Number.NEGATIVE_INFINITY ? many : -least)),
    );
  }
  if (most >= 0) options.push(naturals(Math.max(0, least), most));
  return choice(...options);
}

const longest = 16;

/** Whole numbers from `low` (0 or more) to `high`. */
function naturals(low: number, high: number): Expression {
  const options: Expression[] = [];
  const text = String(low);
  const end = high === many ? text.length : String(high).length;
  for (let digits = text.length; digits <= end; digits++) {
    const from = digits === text.length ? text : `1${"0".repeat(digits - 1)}`;
    const to = high !== many && digits === end ? String(high) : "9".repeat(digits);
    options.push(sameLength(from, to));
  }
  if (high === many && text.length < longest)
    options.push(sequence(nonZero, repeat(digit, text.length, longest - 1)));
  return choice(...options);
}

function sameLength(from: string, to: string): Expression {
  const range = (a: string, b: string): Expression => ({
    kind: "bytes",
    ranges: [[a.charCodeAt(0), b.charCodeAt(0)]],
  });
  if (from.length === 0) return empty;
  const [a, b] = [from[0]!, to[0]!];
  const [restFrom, restTo] = [from.slice(1), to.slice(1)];
  if (a === b) return sequence(literal(a), sameLength(restFrom, restTo));
  const options = [
    sequence(literal(a), sameLength(restFrom, "9".repeat(restFrom.length))),
    sequence(literal(b), sameLength("0".repeat(restTo.length), restTo)),
  ];
  const [next, before] = [String(Number(a) + 1), String(Number(b) - 1)];
  if (next <= before)
    options.push(sequence(range(next, before), repeat(digit, restFrom.length, restFrom.length)));
  return choice(...options);
}
