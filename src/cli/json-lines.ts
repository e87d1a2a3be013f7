import { readFile } from "node:fs/promises";
import { text as readAll } from "node:stream/consumers";
import { OutriderError, quote } from "../errors.js";
import type { Prompt } from "../index.js";
import { usageError } from "./failure.js";

/** One object of a JSON Lines file; `where` is "FILE:LINE". */
export interface JsonLine {
  readonly where: string;
  readonly value: Readonly<Record<string, unknown>>;
  /** `id` or `question_id`, else the line's number. */
  readonly id: string | number;
}

/**
 * The objects of a JSON Lines file, "-" for standard input, at most `limit` of them; blank lines are skipped. A file
 * that cannot be read is ERR_PATH, a line that is not an object ERR_BAD_REQUEST with its number.
 */
export async function readJsonLines(file: string, limit = Number.POSITIVE_INFINITY): Promise<JsonLine[]> {
  const name = file === "-" ? "standard input" : file;
  const content = await (file === "-" ? readAll(process.stdin) : readFile(file, "utf8")).catch(
    (cause: NodeJS.ErrnoException) => {
      throw new OutriderError(
        "ERR_PATH",
        `${name} ${reasons[cause.code ?? ""] ?? `cannot be read: ${cause.message}`}`,
        { cause },
      );
    },
  );
  const lines: JsonLine[] = [];
  for (const [i, line] of content
    .replace(/^\ufeff/, "")
    .split("\n")
    .entries()) {
    if (lines.length >= limit) break;
    if (line.trim() === "") continue;
    lines.push(parseLine(line, `${name}:${i + 1}`, i + 1));
  }
  if (lines.length === 0) throw usageError(`${name} has no lines, expected one JSON object a line`);
  return lines;
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "does not exist",
  EISDIR: "is a folder, expected a JSON Lines file",
  EACCES: "may not be read: permission denied",
};

function parseLine(line: string, where: string, number: number): JsonLine {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw usageError(`${where}: not JSON: ${quote(line)}; expected one JSON object a line`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value))
    throw usageError(`${where}: expected a JSON object, found ${quote(line)}`);
  const fields = value as Readonly<Record<string, unknown>>;
  const id = fields.id ?? fields.question_id ?? number;
  if (typeof id !== "string" && typeof id !== "number")
    throw usageError(`${where}: id is ${quote(JSON.stringify(id))}, expected text or a number`);
  return { where, value: fields, id };
}

/** A field that holds token ids; undefined where there is none. That they are in the vocabulary is for later. */
export function tokenIds(line: JsonLine, field: string): readonly number[] | undefined {
  const value = line.value[field];
  if (value === undefined) return undefined;
  if (Array.isArray(value) && value.every((id) => Number.isInteger(id))) return value as number[];
  throw usageError(
    `${line.where}: ${field} is ${quote(JSON.stringify(value))}, expected an array of token ids`,
  );
}

/** A field that holds text; undefined where there is none. */
export function text(line: JsonLine, field: string): string | undefined {
  const value = line.value[field];
  if (value === undefined || typeof value === "string") return value;
  throw usageError(`${line.where}: ${field} is ${quote(JSON.stringify(value))}, expected text`);
}

/** What a line asks: its `prompt_tokens`, used as they are; else its `prompt`; else the first of its `turns`. */
export function promptOf(line: JsonLine): Prompt {
  const ids = tokenIds(line, "prompt_tokens");
  if (ids !== undefined) return ids;
  const { prompt, turns } = line.value;
  const text = prompt ?? (Array.isArray(turns) ? turns[0] : undefined);
  if (typeof text === "string" && text !== "") return text;
  throw usageError(
    `${line.where}: expected "prompt" (text), "turns" (texts, the first is taken) or "prompt_tokens" (token ids)`,
  );
}
