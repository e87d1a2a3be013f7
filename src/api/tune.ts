import { draftGain, type LayerChoice, searchLayers } from "../decoding/layer-search.js";
import type { Engine } from "../engine/engine.js";
import { resolveSampling, type Sampling } from "../engine/sampling.js";
import { blockSize, type Sequence } from "../engine/sequence.js";
import { OutriderError } from "../errors.js";

export interface TuneProgress {
  readonly tried: number;
  readonly seconds: number;
  /** The best choice so far. */
  readonly best: LayerChoice;
}

export interface TuneResult {
  /** Layers of the model. */
  readonly layers: number;
  /** Indices of those that draft. */
  readonly kept: readonly number[];
  /** 0 to 1: how often a drafted token is right, in texts that the search did not see where there is more than one. */
  readonly acceptance: number;
  /** The same of the choice that was in use before. */
  readonly acceptanceBefore: number;
  readonly keptBefore: readonly number[];
  /** Milliseconds in the core of a draft pass, and of one through all layers, over one token: medians. */
  readonly draftMs: number;
  readonly passMs: number;
  /** What drafting can gain at these figures, at the best length; below 1 it loses. */
  readonly gain: number;
  /** Choices that were tried. */
  readonly tried: number;
  /** Where the choice was stored; undefined where that failed. */
  readonly file: string | undefined;
}

/** A text that the model wrote itself. */
export interface OwnText {
  readonly prompt: readonly number[];
  readonly answer: readonly number[];
}

/** As far as a draft usually goes: each token sees the model's own cache, and the draft's for those before it. */
const DEPTH = 4;
/** Drafts that share a pass. */
const SIDE_BY_SIDE = 24;
/** What a draft may take: a copy of the block that it begins in, and the next. */
const FORK_POSITIONS = 2 * blockSize;
const ROUNDS = 15;

/**
 * Searches the layers that draft best for the engine, and leaves them set. The search hears of `texts` every other one.
 * Throws `ERR_BAD_REQUEST` where there is nothing to search in, `ERR_ABORTED` with the old choice in place.
 */
export async function tuneLayers(
  engine: Engine,
  texts: readonly OwnText[],
  options: {
    readonly seconds: number;
    readonly signal?: AbortSignal | undefined;
    readonly onProgress?: ((progress: TuneProgress) => void) | undefined;
  },
): Promise<Omit<TuneResult, "file">> {
  const { layers } = engine.config;
  const { seconds, signal, onProgress } = options;
  const long = fitting(
    texts.filter(({ answer }) => answer.length > 1),
    engine.usage.positions - engine.usage.used - FORK_POSITIONS * SIDE_BY_SIDE,
  );
  if (layers < 2 || long.length === 0)
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      layers < 2
        ? "the model has one layer, there is none to leave out"
        : "the model's answers to the prompts are empty, there is nothing to compare. Give other prompts",
      { param: "prompts" },
    );
  const keptBefore = engine.draftLayers;
  const sampling = resolveSampling({}, engine.config.vocab, 0);
  const open: Sequence[] = [];
  try {
    for (const { prompt, answer } of long) {
      const sequence = engine.open(prompt);
      open.push(sequence);
      await sequence.prefill([...prompt, ...answer].slice(sequence.tokens.length), signal);
    }
    const agreement = (kept: readonly number[], chosen: (i: number) => boolean) => {
      engine.draftLayers = kept;
      const drafts = long.flatMap(({ prompt }, i) => (chosen(i) ? draftsOf(open[i]!, prompt.length) : []));
      return agreementOf(drafts, sampling, signal);
    };
    const heard = (i: number) => i % 2 === 0;
    const unheard = (i: number) => i % 2 === 1 || long.length === 1;
    const random = generator(1);
    const started = performance.now();
    const elapsed = () => (performance.now() - started) / 1000;
    const { best, tried } = await searchLayers({
      layers,
      usual: keptBefore,
      agreement: (kept) => agreement(kept, heard),
      cost: (count) => 1 - engine.layerShare * (1 - count / layers),
      goOn(count, choice) {
        onProgress?.({ tried: count, seconds: elapsed(), best: choice });
        return elapsed() < seconds;
      },
      random,
    });
    const acceptanceBefore = await agreement(keptBefore, unheard);
    const acceptance = await agreement(best.kept, unheard);
    const { draftMs, passMs } = await measure(open[0]!, sampling, signal);
    const gain = draftGain(acceptance, draftMs / passMs);
    const { kept } = best;
    return { layers, kept, acceptance, keptBefore, acceptanceBefore, draftMs, passMs, gain, tried };
  } catch (error) {
    engine.draftLayers = keptBefore;
    throw error;
  } finally {
    for (const sequence of open) sequence[Symbol.dispose]();
  }
}

interface Trial {
  readonly sequence: Sequence;
  readonly at: number;
}

/** The first texts, as many as find room in the cache side by side; the first in any case. */
function fitting(texts: readonly OwnText[], positions: number): readonly OwnText[] {
  let left = positions;
  return texts.filter(({ prompt, answer }, i) => {
    left -= Math.ceil((prompt.length + answer.length) / blockSize + 1) * blockSize;
    return i === 0 || left >= 0;
  });
}

/** The places from which drafts of an answer begin: the token at `at` is known, those after it are to be guessed. */
function draftsOf(sequence: Sequence, promptLength: number): Trial[] {
  const trials: Trial[] = [];
  for (let at = promptLength - 1; at < sequence.tokens.length - 1; at += DEPTH) trials.push({ sequence, at });
  return trials;
}

async function agreementOf(
  trials: readonly Trial[],
  sampling: Sampling,
  signal: AbortSignal | undefined,
): Promise<number> {
  let right = 0;
  let all = 0;
  for (let first = 0; first < trials.length; first += SIDE_BY_SIDE)
    await Promise.all(
      trials.slice(first, first + SIDE_BY_SIDE).map(async ({ sequence, at }) => {
        using fork = sequence.fork(at);
        const known = sequence.tokens.slice(at, Math.min(at + DEPTH, sequence.tokens.length - 1));
        const { picks } = await fork.step(known, { sampling, draft: "fewer", signal });
        fork.keep([]);
        all += known.length;
        for (const [i, pick] of picks.entries()) if (pick === sequence.tokens[at + i + 1]) right++;
      }),
    );
  return right / all;
}

/** Medians of interleaved passes over one token. */
async function measure(sequence: Sequence, sampling: Sampling, signal: AbortSignal | undefined) {
  const token = sequence.tokens.at(-1)!;
  sequence.truncate(sequence.tokens.length - 1);
  const times = { draft: [] as number[], exact: [] as number[] };
  for (let round = 0; round < ROUNDS; round++)
    for (const kind of ["draft", "exact"] as const) {
      const { coreMs } = await sequence.step([token], {
        sampling,
        draft: kind === "draft" ? "fewer" : undefined,
        signal,
      });
      sequence.keep([]);
      times[kind].push(coreMs);
    }
  const median = (list: number[]) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)]!;
  return { draftMs: median(times.draft), passMs: median(times.exact) };
}

/** 0 to below 1, the same numbers for the same seed. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let h = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32;
  };
}
