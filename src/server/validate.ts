import type { z } from "zod";
import { OutriderError, quote } from "../errors.js";

type Issue = z.core.$ZodIssue;

/** The value as the schema describes it. Throws ERR_BAD_REQUEST that names the field, its value and what was expected. */
export function validate<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, problem } = worst(result.error.issues[0]!, []);
  const param = pathText(path);
  throw new OutriderError("ERR_BAD_REQUEST", `${param || "the body"} ${problem(at(value, path))}`, {
    param: param || undefined,
  });
}

interface Finding {
  readonly path: readonly PropertyKey[];
  readonly problem: (found: unknown) => string;
}

/** Of a union the branch that went furthest is what was meant. */
function worst(issue: Issue, before: readonly PropertyKey[]): Finding {
  const path = [...before, ...issue.path];
  if (issue.code === "unrecognized_keys")
    return { path: [...path, issue.keys[0]!], problem: () => "is not a field that is supported here" };
  if (issue.code === "invalid_union" && issue.errors.length > 0) {
    const branches = issue.errors
      .filter((issues) => issues.length > 0)
      .map((issues) => worst(issues[0]!, path));
    const depth = Math.max(...branches.map((branch) => branch.path.length));
    const deepest = branches.filter((branch) => branch.path.length === depth);
    const kinds = [...new Set(issue.errors.flatMap((issues) => issues.slice(0, 1).map(expectation)))];
    if (depth > path.length || deepest.length === 1) return deepest[0]!;
    return { path, problem: (found) => `is ${show(found)}, expected ${kinds.join(" or ")}` };
  }
  if (issue.code === "invalid_key")
    return { path, problem: () => issue.issues[0]?.message ?? "is not a key" };
  return {
    path,
    problem: (found) =>
      found === undefined && issue.code === "invalid_type"
        ? `is missing, expected ${expectation(issue)}`
        : issue.message.startsWith("is ")
          ? issue.message
          : issue.message.startsWith("only ")
            ? `is ${show(found)}, ${issue.message}`
            : `is ${show(found)}, expected ${expectation(issue)}`,
  };
}

function expectation(issue: Issue): string {
  const own = /^expected (.*)$/s.exec(issue.message)?.[1];
  if (own !== undefined) return own;
  switch (issue.code) {
    case "invalid_type":
      return (
        { array: "an array", object: "an object", record: "an object", int: "a whole number" }[
          issue.expected as string
        ] ?? `a ${issue.expected}`
      );
    case "invalid_value":
      return issue.values.map((value) => JSON.stringify(value)).join(", ");
    case "too_big":
      return `at most ${issue.maximum} ${issue.origin === "string" ? "characters" : "entries"}`;
    case "too_small":
      return `at least ${issue.minimum} ${issue.origin === "string" ? "characters" : "entries"}`;
    case "invalid_union":
      return "options" in issue && Array.isArray(issue.options)
        ? issue.options.map((option) => JSON.stringify(option)).join(", ")
        : "another value";
    default:
      return issue.message;
  }
}

function show(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null || typeof value === "boolean" || typeof value === "number") return String(value);
  if (typeof value === "string") return quote(value);
  return Array.isArray(value) ? `an array of ${value.length}` : "an object";
}

/** `messages[3].role`, at most 120 characters. */
function pathText(path: readonly PropertyKey[]): string {
  const text = path
    .map((key, i) =>
      typeof key === "number" ? `[${key}]` : `${i > 0 ? "." : ""}${String(key).slice(0, 80) || '""'}`,
    )
    .join("");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not reach a log
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?").slice(0, 120);
}

function at(value: unknown, path: readonly PropertyKey[]): unknown {
  let found = value;
  for (const key of path) {
    if (typeof found !== "object" || found === null) return undefined;
    found = (found as Record<PropertyKey, unknown>)[key];
  }
  return found;
}
