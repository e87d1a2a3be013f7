// The llama family: SmolLM2, Llama 2 and 3, Mistral. Pre-norm transformer blocks with grouped-query attention, rotary
// positions (pairs interleaved, as llama.cpp's conversion lays them out) and a gated SiLU feed-forward part.
// Touvron et al., "LLaMA: Open and Efficient Foundation Language Models".
import { OutriderError } from "../errors.js";
import type { Architecture, ModelConfig, TensorSpec } from "./architecture.js";
import type { Metadata } from "./metadata.js";

interface LlamaConfig extends ModelConfig {
  readonly heads: number;
  readonly feedForward: number;
  readonly epsilon: number;
  readonly rotaryDims: number;
  readonly rotaryBase: number;
  /** Positions are divided by this (linear scaling). */
  readonly positionScale: number;
}

export const llama: Architecture<LlamaConfig> = {
  name: "llama",

  config(m: Metadata): LlamaConfig {
    const width = m.integer("embedding_length", 1, 2 ** 20);
    const heads = m.integer("attention.head_count", 1, 4096);
    const numKvHeads = m.integer("attention.head_count_kv", 1, 4096, heads);
    const headDim = m.integer("attention.key_length", 1, 4096, width / heads);
    if (heads % numKvHeads !== 0)
      throw m.error(
        "attention.head_count",
        `is ${heads}, expected a multiple of head_count_kv ${numKvHeads}`,
      );
    if (m.integer("attention.value_length", 1, 4096, headDim) !== headDim)
      throw m.error("attention.value_length", "differs from the key length", "ERR_MODEL_UNSUPPORTED");
    if (m.integer("expert_count", 0, 2 ** 20, 0) > 0)
      throw m.error(
        "expert_count",
        "is not 0: mixtures of experts are not supported yet",
        "ERR_MODEL_UNSUPPORTED",
      );
    const scaling = m.text("rope.scaling.type", "none");
    if (scaling !== "none" && scaling !== "linear")
      throw m.error(
        "rope.scaling.type",
        `is ${JSON.stringify(scaling.slice(0, 40))}; supported: none, linear`,
        "ERR_MODEL_UNSUPPORTED",
      );
    const rotaryDims = m.integer("rope.dimension_count", 2, headDim, headDim);
    if (rotaryDims % 2 !== 0)
      throw m.error("rope.dimension_count", `is ${rotaryDims}, expected an even number`);
    return {
      vocab: m.integer("vocab_size", 1, 2 ** 20, m.arrayLength("tokenizer.ggml.tokens")),
      context: m.integer("context_length", 1, 2 ** 26),
      width,
      layers: m.integer("block_count", 1, 1024),
      heads,
      numKvHeads,
      headDim,
      feedForward: m.integer("feed_forward_length", 1, 2 ** 22),
      epsilon: m.number("attention.layer_norm_rms_epsilon", 0, 1),
      rotaryDims,
      rotaryBase: m.number("rope.freq_base", 1, 1e12, 10000),
      positionScale: scaling === "linear" ? m.number("rope.scaling.factor", 1e-3, 1e6) : 1,
    };
  },

  tensors(c) {
    const [q, kv] = [c.heads * c.headDim, c.numKvHeads * c.headDim];
    const layers = Array.from({ length: c.layers }, (_, i): TensorSpec[] => [
      { name: `blk.${i}.attn_norm.weight`, shape: [c.width] },
      { name: `blk.${i}.attn_q.weight`, shape: [q, c.width] },
      { name: `blk.${i}.attn_k.weight`, shape: [kv, c.width] },
      { name: `blk.${i}.attn_v.weight`, shape: [kv, c.width] },
      { name: `blk.${i}.attn_output.weight`, shape: [c.width, q] },
      { name: `blk.${i}.ffn_norm.weight`, shape: [c.width] },
      { name: `blk.${i}.ffn_gate.weight`, shape: [c.feedForward, c.width] },
      { name: `blk.${i}.ffn_up.weight`, shape: [c.feedForward, c.width] },
      { name: `blk.${i}.ffn_down.weight`, shape: [c.width, c.feedForward] },
    ]);
    return [
      { name: "token_embd.weight", shape: [c.vocab, c.width] },
      ...layers.flat(),
      { name: "output_norm.weight", shape: [c.width] },
      { name: "output.weight", shape: [c.vocab, c.width], optional: true },
      { name: "rope_freqs.weight", shape: [c.rotaryDims / 2], optional: true },
    ];
  },

  program(b, c, w) {
    const rotary = b.rotary(frequencies(c, w.optionalVector("rope_freqs.weight")));
    const rope = (x: Parameters<typeof b.rope>[0], heads: number) =>
      b.rope(x, rotary, heads, c.headDim, true);
    let x = b.embed(w.matrix("token_embd.weight"));
    for (let i = 0; i < c.layers; i++) {
      const h = b.rmsNorm(x, w.vector(`blk.${i}.attn_norm.weight`), c.epsilon);
      const q = b.matmul(h, w.matrix(`blk.${i}.attn_q.weight`));
      const k = b.matmul(h, w.matrix(`blk.${i}.attn_k.weight`));
      const v = b.matmul(h, w.matrix(`blk.${i}.attn_v.weight`));
      const qRotated = rope(q, c.heads);
      b.store(rope(k, c.numKvHeads), v, i);
      const attended = b.attend(qRotated, i, c.heads, 1 / Math.sqrt(c.headDim));
      x = b.add(x, b.matmul(attended, w.matrix(`blk.${i}.attn_output.weight`)));

      const f = b.rmsNorm(x, w.vector(`blk.${i}.ffn_norm.weight`), c.epsilon);
      const gated = b.gatedSilu(f, w.matrix(`blk.${i}.ffn_gate.weight`), w.matrix(`blk.${i}.ffn_up.weight`));
      x = b.add(x, b.matmul(gated, w.matrix(`blk.${i}.ffn_down.weight`)));
    }
    const last = b.rmsNorm(b.selectOutputs(x), w.vector("output_norm.weight"), c.epsilon);
    return { logits: b.matmul(last, w.optionalMatrix("output.weight") ?? w.matrix("token_embd.weight")) };
  },
};

/** Radians a position; the core refuses more. */
const mostFrequency = 1e6;

/** base^(-2i / dims), divided by the file's factors (Llama 3) and the linear scale. [dims / 2] */
function frequencies(c: LlamaConfig, factors: Float32Array | undefined): Float32Array {
  return Float32Array.from({ length: c.rotaryDims / 2 }, (_, i) => {
    const factor = (factors?.[i] ?? 1) * c.positionScale;
    const frequency = c.rotaryBase ** ((-2 * i) / c.rotaryDims) / factor;
    if (frequency >= 0 && frequency <= mostFrequency) return frequency;
    throw new OutriderError(
      "ERR_MODEL_FORMAT",
      `rope_freqs.weight[${i}] is ${factors?.[i]}, which gives the rotary frequency ${frequency}, expected 0 to ${mostFrequency}`,
    );
  });
}
