import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Automaton } from "./automaton.js";
import { compile } from "./grammar.js";
import { integersBetween, type JsonSchema } from "./json-schema.js";
import { accepts, randomText } from "./testing.js";

const person: JsonSchema = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 1 },
    age: { type: "integer", minimum: 0, maximum: 120 },
    tags: { type: "array", items: { enum: ["a", "b", 3, null] }, maxItems: 3 },
    address: { $ref: "#/$defs/address" },
  },
  required: ["name", "age"],
  additionalProperties: false,
  $defs: {
    address: {
      type: "object",
      properties: { street: { type: "string" }, next: { $ref: "#/$defs/address" } },
      required: ["street"],
    },
  },
};

const schemas: Readonly<Record<string, JsonSchema>> = {
  person,
  anything: {},
  "any object": { type: "object" },
  map: { type: "object", additionalProperties: { type: "number" }, minProperties: 1, maxProperties: 3 },
  "all optional": {
    properties: { a: { type: "null" }, b: { type: "boolean" }, c: { const: [1, { x: "y" }] } },
  },
  tuple: {
    type: "array",
    prefixItems: [{ type: "string" }, { type: "integer" }],
    items: { type: "boolean" },
    minItems: 2,
    maxItems: 4,
  },
  "closed tuple": {
    type: "array",
    prefixItems: [{ type: "string" }, { type: "integer" }],
    items: false,
    minItems: 2,
  },
  union: {
    anyOf: [
      { type: "string", maxLength: 3 },
      { type: ["integer", "null"] },
      { type: "array", items: { type: "number" }, minItems: 1 },
    ],
  },
  "one of kinds": {
    oneOf: [
      {
        type: "object",
        properties: { kind: { const: "circle" }, radius: { type: "number", minimum: 0 } },
        required: ["kind", "radius"],
      },
      {
        type: "object",
        properties: { kind: { const: "square" }, side: { type: "number" } },
        required: ["kind", "side"],
      },
    ],
  },
  pattern: { type: "string", pattern: '^[A-Z"\\\\]{2}-\\d+$' },
  "unanchored pattern": { type: "string", pattern: "ab+" },
  date: { type: "string", format: "date-time" },
  uuid: { type: "string", format: "uuid" },
  bounded: { type: "integer", exclusiveMinimum: -17, maximum: 1003 },
};

describe.each(Object.entries(schemas))("%s", (_name, schema) => {
  const ajv = new Ajv2020({ strict: false, formats: { "date-time": true, uuid: true } });
  const validate = ajv.compile(schema as object | boolean);

  test("makes only JSON that another validator accepts", () => {
    let ended = 0;
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(1_000_000)), (numbers) => {
        const text = randomText({ json: schema }, (n) => (numbers.next().value as number) % n, 300);
        if (text === undefined) return true;
        ended++;
        return validate(JSON.parse(text)) === true;
      }),
      { numRuns: 150, seed: 3 },
    );
    expect(ended).toBeGreaterThan(0);
  });
});

test.each([
  [person, '{"name": "A", "age": 7}', true],
  [person, '{"name": "Aé\\n", "age": 120, "tags": ["a", 3, null]}', true],
  [person, '{"name": "A", "age": 7, "address": {"street": "x", "next": {"street": "y"}}}', true],
  [person, '{"name": "A", "age": 121}', false],
  [person, '{"name": "", "age": 7}', false],
  [person, '{"age": 7, "name": "A"}', false],
  [person, '{"name": "A", "age": 7, "more": 1}', false],
  [person, '{"name":"A","age":7}', false],
  [{ type: "number" }, "-0.5e+10", true],
  [{ type: "number" }, "01", false],
  [{ type: "string" }, '"\t"', false],
  [{}, '[{"a": [1, "x", {}]}, null]', true],
] as const)("%j: %s is %s", (schema, text, expected) => {
  expect(accepts({ json: schema as JsonSchema }, text)).toBe(expected);
});

test("whole numbers between two bounds", () => {
  fc.assert(
    fc.property(fc.integer({ min: -2000, max: 2000 }), fc.nat(1500), (least, span) => {
      const most = least + span;
      const automaton = new Automaton(compile(new Map([["root", integersBetween(least, most)]]), "root"));
      const matches = (n: number) => {
        let at: ReturnType<typeof automaton.step> = automaton.start;
        for (const byte of Buffer.from(String(n))) at = at && automaton.step(at, byte);
        return at?.isComplete ?? false;
      };
      for (let n = least - 30; n <= most + 30; n += 7)
        expect(matches(n), `${n} in ${least}..${most}`).toBe(n >= least && n <= most);
      for (const n of [least, most]) expect(matches(n)).toBe(true);
    }),
    { numRuns: 60, seed: 4 },
  );
});

const deep = (n: number): JsonSchema => (n === 0 ? { type: "null" } : { type: "array", items: deep(n - 1) });
test.each<[string, unknown, RegExp]>([
  [
    "a keyword that cannot be enforced",
    { type: "object", patternProperties: {} },
    /patternProperties: this keyword is not supported/,
  ],
  ["multipleOf", { type: "integer", multipleOf: 3 }, /multipleOf/],
  ["not", { not: { type: "null" } }, /at \/not/],
  ["a remote reference", { $ref: "https://example.com/x.json" }, /another document/],
  ["a reference to nothing", { $ref: "#/$defs/none" }, /does not have/],
  ["a reference to itself", { $ref: "#" }, /left recursion|no text satisfies/],
  [
    "an infinite object",
    { type: "object", properties: { a: { $ref: "#" } }, required: ["a"] },
    /no text satisfies/,
  ],
  ["a contradiction", { type: "integer", minimum: 3, maximum: 2 }, /nothing satisfies/],
  ["false", false, /nothing satisfies/],
  ["an enum outside its type", { type: "string", enum: [1, 2] }, /nothing satisfies/],
  ["minItems 10^9", { type: "array", minItems: 1e9 }, /more than 10000/],
  ["depth 10 000", deep(5000), /nested/],
  ["depth 200", deep(200), /nested more than 64/],
  ["a large enum", { enum: Array.from({ length: 100_000 }, (_, i) => `value ${i}`) }, /at most 65536/],
  ["oneOf that may overlap", { oneOf: [{ type: "number" }, { type: "integer" }] }, /not told apart/],
  ["allOf of two", { allOf: [{ type: "object" }, { type: "object" }] }, /allOf/],
  ["an unknown format", { type: "string", format: "hostname" }, /hostname/],
  ["a pattern with look-ahead", { type: "string", pattern: "(?=a)" }, /look-around/],
  ["a keyword of another type", { type: "string", minItems: 2 }, /does not apply/],
  ["an unknown type", { type: "text" }, /expected one of/],
  ["no schema", 7, /is not a schema/],
  [
    "a required property that is not there",
    { type: "object", properties: { a: true }, required: ["b"] },
    /not among the properties/,
  ],
])("%s is refused by name", (_name, schema, message) => {
  expect(() => accepts({ json: schema as JsonSchema }, "")).toThrow(
    expect.objectContaining({ code: "ERR_GRAMMAR", message: expect.stringMatching(message) }),
  );
});

test("a property called __proto__ is an ordinary one", () => {
  const schema = JSON.parse(
    '{"type":"object","properties":{"__proto__":{"type":"null"}},"required":["__proto__"]}',
  );
  expect(accepts({ json: schema }, '{"__proto__": null}')).toBe(true);
});
