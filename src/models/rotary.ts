// Rotary position embeddings (Su et al., "RoFormer"), and the ways in which files stretch them to longer contexts.
import { OutriderError } from "../errors.js";
import type { Metadata } from "./metadata.js";

export interface RotaryConfig {
  /** Numbers of a head that are rotated, from its first on. */
  readonly dims: number;
  readonly base: number;
  /** Positions are divided by this (linear scaling, Chen et al., "Extending context window ..."). */
  readonly positionScale: number;
}

export function readRotary(m: Metadata, headDim: number): RotaryConfig {
  const dims = m.integer("rope.dimension_count", 2, headDim, headDim);
  if (dims % 2 !== 0) throw m.error("rope.dimension_count", `is ${dims}, expected an even number`);
  const scaling = m.text("rope.scaling.type", "none");
  if (scaling !== "none" && scaling !== "linear")
    throw m.error(
      "rope.scaling.type",
      `is ${JSON.stringify(scaling.slice(0, 40))}; supported: none, linear`,
      "ERR_MODEL_UNSUPPORTED",
    );
  return {
    dims,
    base: m.number("rope.freq_base", 1, 1e12, 10000),
    positionScale: scaling === "linear" ? m.number("rope.scaling.factor", 1e-3, 1e6) : 1,
  };
}

/** Radians a position; the core refuses more. */
const mostFrequency = 1e6;

/** base^(-2i / dims), divided by the linear scale and by `factors` of a file that brings them. [dims / 2] */
export function frequencies(
  { dims, base, positionScale }: RotaryConfig,
  factors?: Float32Array,
): Float32Array {
  return Float32Array.from({ length: dims / 2 }, (_, i) => {
    const factor = (factors?.[i] ?? 1) * positionScale;
    const frequency = base ** ((-2 * i) / dims) / factor;
    if (frequency >= 0 && frequency <= mostFrequency) return frequency;
    throw new OutriderError(
      "ERR_MODEL_FORMAT",
      `rope_freqs.weight[${i}] is ${factors?.[i]}, which gives the rotary frequency ${frequency}, expected 0 to ${mostFrequency}`,
    );
  });
}
