import type { NativePass, NativeResult } from "../runtime/native.js";
import { type Adjustment, adjustments, adjusts, type Sampling } from "./sampling.js";
import type { StepOptions, StepResult } from "./sequence.js";

/** One sequence's rows in a pass. */
export interface Part {
  /** [n] */
  readonly tokens: readonly number[];
  /** [n] index, in the part, of the row before; -1: the row follows the cached tokens. */
  readonly parents: readonly number[];
  /** [n] where the rows' keys and values go. */
  readonly cells: readonly number[];
  /** The sequence's cached tokens. */
  readonly history: readonly number[];
  /** The sequence's blocks, those of the new cells included. */
  readonly table: readonly number[];
  /** What is wanted of every row; undefined: nothing, the rows only fill the cache. */
  readonly step: StepOptions | undefined;
  /** So many passes may follow; only of a part that is alone. Default: none. */
  readonly follow?: number;
}

const rowInts = 6;
const settingNumbers = 5;

/**
 * Rows of several sequences as one pass. Each row names its sequence's table and its own past, and each number of its
 * output is computed from these alone, so it does not matter what else is in the pass.
 */
export function assemblePass(parts: readonly Part[]): NativePass {
  const steps = parts.filter((part) => part.step !== undefined);
  const outputs = count(steps);
  const rows = new Int32Array(count(parts) * rowInts);
  const tableOffsets = new Int32Array(parts.length + 1);
  let first = 0;
  for (const [t, { tokens, parents, cells, history, table, step }] of parts.entries()) {
    tableOffsets[t + 1] = tableOffsets[t]! + table.length;
    for (let i = 0; i < tokens.length; i++) {
      const at = (first + i) * rowInts;
      const parent = parents[i]!;
      rows[at] = tokens[i]!;
      rows[at + 1] = t;
      rows[at + 2] = parent < 0 ? history.length : rows[(first + parent) * rowInts + 2]! + 1;
      rows[at + 3] = parent < 0 ? -1 : first + parent;
      rows[at + 4] = cells[i]!;
      rows[at + 5] = step ? 1 : 0;
    }
    first += tokens.length;
  }
  const tables = new Int32Array(tableOffsets[parts.length]!);
  for (const [t, { table }] of parts.entries()) tables.set(table, tableOffsets[t]!);
  return {
    rows,
    tables,
    tableOffsets,
    settings: settingsOf(steps, outputs),
    scored: steps.some(({ step }) => step!.score)
      ? Int32Array.from(steps.flatMap(({ step, tokens }) => step!.score ?? tokens.map(() => 0)))
      : undefined,
    ...(steps.some(({ step }) => step!.code) ? { codes: codesOf(steps) } : undefined),
    ...(steps.some(({ step }) => adjusts(step!.sampling)) ? adjustmentsOf(steps, outputs) : undefined),
    ...(steps.some(({ step }) => step!.masks) ? masksOf(steps, outputs) : undefined),
    top: steps.reduce((most, { step }) => Math.max(most, step!.top ?? 0), 0),
    wantLogits: steps.some(({ step }) => step!.logits),
    ...followOf(parts[0]!),
  };
}

/** What the pass says about each part, in order; undefined for parts that asked nothing. */
export function splitResult(parts: readonly Part[], result: NativeResult): (StepResult | undefined)[] {
  const steps = parts.filter((part) => part.step !== undefined);
  const outputs = count(steps);
  const top = steps.reduce((most, { step }) => Math.max(most, step!.top ?? 0), 0);
  const vocab = (result.logits?.length ?? 0) / Math.max(1, outputs);
  const shared =
    parts.length > 1
      ? { rows: outputs, steps: steps.length, filled: count(parts) - outputs, coreMs: result.milliseconds }
      : undefined;
  // A copy of what is one text's alone would be the same.
  const cut = <T extends Int32Array | Float32Array | Float64Array>(all: T, begin: number, end: number): T =>
    steps.length === 1 ? all : (all.slice(begin, end) as T);
  let first = 0;
  return parts.map(({ tokens, step }) => {
    if (step === undefined) return undefined;
    const begin = first;
    const end = begin + tokens.length;
    first = end;
    const own = step.top ?? 0;
    const bests = <T extends Int32Array | Float32Array>(all: T) =>
      own === top ? cut(all, begin * top, end * top) : best(all, begin, end, top, own);
    return {
      picks: cut(result.tokens, begin, end),
      logprobs: cut(result.logprobs, begin, end),
      topTokens: own === 0 ? noTokens : bests(result.topTokens!),
      topLogprobs: own === 0 ? noLogprobs : bests(result.topLogprobs!),
      ...(step.score && { scores: cut(result.scores!, begin, end) }),
      ...(step.code && { codes: cut(result.codes!, 2 * begin, 2 * end) }),
      ...(step.logits && { logits: cut(result.logits!, begin * vocab, end * vocab) }),
      coreMs: result.milliseconds,
      ...(shared && { shared }),
    };
  });
}

const noCode = { point: -1, resolution: 1 };
const noTokens = new Int32Array(0);
const noLogprobs = new Float32Array(0);

function count(parts: readonly Part[]): number {
  return parts.reduce((sum, { tokens }) => sum + tokens.length, 0);
}

/** The first `own` of the `top` that were asked for in each row: a shorter list is the longer one's beginning. */
function best<T extends Int32Array | Float32Array>(
  all: T,
  begin: number,
  end: number,
  top: number,
  own: number,
): T {
  const lists = all.slice(0, (end - begin) * own) as T;
  for (let row = begin; row < end; row++)
    lists.set(all.subarray(row * top, row * top + own), (row - begin) * own);
  return lists;
}

function settingsOf(steps: readonly Part[], outputs: number): Float64Array {
  const settings = new Float64Array(outputs * settingNumbers);
  let at = 0;
  for (const { step, tokens } of steps) {
    const { temperature, topK, topP, minP, seed } = step!.sampling;
    for (let i = 0; i < tokens.length; i++) {
      settings[at++] = temperature;
      settings[at++] = topK;
      settings[at++] = topP;
      settings[at++] = minP;
      settings[at++] = seed;
    }
  }
  return settings;
}

function masksOf(steps: readonly Part[], outputs: number) {
  const maskOf = new Int32Array(outputs).fill(-1);
  const distinct = new Map<Int32Array, number>();
  let row = 0;
  for (const { step, tokens } of steps)
    for (let i = 0; i < tokens.length; i++, row++) {
      const mask = step!.masks?.[i];
      if (mask === undefined) continue;
      if (!distinct.has(mask)) distinct.set(mask, distinct.size);
      maskOf[row] = distinct.get(mask)!;
    }
  const words = distinct.keys().next().value?.length ?? 0;
  const masks = new Int32Array(distinct.size * words);
  for (const [mask, at] of distinct) masks.set(mask, at * words);
  return { maskOf, masks };
}

function followOf({ follow = 0, step }: Part) {
  if (follow === 0) return undefined;
  const { ms, ends } = step!.follow!;
  return { follow, followMs: ms, ends: Int32Array.from(ends) };
}

/** The first row's; the core gives those after it theirs. */
function codesOf(steps: readonly Part[]): Float64Array {
  const { point, resolution } = noCode;
  return Float64Array.from(
    steps.flatMap(({ step, tokens }) => {
      const code = step!.code;
      return tokens.flatMap(() => (code ? [code.point, code.resolution] : [point, resolution]));
    }),
  );
}

function adjustmentsOf(steps: readonly Part[], outputs: number) {
  const offsets = new Int32Array(outputs + 1);
  const lists: [number, Adjustment][] = [];
  let row = 0;
  for (const part of steps)
    for (let i = 0; i < part.tokens.length; i++) {
      if (adjusts(part.step!.sampling)) lists.push(...adjustmentsAt(part, i, part.step!.sampling));
      offsets[++row] = lists.length;
    }
  return {
    adjustOffsets: offsets,
    adjustTokens: Int32Array.from(lists, ([token]) => token),
    adjustRepetition: Float32Array.from(lists, ([, a]) => a.repetition),
    adjustAdd: Float32Array.from(lists, ([, a]) => a.add),
  };
}

function adjustmentsAt({ tokens, parents, history }: Part, row: number, sampling: Sampling) {
  const path: number[] = [];
  for (let at = row; at >= 0; at = parents[at]!) path.unshift(tokens[at]!);
  return adjustments(sampling, [...history, ...path]);
}
