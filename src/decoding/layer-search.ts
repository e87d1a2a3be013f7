import { areDraftLayers, defaultDraftLayers } from "../engine/draft-layers.js";

/** Layers for a draft of the model, and what they are worth. */
export interface LayerChoice {
  readonly kept: readonly number[];
  /** 0 to 1: how often the draft says what the model says. */
  readonly agreement: number;
  /** What drafting could gain over plain decoding, at the best length. */
  readonly gain: number;
}

export interface LayerSearch {
  /** The choice in use: the search begins with it, so that it finds nothing worse. */
  readonly usual: readonly number[];
  /** Of the model, at least 2. */
  readonly layers: number;
  /** How often these layers alone agree with the model. */
  agreement(kept: readonly number[]): Promise<number>;
  /** What a pass over one token through so many layers costs, as a part of one through all. */
  cost(count: number): number;
  /** Asked before every trial but the first. */
  goOn(tried: number, best: LayerChoice): boolean;
  /** 0 to below 1. */
  random(): number;
}

/** Leaving out fewer is plain decoding with detours. */
const LEAST_SKIPPED = 1 / 4;
const MOST_SKIPPED = 0.6;
const RANDOM_STARTS = 12;
/** So many trials without success end the search. */
const PATIENCE = 120;
const LONGEST_DRAFT = 8;

/**
 * Which layers to leave out, as SWIFT (Xia et al. 2024) searches for them: from the default, early exits and random
 * choices the best one, then one layer more, less or another, as long as that gains. The search is by what drafting would
 * gain, so a layer must be worth its time.
 */
export async function searchLayers(search: LayerSearch): Promise<{ best: LayerChoice; tried: number }> {
  const { layers, random } = search;
  const all = Array.from({ length: layers }, (_, i) => i);
  const least = Math.max(1, Math.floor(LEAST_SKIPPED * layers));
  const below = (n: number) => Math.floor(random() * n);
  const seen = new Set<string>();
  let best: LayerChoice | undefined;
  let failures = 0;
  let over = false;

  const attempt = async (kept: readonly number[]): Promise<void> => {
    failures++;
    const key = kept.join();
    if (seen.has(key) || !areDraftLayers(kept, layers) || layers - kept.length < least) return;
    over = best !== undefined && !search.goOn(seen.size, best);
    if (over) return;
    seen.add(key);
    const agreement = await search.agreement(kept);
    const gain = draftGain(agreement, search.cost(kept.length));
    if (best !== undefined && gain <= best.gain) return;
    best = { kept, agreement, gain };
    failures = 0;
  };

  const starts = [
    search.usual,
    defaultDraftLayers(layers),
    all.slice(0, Math.floor(layers / 2)),
    all.slice(0, -least),
  ];
  for (let i = 0; i < RANDOM_STARTS; i++) {
    const share = LEAST_SKIPPED + random() * (MOST_SKIPPED - LEAST_SKIPPED);
    const skipped = new Set<number>();
    while (skipped.size < Math.min(layers - 1, Math.ceil(share * layers))) skipped.add(below(layers));
    starts.push(all.filter((layer) => !skipped.has(layer)));
  }
  for (const kept of starts) if (!over) await attempt(kept);
  failures = 0;
  while (!over && failures < PATIENCE) {
    const kept = new Set(best!.kept);
    const flip = (layer: number) => kept.delete(layer) || kept.add(layer);
    flip(below(layers));
    if (random() < 0.5) flip(below(layers));
    await attempt(all.filter((layer) => kept.has(layer)));
  }
  return { best: best!, tried: seen.size };
}

/**
 * Tokens for the cost of a pass when each drafted token is right with this chance, given that those before it are, and
 * costs this part of a pass; at the best length from 1. The verifying pass is taken to cost what one over a token does.
 */
export function draftGain(agreement: number, cost: number): number {
  let best = 0;
  let reach = 1;
  let tokens = 1;
  for (let n = 1; n <= LONGEST_DRAFT; n++) {
    reach *= agreement;
    tokens += reach;
    best = Math.max(best, tokens / (1 + n * cost));
  }
  return best;
}
