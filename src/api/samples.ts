import { OutriderError } from "../errors.js";
import type { GenerationResult } from "./generation.js";

/** How the samples of one prompt are made to differ. */
export type SampleSpread = "independent" | "arithmetic";

/** Most samples of one prompt at a time. */
export const mostSamples = 64;

/**
 * For each of n samples the seed, and the code where they are drawn by codes. Independent samples have seeds one after
 * another; arithmetic ones share the seed, and their codes stand 1 / n apart behind a first one that the seed says, so
 * that each code alone is evenly distributed while all of them together cover the model's texts evenly.
 */
export function sampleSeeds(
  n: number,
  spread: SampleSpread,
  seed: number,
): { readonly seed: number; readonly code: number | undefined }[] {
  const first = unitOf(seed);
  return Array.from({ length: n }, (_, i) =>
    spread === "independent"
      ? { seed: seedAfter(seed, i), code: undefined }
      : { seed, code: ((i + first) / n) % 1 },
  );
}

/** The seed `i` further on; behind the last one comes 0. */
export function seedAfter(seed: number, i: number): number {
  const left = Number.MAX_SAFE_INTEGER - seed;
  return i <= left ? seed + i : i - left - 1;
}

/** A point of [0, 1) for each seed; neighbours have nothing in common. */
function unitOf(seed: number): number {
  // Not 0 for seed 0: the code 0 would always draw the first token that is possible at all.
  let h = ((seed % 2 ** 32) ^ (seed / 2 ** 32) ^ 0x27d4eb2f) >>> 0;
  for (const factor of [0x85ebca6b, 0xc2b2ae35, 0x9e3779b1]) {
    h = Math.imul(h ^ (h >>> 16), factor) >>> 0;
    h = (h ^ (h >>> 13)) >>> 0;
  }
  return h / 2 ** 32;
}

/** Of several answers to one prompt the one with the highest mean log-probability a token; the first where they tie. */
export function bestOf<R extends Pick<GenerationResult, "logprobs"> = GenerationResult>(
  results: readonly R[],
): R {
  const [first] = results;
  if (first === undefined) throw new OutriderError("ERR_BAD_REQUEST", "bestOf: there are no results");
  const mean = ({ logprobs }: R) =>
    logprobs.length === 0
      ? Number.NEGATIVE_INFINITY
      : logprobs.reduce((sum, logprob) => sum + logprob, 0) / logprobs.length;
  return results.reduce((best, one) => (mean(one) > mean(best) ? one : best), first);
}

export interface Vote<R = GenerationResult> {
  /** What most answers say; among equals what was said first. */
  readonly answer: string;
  readonly votes: number;
  /** The first answer that says it. */
  readonly result: R;
}

/**
 * What most of several answers to one prompt say (self-consistency, Wang et al. 2022). `extract` gives the part of an
 * answer that counts, undefined: none, it has no vote. Default: the whole text, without regard to case, punctuation and
 * space. Undefined where nobody votes.
 */
export function majorityVote<R extends Pick<GenerationResult, "text"> = GenerationResult>(
  results: readonly R[],
  extract: (result: R) => string | undefined = ({ text }) => normalised(text),
): Vote<R> | undefined {
  const votes = new Map<string, { votes: number; result: R }>();
  for (const result of results) {
    const answer = extract(result);
    if (answer === undefined) continue;
    const known = votes.get(answer);
    if (known) known.votes++;
    else votes.set(answer, { votes: 1, result });
  }
  let most: Vote<R> | undefined;
  for (const [answer, vote] of votes) if (vote.votes > (most?.votes ?? 0)) most = { answer, ...vote };
  return most;
}

function normalised(text: string): string {
  const words = text
    .normalize("NFKC")
    .toLowerCase()
    .match(/[\p{L}\p{N}]+/gu);
  return words?.join(" ") ?? "";
}
