import type { LayerGroups } from "../models/architecture.js";

/** How the model runs as its own drafter: with fewer layers, or with all of them, the attentions of some in parallel. */
export type DraftRun = "fewer" | "parallel";

/** The layers of a model that was not tuned, as its own drafter: every other one of the second half is left out. */
export function defaultDraftLayers(layers: number): readonly number[] {
  const middle = Math.floor(layers / 2);
  const skipped = (i: number) => i > 0 && i >= middle && i < layers - 1 && (i - middle) % 2 === 0;
  return Array.from({ length: layers }, (_, i) => i).filter((i) => !skipped(i));
}

/** Whether these are indices of some of a model's layers, in order. */
export function areDraftLayers(kept: unknown, layers: number): kept is readonly number[] {
  return (
    Array.isArray(kept) &&
    kept.length > 0 &&
    kept.every((i, n) => Number.isInteger(i) && i >= 0 && i < layers && (n === 0 || i > kept[n - 1]))
  );
}

/** All layers of a model, those behind the first quarter two at a time: the first say too much to the others for that. */
export function parallelLayers(layers: number): LayerGroups {
  const groups = Array.from({ length: Math.ceil(layers / 4) }, (_, i) => [i]);
  for (let i = groups.length; i < layers; i += 2) groups.push(i + 1 < layers ? [i, i + 1] : [i]);
  return groups;
}
