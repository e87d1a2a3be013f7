import type { PassTrace } from "./api.js";

/** The model's own token: no drafter guessed it. */
export const own = "model";

export interface Token {
  readonly id: number;
  /** What it adds to the text; of a token that only begins a character nothing. */
  readonly text: string;
  /** The drafter that guessed it, or `own`. */
  readonly source: string;
  /** Of the model for it, 0 to 1. */
  readonly probability: number | undefined;
  /** It ends the answer and is not part of its text. */
  readonly end?: boolean;
}

/** One way on that was drafted and did not come true. */
export interface Rejected {
  /** [n] from the text on; the first `right` of them are what the model said too. */
  readonly ids: readonly number[];
  readonly right: number;
  readonly source: string;
}

export interface Pass {
  readonly index: number;
  readonly tokens: readonly Token[];
  readonly rejected: readonly Rejected[];
  readonly drafted: number;
  readonly accepted: number;
  readonly ms: number;
}

/** Where the emitted tokens lie in the drafted tree: [accepted] indices into `drafted`. */
export function acceptedPath({ tokens, drafted, parents, accepted }: PassTrace): number[] {
  const path: number[] = [];
  for (let i = 0, at = -1; i < accepted; i++) {
    at = drafted.findIndex((id, node) => id === tokens[i] && parents[node] === at);
    if (at < 0) break;
    path.push(at);
  }
  return path;
}

/** The drafted ways that end elsewhere, one for each leaf of the tree. */
export function rejectedDrafts(trace: PassTrace): Rejected[] {
  const right = new Set(acceptedPath(trace));
  const inner = new Set(trace.parents);
  return trace.drafted.flatMap((_, leaf) => {
    if (inner.has(leaf) || right.has(leaf)) return [];
    const way: number[] = [];
    for (let node = leaf; node >= 0; node = trace.parents[node]!) way.unshift(node);
    return {
      ids: way.map((node) => trace.drafted[node]!),
      right: way.filter((node) => right.has(node)).length,
      source: trace.sources[leaf]!,
    };
  });
}

/** FNV-1a over the ids, 4 bytes each: a short name by which two people can compare texts. */
export function hashIds(ids: readonly number[]): string {
  let hash = 0xcbf29ce484222325n;
  for (const id of ids)
    for (let shift = 0; shift < 32; shift += 8)
      hash = ((hash ^ BigInt((id >>> shift) & 255)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return hash.toString(16).padStart(16, "0");
}

/** The first place where two texts differ; -1: nowhere. */
export function firstDifference(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((id, i) => id !== b[i]);
  return at >= 0 || a.length === b.length ? at : a.length;
}

export function countBySource(passes: readonly Pass[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { tokens } of passes)
    for (const { source } of tokens) counts.set(source, (counts.get(source) ?? 0) + 1);
  return counts;
}
