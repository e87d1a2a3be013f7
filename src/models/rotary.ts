// Rotary position embeddings (Su et al., "RoFormer"), and the ways in which files stretch them to longer contexts.
import { OutriderError } from "../errors.js";
import type { ProgramBuilder, Tensor } from "../runtime/program.js";
import type { Metadata } from "./metadata.js";

export interface RotaryConfig {
  /** Numbers of a head that are rotated, from its first on. */
  readonly dims: number;
  readonly base: number;
  /** Positions are divided by this (linear scaling, Chen et al., "Extending Context Window of Large Language Models"). */
  readonly positionScale: number;
  /** Slow pairs are scaled, fast ones are not (Peng et al., "YaRN"). */
  readonly yarn?: YarnConfig | undefined;
  /** Of cosines and sines. */
  readonly magnitude: number;
}

interface YarnConfig {
  readonly originalContext: number;
  /** Turns within the original context above which a pair is fast, and below which it is slow. */
  readonly fastTurns: number;
  readonly slowTurns: number;
}

export function readRotary(m: Metadata, headDim: number): RotaryConfig {
  const dims = m.integer("rope.dimension_count", 2, headDim, headDim);
  if (dims % 2 !== 0) throw m.error("rope.dimension_count", `is ${dims}, expected an even number`);
  const base = m.number("rope.freq_base", 1, 1e12, 10000);
  const attentionFactor = m.number("rope.scaling.attn_factor", 0, 1e3, 1) || 1;
  // A file that gives a factor and no type means linear; 0 stands for none.
  const factor = m.number("rope.scaling.factor", 0, 1e6, m.number("rope.scale_linear", 0, 1e6, 0)) || 1;
  const type = m.choice("rope.scaling.type", ["none", "linear", "yarn", "longrope"], "linear");
  if (type === "yarn") {
    const yarn = {
      originalContext: m.integer(
        "rope.scaling.original_context_length",
        1,
        2 ** 26,
        m.integer("context_length", 1, 2 ** 26),
      ),
      fastTurns: m.number("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32),
      slowTurns: m.number("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1),
    };
    const magnitude = attentionFactor * (1 + 0.1 * Math.log(factor));
    return { dims, base, positionScale: factor, yarn, magnitude };
  }
  return { dims, base, positionScale: type === "linear" ? factor : 1, magnitude: attentionFactor };
}

/** The same rotation as it was before the context was stretched. */
export function unscaled({ dims, base }: RotaryConfig): RotaryConfig {
  return { dims, base, positionScale: 1, magnitude: 1 };
}

/** Angles of each row's position. `factors` [dims / 2] of a file that brings them divide the frequencies. */
export function rotaryAngles(b: ProgramBuilder, config: RotaryConfig, factors?: Float32Array): Tensor {
  return b.rotary(frequencies(config, factors), config.magnitude);
}

/** Radians a position; the core refuses more. */
const mostFrequency = 1e6;

/** base^(-2i / dims), stretched as the configuration says. [dims / 2] */
export function frequencies(config: RotaryConfig, factors?: Float32Array): Float32Array {
  return Float32Array.from({ length: config.dims / 2 }, (_, i) => {
    const plain = config.base ** ((-2 * i) / config.dims) / (factors?.[i] ?? 1);
    const stretched = plain / config.positionScale;
    const fast = config.yarn ? fastShare(config, config.yarn, i) : 0;
    const frequency = stretched * (1 - fast) + plain * fast;
    if (frequency >= 0 && frequency <= mostFrequency) return frequency;
    throw new OutriderError(
      "ERR_MODEL_FORMAT",
      `the rotary frequency ${i} is ${frequency}, expected 0 to ${mostFrequency}` +
        (factors ? `; the file divides it by ${factors[i]} (rope_freqs.weight)` : ""),
    );
  });
}

/** How much of pair i's frequency stays as it is: 1 for fast pairs, 0 for slow ones. */
function fastShare({ dims, base }: RotaryConfig, yarn: YarnConfig, i: number): number {
  const pairWithTurns = (turns: number) =>
    (dims * Math.log(yarn.originalContext / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const low = Math.max(0, Math.floor(pairWithTurns(yarn.fastTurns)));
  const high = Math.min(dims - 1, Math.ceil(pairWithTurns(yarn.slowTurns)));
  return 1 - Math.min(1, Math.max(0, (i - low) / Math.max(0.001, high - low)));
}
