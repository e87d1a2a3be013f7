import { readFileSync } from "node:fs";
import type { Guide, JsonSchema } from "../index.js";
import { usageError } from "./failure.js";

export interface GuideFlags {
  readonly jsonSchema?: string;
  readonly regex?: string;
  readonly grammar?: string;
}

/** The guide of the flags; files are read, and their faults are told by name. */
export function guideFrom(flags: GuideFlags): Guide | undefined {
  const given = [flags.jsonSchema, flags.regex, flags.grammar].filter((flag) => flag !== undefined);
  if (given.length > 1) throw usageError("--json-schema, --regex and --grammar exclude each other");
  if (flags.regex !== undefined) return { regex: flags.regex };
  if (flags.grammar !== undefined) return { grammar: read(flags.grammar, "--grammar") };
  if (flags.jsonSchema === undefined) return undefined;
  if (flags.jsonSchema === "any") return { json: true };
  const text = read(flags.jsonSchema, "--json-schema");
  try {
    return { json: JSON.parse(text) as JsonSchema };
  } catch (error) {
    throw usageError(`--json-schema: ${flags.jsonSchema} is not JSON: ${(error as Error).message}`);
  }
}

function read(file: string, option: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw usageError(`${option}: ${file} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}
