import { expect, test } from "vitest";
import { callSchema } from "./call-schema.js";
import { accepts } from "./testing.js";

/** As libraries write it: definitions of its own, one of which is recursive, and a property called "enum". */
const weather = {
  name: "weather",
  parameters: {
    type: "object",
    properties: { place: { $ref: "#/$defs/Place" }, enum: { $ref: "#/$defs/Unit" } },
    required: ["place"],
    additionalProperties: false,
    $defs: {
      Unit: { enum: ["c", { $ref: "#/$defs/Unit" }] },
      Place: {
        type: "object",
        properties: { city: { enum: ["Rome"] }, near: { $ref: "#/$defs/Place" } },
        required: ["city"],
        additionalProperties: false,
      },
    },
  },
};
/** A schema that is nothing but a reference, and another function's definition of the same name. */
const named = {
  name: "named",
  parameters: {
    $ref: "#/definitions/Place",
    definitions: { Place: { type: "object", properties: {}, additionalProperties: false } },
  },
};
const call = (name: string, args: string) => `{"name": "${name}", "arguments": ${args}}`;
const rome = call("weather", '{"place": {"city": "Rome"}}');
const nested = call("weather", '{"place": {"city": "Rome", "near": {"city": "Rome"}}, "enum": "c"}');

test("references mean the function's own schema", () => {
  const guide = { json: callSchema([weather, named]) };
  expect(accepts(guide, rome)).toBe(true);
  expect(accepts(guide, nested)).toBe(true);
  // A value that looks like a reference is one value among others.
  expect(accepts(guide, nested.replace('"enum": "c"', '"enum": {"$ref": "#/$defs/Unit"}'))).toBe(true);
  expect(accepts(guide, call("named", "{}"))).toBe(true);
  expect(accepts(guide, call("named", '{"place": {"city": "Rome"}}'))).toBe(false);
  expect(accepts(guide, call("other", "{}"))).toBe(false);
  expect(accepts(guide, `[${rome}]`)).toBe(false);
});

test("a list of calls has one at least and so many at most", () => {
  const guide = { json: callSchema([weather, { name: "any" }], 2) };
  const any = call("any", '{"x": [1]}');
  expect(
    [[], [rome], [any, nested], [rome, rome, rome]].map((calls) => accepts(guide, `[${calls.join(", ")}]`)),
  ).toEqual([false, true, true, false]);
  expect(accepts(guide, rome)).toBe(false);
});
