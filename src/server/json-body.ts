import { OutriderError, quote } from "../errors.js";
import type { Limits } from "./limits.js";

/** The JSON value in a request's body. It is refused while it is read where it is too large, and never decompressed. */
export async function readJson(
  request: Request,
  limits: Pick<Limits, "body" | "jsonDepth">,
): Promise<unknown> {
  const type = request.headers.get("content-type");
  if (type === null || !/^application\/json\s*(;|$)/i.test(type))
    throw new OutriderError(
      "ERR_MEDIA_TYPE",
      `the Content-Type is ${type === null ? "missing" : quote(type)}, expected application/json`,
    );
  const encoding = request.headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity")
    throw new OutriderError(
      "ERR_MEDIA_TYPE",
      `the Content-Encoding is ${quote(encoding)}: send the body as it is`,
    );
  const bytes = await readBytes(request, limits.body);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new OutriderError("ERR_BAD_REQUEST", "the body is not UTF-8", { cause });
  }
  checkStructure(text, limits.jsonDepth);
  try {
    return JSON.parse(text);
  } catch (error) {
    // V8's message quotes the text, which may be a prompt.
    const position = /position (\d+)/.exec(String(error))?.[1];
    const where =
      text === "" ? "it is empty" : position === undefined ? "it ends early" : `at position ${position}`;
    throw new OutriderError("ERR_BAD_REQUEST", `the body is not valid JSON: ${where}`);
  }
}

async function readBytes(request: Request, limit: number): Promise<Uint8Array> {
  const tooLarge = () =>
    new OutriderError("ERR_TOO_LARGE", `the body has more than the ${limit} bytes that are allowed`);
  if (Number(request.headers.get("content-length")) > limit) throw tooLarge();
  if (!request.body) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of request.body as unknown as AsyncIterable<Uint8Array>) {
      length += chunk.length;
      if (length > limit) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof OutriderError) throw cause;
    throw new OutriderError("ERR_ABORTED", "the connection was closed before the body's end", { cause });
  }
  return Buffer.concat(chunks, length);
}

/** No request that means something has more. */
const maxKeys = 65_536;

/**
 * Refuses what JSON.parse would take and nobody means: nesting or fields without end, a key twice (the last would win), and
 * `__proto__`. Syntax is JSON.parse's to check.
 */
export function checkStructure(text: string, maxDepth: number): void {
  const open: (Set<string> | undefined)[] = []; // of each object its keys, undefined for an array
  let keyNext = false;
  let keys = 0;
  let field: string | undefined; // of the body itself: what an error names
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x7b: // {
      case 0x5b: // [
        keyNext = text.charCodeAt(i) === 0x7b;
        open.push(keyNext ? new Set() : undefined);
        if (open.length > maxDepth)
          throw new OutriderError(
            "ERR_BAD_REQUEST",
            `the body is nested more than ${maxDepth} deep at position ${i}`,
            { param: field },
          );
        break;
      case 0x7d: // }
      case 0x5d: // ]
        open.pop();
        keyNext = false;
        break;
      case 0x2c: // ,
        keyNext = open.at(-1) !== undefined;
        break;
      case 0x22: {
        // "
        const start = i++;
        while (i < text.length && text.charCodeAt(i) !== 0x22) i += text.charCodeAt(i) === 0x5c ? 2 : 1;
        if (keyNext && ++keys > maxKeys)
          throw new OutriderError("ERR_BAD_REQUEST", `the body has more than ${maxKeys} fields`, {
            param: field,
          });
        if (keyNext) {
          const key = addKey(open.at(-1), text.slice(start, i + 1));
          if (open.length === 1) field = key.slice(0, 80);
        }
        keyNext = false;
        break;
      }
    }
  }
}

function addKey(keys: Set<string> | undefined, literal: string): string {
  let key = literal.slice(1, -1);
  if (key.includes("\\"))
    try {
      key = JSON.parse(literal);
    } catch {
      return key; // JSON.parse will say so of the whole
    }
  if (key === "__proto__" || keys?.has(key))
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      key === "__proto__" ? "__proto__ is not a field" : `the field ${quote(key)} is given twice`,
      { param: key.slice(0, 80) },
    );
  keys?.add(key);
  return key;
}
