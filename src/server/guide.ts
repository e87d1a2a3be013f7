import { OutriderError } from "../errors.js";
import type { Guide } from "../guided/constraint.js";
import type { JsonSchema } from "../guided/json-schema.js";
import type { Limits } from "./limits.js";
import type { GuideRequest } from "./schemas.js";

/** A guide, and the request's field that it came from. */
export interface FieldGuide {
  readonly guide: Guide;
  readonly field: string;
}

export const badField = (param: string, problem: string) =>
  new OutriderError("ERR_BAD_REQUEST", `${param} ${problem}`, { param });

/** Output that cannot be enforced is refused, never given unconstrained. */
export const cannot = (param: string, problem: string) =>
  new OutriderError("ERR_GRAMMAR", `${param} ${problem}`, { param });

/** OpenAI's `response_format`, and the field that it came in. */
export interface FormatField {
  readonly field: string;
  readonly type: string;
  readonly schema?: JsonSchema;
}

/**
 * What the whole text must be, wherever the request says it: OpenAI's field, vLLM's (`structured_outputs`, before
 * `guided_…`), llama.cpp's (`grammar`, `json_schema`). Throws ERR_BAD_REQUEST where two say it, ERR_GRAMMAR.
 */
export function guideOf(
  body: GuideRequest,
  limits: Limits,
  format: FormatField = { field: "response_format", type: "text" },
): FieldGuide | undefined {
  const { structured_outputs: structured } = body;
  const json = (field: string, schema: JsonSchema | null | undefined) => {
    if (schema != null) checkSchema(schema, field, limits);
    return [field, schema == null ? undefined : { json: schema }] as const;
  };
  const regex = (field: string, pattern: string | null | undefined) =>
    [field, pattern == null ? undefined : { regex: pattern }] as const;
  const grammar = (field: string, text: string | null | undefined) =>
    [field, text == null ? undefined : { grammar: text }] as const;
  const choice = (field: string, texts: readonly string[] | null | undefined) =>
    [field, texts == null ? undefined : { grammar: oneOf(texts) }] as const;
  const fields: readonly (readonly [string, Guide | undefined])[] = [
    [format.field, format.type === "json_object" ? { json: true } : undefined],
    json(format.field, format.schema),
    json("structured_outputs.json", structured?.json),
    ["structured_outputs.json_object", structured?.json_object ? { json: true } : undefined],
    regex("structured_outputs.regex", structured?.regex),
    grammar("structured_outputs.grammar", structured?.grammar),
    choice("structured_outputs.choice", structured?.choice),
    json("guided_json", body.guided_json),
    regex("guided_regex", body.guided_regex),
    grammar("guided_grammar", body.guided_grammar),
    choice("guided_choice", body.guided_choice),
    json("json_schema", body.json_schema),
    grammar("grammar", body.grammar),
  ];
  const [first, second] = fields.flatMap(([field, guide]) => (guide ? [{ field, guide }] : []));
  if (second)
    throw badField(second.field, `says what the text must be, and so does ${first!.field}: give one of them`);
  if (structured && first === undefined)
    throw badField("structured_outputs", "is empty, expected regex, grammar, choice, json or json_object");
  return first;
}

/** The grammar of one of several texts. */
function oneOf(texts: readonly string[]): string {
  const escaped = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they cannot stand in a grammar as they are
  const quoted = texts.map((text) => `"${text.replace(/["\\\u0000-\u001f\u007f]/g, escaped)}"`);
  return `root ::= ${quoted.join(" | ")}`;
}

export function checkSchema(schema: JsonSchema, field: string, limits: Limits): void {
  const size = JSON.stringify(schema).length;
  if (size > limits.schema)
    throw cannot(field, `has a schema of ${size} characters, at most ${limits.schema} are allowed`);
  if (depthOf(schema, limits.schemaDepth) > limits.schemaDepth)
    throw cannot(field, `has a schema nested more than ${limits.schemaDepth} deep`);
}

function depthOf(value: unknown, most: number): number {
  if (typeof value !== "object" || value === null || most < 0) return 0;
  return 1 + Math.max(0, ...Object.values(value).map((item) => depthOf(item, most - 1)));
}
