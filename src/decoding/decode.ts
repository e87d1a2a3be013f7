import { firstCode, nextCode, type Sampling } from "../engine/sampling.js";
import { chainParents, type Sequence, type StepResult } from "../engine/sequence.js";
import { OutriderError } from "../errors.js";
import type { GuideState } from "../guided/constraint.js";
import { type Draft, type Drafter, EMPTY_DRAFT } from "./drafter.js";
import { allowedDraft, guideDraft, masksOf, mergedDraft } from "./guide.js";
import { type Planner, reachOf } from "./plan.js";
import { type DrawnPass, verifyBlock, verifyByRejection } from "./rejection.js";
import { type DecodeStats, newStats } from "./stats.js";
import { type Verified, verify } from "./verify.js";
import { warped } from "./warp.js";

export interface DecodeOptions {
  readonly drafter: Drafter;
  readonly planner: Planner;
  readonly sampling: Sampling;
  /** Emit at most so many tokens, 0 or more. */
  readonly maxTokens: number;
  /** Tokens that end the text; the one that does is emitted. */
  readonly endIds: ReadonlySet<number>;
  /** Give the `top` best tokens beside every emitted one, 0 (default) to 64. */
  readonly top?: number;
  /** What the text must be from here on; default: anything. */
  readonly guide?: GuideState | undefined;
  /**
   * How drafts are judged where tokens are drawn at random. "coupled" (default): by the token that plain decoding draws
   * there. "rejection": by modified rejection, which keeps the distribution of the texts but not the text of a seed.
   */
  readonly verify?: Verification;
  /** Give every step's `pass`, one pass a step; default false. */
  readonly trace?: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Counted up while decoding. */
  readonly stats?: DecodeStats;
  /** Milliseconds from any origin. Default: `performance.now`. */
  readonly now?: () => number;
}

/** Where nothing is drafted, passes follow in the core for so many milliseconds. */
const FOLLOW_MS = 16;

export type Verification = "coupled" | "rejection";

/** Why a text ended: an end token, `maxTokens`, or no place left in the context. */
export type FinishReason = "end" | "length" | "context";

/** What one pass did, for people who look at decoding. */
export interface PassTrace {
  /** [n] what the pass emitted: the accepted drafts, then the model's own token. */
  readonly tokens: readonly number[];
  /** [k] drafted tokens that the pass verified. */
  readonly drafted: readonly number[];
  /** [k] for each drafted token the index of the drafted one before it; -1: it follows the text. */
  readonly parents: readonly number[];
  /** [k] the drafter that guessed each. */
  readonly sources: readonly string[];
  /** How many of `tokens` were drafted. */
  readonly accepted: number;
  /** Milliseconds: drafting, the pass and bookkeeping. */
  readonly ms: number;
}

/** What one pass emitted; where nothing is drafted, those of 16 ms. */
export interface DecodedStep {
  /** [n] at least one, but none when the text may not grow at all. */
  readonly tokens: readonly number[];
  /** [n] natural log-probabilities under the model's own distribution. */
  readonly logprobs: Float32Array;
  /** [n × top] best first. */
  readonly topTokens: Int32Array;
  /** [n × top] */
  readonly topLogprobs: Float32Array;
  /** The drafter that proposed the first `accepted` tokens; those behind them are the model's own. */
  readonly drafter: string;
  /** Drafted tokens that the pass verified. */
  readonly drafted: number;
  readonly accepted: number;
  /** Where asked for. */
  readonly pass?: PassTrace;
  /** Set in the last step, and only there. */
  readonly finish?: FinishReason;
}

/**
 * Continues a text, one pass after another: draft, verify, keep. The text is the cached `sequence.tokens` and then
 * `lastToken`, which may be a prompt's last token: its pass emits the first new one.
 *
 * Tokens and log-probabilities are those of plain decoding, whatever is drafted, and so is the place where the text
 * ends. After every step `sequence.tokens` is the text without its last token, so leaving the loop early, or an abort,
 * leaves a sequence that can go on. The drafter is reset, and stays the caller's to dispose of.
 *
 * Throws `ERR_ABORTED` once the signal is aborted, `ERR_BAD_REQUEST` when a draft is malformed.
 */
export async function* decode(
  sequence: Sequence,
  lastToken: number,
  options: DecodeOptions,
): AsyncGenerator<DecodedStep, void, undefined> {
  const { drafter, planner, sampling, maxTokens, endIds, top = 0, trace = false, signal } = options;
  const rowTop = Math.max(top, drafter.top ?? 0);
  const { stats = newStats(), now = () => performance.now() } = options;
  // The whole text, the last token included, must fit the context.
  const room = sequence.context - sequence.tokens.length - 1;
  const limit = Math.min(maxTokens, room);
  const limitReason = maxTokens <= room ? "length" : "context";
  if (limit <= 0) {
    yield { ...NOTHING, drafter: drafter.name, finish: limitReason };
    return;
  }

  const rejects = options.verify === "rejection" && sampling.temperature > 0;
  await drafter.reset([...sequence.tokens, lastToken], { sampling, proposals: rejects, sequence, signal });
  let last = lastToken;
  let guide = options.guide;
  // Follows from the emitted tokens alone, whatever was drafted.
  let code = firstCode(sampling);
  for (let left = limit; left > 0; ) {
    if (signal?.aborted)
      throw new OutriderError("ERR_ABORTED", "Generation was aborted.", { cause: signal.reason });
    const start = now();
    // Every emitted token but one is an accepted draft, so more than left - 1 cannot be of use.
    const most = Math.min(sequence.maxStep, left) - 1;
    const wanted = planner.limit(most, sequence.tokens.length);
    const proposed = wanted > 0 ? await drafter.propose(wanted, planner.price, guide) : undefined;
    const proposedMs = now() - start;
    if (proposed && proposed.tokens.length > 0) checkDraft(proposed, drafter.name);
    // What must come is drafted even where asking the drafter does not pay.
    const draft =
      guide && !drafter.guided
        ? mergedDraft(guideDraft(guide, most), allowedDraft(proposed ?? EMPTY_DRAFT, guide), [
            "guide",
            drafter.name,
          ])
        : proposed;
    const assembled = assemble(last, draft, planner, most);
    const draftMs = now() - start;
    const rest = wanted > 0 || trace ? 0 : Math.min(most, planner.rest());

    const result = await sequence.step(assembled.tokens, {
      parents: assembled.parents,
      sampling,
      code,
      top: rowTop,
      logits: rejects,
      masks: guide && masksOf(assembled.tokens, assembled.parents, guide),
      ...(rest > 0 ? { follow: { passes: rest, ms: FOLLOW_MS, ends: endIds } } : undefined),
      signal,
    });
    const followed = result.picks.length - assembled.tokens.length;
    const pass = followed === 0 ? assembled : chainOf([last, ...result.picks.subarray(0, followed)]);
    const passes = 1 + followed;
    const { tokens, path } = rejects
      ? reject(pass, draft, result, sampling, sequence.tokens, endIds)
      : verify(pass.tokens, pass.parents, result.picks, endIds, pass.padding);
    sequence.keep(path);
    for (const token of tokens) guide = guide?.advance(token);
    code = nextCode(result.codes, path.at(-1)!);
    const info = {
      tokens: pass.tokens,
      parents: pass.parents,
      rows: pass.tokens.length - pass.padding,
      path,
      top: rowTop,
      result,
    };
    const accounted = now();
    drafter.accept(tokens, info);
    const end = now();

    last = tokens.at(-1)!;
    left -= tokens.length;
    const drafted = assembled.tokens.length - 1 - assembled.padding;
    const accepted = tokens.length - passes;
    for (let i = 0; i < passes; i++)
      planner.observe({
        length: assembled.tokens.length,
        coreMs: result.coreMs / passes,
        // What a guide looks up, plain decoding would have to look up as well.
        draftMs: (proposedMs + end - accounted) / passes,
        proposed: proposed?.tokens.length ?? 0,
        drafted,
        emitted: 1 + accepted,
        shared: result.shared,
      });
    count(stats, assembled, 1 + accepted, passes);
    stats.coreMs += result.coreMs;
    stats.draftMs += draftMs + end - accounted;
    stats.decodeMs += end - start;

    const finish = endIds.has(last) ? "end" : left <= 0 ? limitReason : undefined;
    yield {
      tokens,
      ...selectRows(rejects ? rescored(result, path, tokens) : result, path, top, rowTop),
      drafter: drafter.name,
      drafted,
      accepted,
      ...(trace ? { pass: traceOf(pass, draft, drafter.name, tokens, end - start) } : undefined),
      finish,
    };
    if (finish === "end") return;
  }
}

/** Modified rejection with random numbers of its own, fixed by the seed, the place and what was drafted. */
function reject(
  { tokens, parents, padding, chosen }: Pass,
  draft: Draft | undefined,
  { logits }: StepResult,
  sampling: Sampling,
  past: readonly number[],
  endIds: ReadonlySet<number>,
): Verified {
  const vocab = logits!.length / tokens.length;
  let draws = 0;
  const pass: DrawnPass = {
    tokens,
    parents,
    probabilities(row) {
      const path: number[] = [];
      for (let node = row; node >= 0; node = parents[node]!) path.unshift(tokens[node]!);
      return warped(logits!.subarray(row * vocab, (row + 1) * vocab), sampling, [...past, ...path]);
    },
    proposal: (node) => draft?.proposals?.[chosen[node - 1]!],
    uniform: () => uniformAt(sampling.seed, past.length, draws++),
  };
  const isChain = parents.every((parent, i) => parent === i - 1);
  return (isChain && draft?.proposals ? verifyBlock : verifyByRejection)(pass, endIds, padding);
}

/** The result with the log-probabilities of the emitted tokens in place of the core's picks. */
function rescored(result: StepResult, path: readonly number[], tokens: readonly number[]): StepResult {
  const logprobs = result.logprobs.slice();
  const vocab = result.logits!.length / logprobs.length;
  for (const [i, row] of path.entries()) {
    const at = row * vocab;
    logprobs[row] =
      result.logprobs[row]! + result.logits![at + tokens[i]!]! - result.logits![at + result.picks[row]!]!;
  }
  return { ...result, logprobs };
}

/** 0 to below 1, as if drawn anew for every combination. */
function uniformAt(seed: number, position: number, draw: number): number {
  let h = 0x243f6a88;
  for (const part of [seed % 2 ** 32, Math.floor(seed / 2 ** 32), position, draw]) {
    h = Math.imul(h ^ part, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
  }
  return (h >>> 0) / 2 ** 32;
}

const NOTHING = {
  tokens: [],
  logprobs: new Float32Array(0),
  topTokens: new Int32Array(0),
  topLogprobs: new Float32Array(0),
  drafted: 0,
  accepted: 0,
} as const;

/** As if all passes that followed each other had been one. */
function chainOf(tokens: number[]): Pass {
  return { tokens, parents: chainParents(tokens.length), padding: 0, chosen: [] };
}

interface Pass {
  readonly tokens: number[];
  readonly parents: number[];
  /** Tokens at the end of the pass that nobody drafted. */
  readonly padding: number;
  /** For each drafted token of the pass its index in the draft. */
  readonly chosen: readonly number[];
}

/** The last token, then those drafted tokens that are worth their place, then padding. */
function assemble(last: number, draft: Draft | undefined, planner: Planner, most: number): Pass {
  const tokens = [last];
  const parents = [-1];
  const chosen: number[] = [];
  if (draft !== undefined && draft.tokens.length > 0) {
    const place: number[] = [];
    // What was drawn for rejection is not chosen from: which tokens were drawn must not decide how many count.
    for (const index of draft.proposals ? draft.tokens.keys() : planner.choose(reachOf(draft))) {
      if (tokens.length > most) break;
      const parent = draft.parents === undefined ? index - 1 : draft.parents[index]!;
      place[index] = tokens.length;
      chosen.push(index);
      tokens.push(draft.tokens[index]!);
      parents.push(parent < 0 ? 0 : place[parent]!);
    }
  }
  const padding = planner.padTo(tokens.length, most + 1) - tokens.length;
  for (let i = 0; i < padding; i++) {
    parents.push(tokens.length - 1);
    tokens.push(last);
  }
  return { tokens, parents, padding, chosen };
}

function traceOf(
  pass: Pass,
  draft: Draft | undefined,
  name: string,
  tokens: readonly number[],
  ms: number,
): PassTrace {
  const end = pass.tokens.length - pass.padding;
  return {
    tokens,
    drafted: pass.tokens.slice(1, end),
    parents: pass.parents.slice(1, end).map((parent) => parent - 1),
    sources: pass.chosen.map((index) => draft?.sources?.[index] ?? name),
    accepted: tokens.length - 1,
    ms,
  };
}

function checkDraft({ tokens, parents, probabilities, sources }: Draft, name: string): void {
  const problem =
    tokens.length !== probabilities.length || (parents !== undefined && parents.length !== tokens.length)
      ? `${tokens.length} tokens with ${probabilities.length} probabilities and ${parents?.length ?? "no"} parents`
      : parents?.some((parent, i) => !Number.isInteger(parent) || parent < -1 || parent >= i)
        ? "a parent that is not a token before its child"
        : tokens.some((token) => !Number.isInteger(token) || token < 0)
          ? "something that is not a token id"
          : sources !== undefined && sources.length !== tokens.length
            ? `${tokens.length} tokens with ${sources.length} sources`
            : undefined;
  if (problem === undefined) return;
  throw new OutriderError("ERR_BAD_REQUEST", `The drafter "${name}" proposed ${problem}.`, {
    param: "drafter",
  });
}

/** `emitted`: tokens of each of the passes. */
function count(
  stats: DecodeStats,
  { tokens, parents, padding }: Pass,
  emitted: number,
  passes: number,
): void {
  stats.passes += passes;
  stats.tokens += passes * emitted;
  stats.accepted += emitted - 1;
  stats.padded += padding;
  const depths = [0];
  for (let node = 1; node < tokens.length - padding; node++) {
    const depth = depths[parents[node]!]! + 1;
    depths.push(depth);
    stats.drafted++;
    stats.draftedByPosition[depth - 1] = (stats.draftedByPosition[depth - 1] ?? 0) + 1;
    stats.acceptedByPosition[depth - 1] ??= 0;
  }
  for (let depth = 1; depth < emitted; depth++) stats.acceptedByPosition[depth - 1]!++;
}

function selectRows(
  { logprobs, topTokens, topLogprobs }: StepResult,
  path: readonly number[],
  top: number,
  rowTop: number,
) {
  const selected = {
    logprobs: new Float32Array(path.length),
    topTokens: top === 0 ? NOTHING.topTokens : new Int32Array(path.length * top),
    topLogprobs: top === 0 ? NOTHING.topLogprobs : new Float32Array(path.length * top),
  };
  for (const [i, row] of path.entries()) {
    selected.logprobs[i] = logprobs[row]!;
    if (top === 0) continue;
    selected.topTokens.set(topTokens.subarray(row * rowTop, row * rowTop + top), i * top);
    selected.topLogprobs.set(topLogprobs.subarray(row * rowTop, row * rowTop + top), i * top);
  }
  return selected;
}
