import { OutriderError } from "../errors.js";

/** Refuses what is not known, with the nearest known name: a misspelt option must not be dropped in silence. */
export function rejectUnknownKeys(what: string, options: object, known: readonly string[]): void {
  if (typeof options !== "object" || options === null)
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      `${what}: the options are ${String(options)}, expected an object`,
    );
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    const near = known
      .map((name) => [distance(key.slice(0, 40), name), name] as const)
      .sort((a, b) => a[0] - b[0])[0];
    const hint = near && near[0] <= 3 ? `; did you mean "${near[1]}"?` : `. Known: ${known.join(", ")}`;
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      `${what}: there is no option ${JSON.stringify(key.slice(0, 40))}${hint}`,
      {
        param: key.slice(0, 40),
      },
    );
  }
}

/** Of any realm. Found wrong later, in a queue, it would fail for others too. */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  if (typeof signal?.aborted === "boolean" && typeof signal.addEventListener === "function") return;
  throw new OutriderError(
    "ERR_BAD_REQUEST",
    "signal is no AbortSignal; of an AbortController give its signal",
    {
      param: "signal",
    },
  );
}

/** Levenshtein distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}

export function wholeNumber(name: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new OutriderError(
    "ERR_BAD_REQUEST",
    `${name} is ${String(value).slice(0, 40)}, expected a whole number from ${least} to ${most}`,
    {
      param: name,
    },
  );
}

/** Token ids as a caller gives them; the error names the index. */
export function checkTokens(name: string, tokens: readonly unknown[], vocab: number): readonly number[] {
  // entries() visits the holes of a sparse array, forEach would not.
  for (const [i, id] of tokens.entries())
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocab)
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `${name}[${i}] is ${String(id).slice(0, 40)}, expected a token id from 0 to ${vocab - 1}`,
        {
          param: `${name}[${i}]`,
        },
      );
  return tokens as readonly number[];
}
