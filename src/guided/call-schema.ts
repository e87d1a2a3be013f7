import type { JsonSchema } from "./json-schema.js";

/** A function that may be called, and the schema of its arguments; default: any object. */
export interface Callable {
  readonly name: string;
  readonly parameters?: object | null | undefined;
}

/**
 * The schema of a call of one of the functions, `{"name", "arguments"}`; where there may be several, of a list of 1 to
 * `most` calls. References in the functions' schemas mean these, not the whole.
 */
export function callSchema(functions: readonly Callable[], most = 1): JsonSchema {
  const calls = functions.map(({ name }, i) => ({
    type: "object",
    properties: { name: { const: name }, arguments: { $ref: `#/$defs/${i}` } },
    required: ["name", "arguments"],
    additionalProperties: false,
  }));
  const $defs = Object.fromEntries(
    functions.map(({ parameters }, i) => {
      const schema = rebased(parameters ?? {}, `#/$defs/${i}`) as object;
      return [String(i), "$ref" in schema ? schema : { type: "object", ...schema }];
    }),
  );
  const call = calls.length === 1 ? calls[0]! : { anyOf: calls };
  return most === 1 ? { ...call, $defs } : { type: "array", items: call, minItems: 1, maxItems: most, $defs };
}

/** Their keys are names, their values schemas. */
const named = new Set(["properties", "$defs", "definitions"]);
/** Values, in which nothing refers to anything. */
const literals = new Set(["const", "enum", "default", "examples"]);

function rebased(schema: unknown, base: string): unknown {
  if (Array.isArray(schema)) return schema.map((one) => rebased(one, base));
  if (typeof schema !== "object" || schema === null) return schema;
  const each = (of: object, change: (key: string, value: unknown) => unknown) =>
    Object.fromEntries(Object.entries(of).map(([key, value]) => [key, change(key, value)]));
  return each(schema, (key, value) => {
    if (key === "$ref" && typeof value === "string" && value.startsWith("#")) return base + value.slice(1);
    if (literals.has(key)) return value;
    if (named.has(key) && typeof value === "object" && value !== null)
      return each(value, (_, one) => rebased(one, base));
    return rebased(value, base);
  });
}
