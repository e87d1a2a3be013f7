// Sets of characters as expressions over the bytes of their UTF-8 form.
import { choice, type Expression, literal, sequence } from "./grammar.js";

/** Inclusive ranges of code points, in any order. */
export type Characters = readonly (readonly [number, number])[];

const last = 0x10ffff;

/** Sorted, without overlap, without surrogates (which UTF-8 does not have). */
export function normalised(set: Characters): [number, number][] {
  const sorted = set
    .flatMap(([low, high]): [number, number][] => [
      [low, Math.min(high, 0xd7ff)],
      [Math.max(low, 0xe000), high],
    ])
    .filter(([low, high]) => low <= high)
    .sort((a, b) => a[0] - b[0]);
  const merged: [number, number][] = [];
  for (const [low, high] of sorted) {
    const before = merged.at(-1);
    if (before && low <= before[1] + 1) before[1] = Math.max(before[1], high);
    else merged.push([low, high]);
  }
  return merged;
}

export function complement(set: Characters): [number, number][] {
  const result: [number, number][] = [];
  let next = 0;
  for (const [low, high] of normalised(set)) {
    if (low > next) result.push([next, low - 1]);
    next = high + 1;
  }
  if (next <= last) result.push([next, last]);
  return normalised(result);
}

export function without(set: Characters, taken: Characters): [number, number][] {
  return complement([...complement(set), ...taken]);
}

/** One character of the set, as UTF-8. */
export function character(set: Characters): Expression {
  const options: Expression[] = [];
  const single: [number, number][] = [];
  for (const [low, high] of normalised(set))
    for (const [from, to, bytes] of splitByLength(low, high))
      if (bytes === 1) single.push([from, to]);
      else options.push(...byteRanges(encode(from), encode(to)));
  if (single.length > 0) options.unshift({ kind: "bytes", ranges: single });
  return choice(...options);
}

/** One character of the set as it stands inside a JSON string: escaped where it must be. */
export function jsonCharacter(set: Characters): Expression {
  const escaped: Characters = [
    [0, 0x1f],
    [0x22, 0x22],
    [0x5c, 0x5c],
  ];
  const options = [character(without(set, escaped))];
  for (const [low, high] of normalised(set))
    for (const [from, to] of escaped)
      for (let c = Math.max(low, from); c <= Math.min(high, to); c++)
        options.push(literal(JSON.stringify(String.fromCodePoint(c)).slice(1, -1)));
  return choice(...options);
}

const lengths: readonly (readonly [number, number, number])[] = [
  [0, 0x7f, 1],
  [0x80, 0x7ff, 2],
  [0x800, 0xffff, 3],
  [0x10000, last, 4],
];

function splitByLength(low: number, high: number): [number, number, number][] {
  return lengths.flatMap(([from, to, bytes]): [number, number, number][] =>
    low <= to && high >= from ? [[Math.max(low, from), Math.min(high, to), bytes]] : [],
  );
}

const encode = (codePoint: number) => [...new TextEncoder().encode(String.fromCodePoint(codePoint))];

/** All byte strings from `low` to `high` whose continuation bytes run from 0x80 to 0xbf. */
function byteRanges(low: number[], high: number[]): Expression[] {
  const one = (a: number, b: number): Expression => ({ kind: "bytes", ranges: [[a, b]] });
  const any = (n: number) => Array.from({ length: n }, () => one(0x80, 0xbf));
  const [a, ...restLow] = low as [number, ...number[]];
  const [b, ...restHigh] = high as [number, ...number[]];
  if (restLow.length === 0) return [one(a, b)];
  if (a === b) return [sequence(one(a, a), choice(...byteRanges(restLow, restHigh)))];
  const options: Expression[] = [];
  const lowest = restLow.every((x) => x === 0x80);
  const highest = restHigh.every((x) => x === 0xbf);
  const from = lowest ? a : a + 1;
  const to = highest ? b : b - 1;
  if (!lowest)
    options.push(
      sequence(
        one(a, a),
        choice(
          ...byteRanges(
            restLow,
            restLow.map(() => 0xbf),
          ),
        ),
      ),
    );
  if (from <= to) options.push(sequence(one(from, to), ...any(restLow.length)));
  if (!highest)
    options.push(
      sequence(
        one(b, b),
        choice(
          ...byteRanges(
            restHigh.map(() => 0x80),
            restHigh,
          ),
        ),
      ),
    );
  return options;
}
