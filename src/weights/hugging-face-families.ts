/**
 * The kinds of models that the Hugging Face libraries write, and how they become GGUF's: keys of config.json, names of
 * tensors, and what happens to a tensor on the way. The same as llama.cpp's convert_hf_to_gguf.py does.
 */
import type { MetadataValue } from "./gguf-metadata.js";
import type { Config } from "./hugging-face-config.js";
import type { JsonObject } from "./json-file.js";

/** What happens to a tensor's numbers. */
export type Change =
  /** Rows of a head from (first half, second half) to pairs, as rotary positions of GGUF's llama want them. */
  | "interleave q"
  | "interleave k"
  /** A matrix that is stored [inputs, outputs]. */
  | "transpose"
  /** A norm whose weight is stored less one. */
  | "add one";

/** A tensor's name in GGUF, without `.weight` or `.bias`. `{i}` stands for the layer, `{e}` for the expert. */
export type Target = string | readonly [name: string, change: Change];

export interface Family {
  /** `model_type` in config.json. */
  readonly modelTypes: readonly string[];
  /** `general.architecture` in GGUF. */
  readonly architecture: string;
  /** Of config.json, where it leaves something out. */
  readonly defaults: JsonObject;
  /** GGUF's keys under the architecture's name, and the keys of config.json that hold the same number. */
  readonly keys: Readonly<Record<string, string>>;
  readonly activations: readonly string[];
  /** GGUF's keys that are not a number of config.json as it is; refuses what cannot be expressed. */
  metadata(config: Config): Readonly<Record<string, MetadataValue | undefined>>;
  /** By the name without `model.`, `transformer.` and the like, and without `.weight` or `.bias`. */
  readonly tensors: Readonly<Record<string, Target>>;
  /** Tensors that are computed anew. */
  readonly ignored?: readonly RegExp[];
  /** Tensors that config.json holds as lists of numbers. */
  extraTensors?(config: Config): Readonly<Record<string, Float32Array>>;
}

const decoderKeys = {
  context_length: "max_position_embeddings",
  embedding_length: "hidden_size",
  block_count: "num_hidden_layers",
  feed_forward_length: "intermediate_size",
  "attention.head_count": "num_attention_heads",
  "attention.head_count_kv": "num_key_value_heads",
  "attention.key_length": "head_dim",
  "attention.value_length": "head_dim",
  "attention.layer_norm_rms_epsilon": "rms_norm_eps",
  vocab_size: "vocab_size",
} as const;

const attention = {
  "layers.{i}.self_attn.q_proj": "blk.{i}.attn_q",
  "layers.{i}.self_attn.k_proj": "blk.{i}.attn_k",
  "layers.{i}.self_attn.v_proj": "blk.{i}.attn_v",
  "layers.{i}.self_attn.o_proj": "blk.{i}.attn_output",
} as const;

const interleavedAttention = {
  ...attention,
  "layers.{i}.self_attn.q_proj": ["blk.{i}.attn_q", "interleave q"],
  "layers.{i}.self_attn.k_proj": ["blk.{i}.attn_k", "interleave k"],
} as const;

const headNorms = {
  "layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
  "layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
} as const;

const gatedFeedForward = {
  "layers.{i}.mlp.gate_proj": "blk.{i}.ffn_gate",
  "layers.{i}.mlp.up_proj": "blk.{i}.ffn_up",
  "layers.{i}.mlp.down_proj": "blk.{i}.ffn_down",
} as const;

const ends = { embed_tokens: "token_embd", norm: "output_norm", lm_head: "output" } as const;

const preNorms = {
  "layers.{i}.input_layernorm": "blk.{i}.attn_norm",
  "layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm",
} as const;

const llamaTensors = { ...ends, ...preNorms, ...interleavedAttention, ...gatedFeedForward };

const llama: Family = {
  modelTypes: ["llama"],
  architecture: "llama",
  defaults: { max_position_embeddings: 2048, rms_norm_eps: 1e-6 },
  keys: decoderKeys,
  activations: ["silu"],
  metadata: (c) => ({ ...rotary(c, true), "rope.dimension_count": headDim(c) }),
  tensors: llamaTensors,
  ignored: [/\.rotary_emb\.inv_freq$/],
  extraTensors: llama3Factors,
};

const mistral: Family = {
  ...llama,
  modelTypes: ["mistral"],
  defaults: {
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-6,
    num_key_value_heads: 8,
    sliding_window: 4096,
  },
  keys: { ...decoderKeys, "attention.sliding_window": "sliding_window" },
};

const mixtral: Family = {
  ...llama,
  modelTypes: ["mixtral"],
  defaults: { max_position_embeddings: 131_072, rms_norm_eps: 1e-5, num_key_value_heads: 8, rope_theta: 1e6 },
  keys: {
    ...decoderKeys,
    "attention.sliding_window": "sliding_window",
    expert_count: "num_local_experts",
    expert_used_count: "num_experts_per_tok",
  },
  tensors: {
    ...ends,
    ...preNorms,
    ...interleavedAttention,
    "layers.{i}.block_sparse_moe.gate": "blk.{i}.ffn_gate_inp",
    "layers.{i}.block_sparse_moe.experts.{e}.w1": "blk.{i}.ffn_gate_exps",
    "layers.{i}.block_sparse_moe.experts.{e}.w2": "blk.{i}.ffn_down_exps",
    "layers.{i}.block_sparse_moe.experts.{e}.w3": "blk.{i}.ffn_up_exps",
  },
};

const granite: Family = {
  ...llama,
  modelTypes: ["granite"],
  architecture: "granite",
  keys: {
    ...decoderKeys,
    embedding_scale: "embedding_multiplier",
    residual_scale: "residual_multiplier",
    "attention.scale": "attention_multiplier",
    logit_scale: "logits_scaling",
  },
};

const smollm3: Family = {
  ...llama,
  modelTypes: ["smollm3"],
  architecture: "smollm3",
  defaults: {
    ...{ vocab_size: 128_256, hidden_size: 2048, intermediate_size: 11_008, num_hidden_layers: 36 },
    ...{ num_attention_heads: 16, num_key_value_heads: 4, max_position_embeddings: 32_768 },
    ...{ rms_norm_eps: 1e-6, rope_theta: 2e6, no_rope_layer_interval: 4, tie_word_embeddings: true },
  },
  metadata: (c) => {
    refuseWindow(c);
    const rotated = c.values.no_rope_layers ?? undefined; // in spite of its name: 1 where a layer rotates
    const period = 4; // no key of GGUF says so
    const regular =
      rotated === undefined
        ? c.number("no_rope_layer_interval") === period
        : c.numbers("no_rope_layers").every((one, i) => (one !== 0) === i % period < period - 1);
    if (!regular)
      throw c.error(
        rotated === undefined ? "no_rope_layer_interval" : "no_rope_layers",
        "does not leave out every fourth layer, which is all that is supported",
        "ERR_MODEL_UNSUPPORTED",
      );
    return { ...rotary(c), "rope.dimension_count": headDim(c) };
  },
};

const cohere2: Family = {
  modelTypes: ["cohere2"],
  architecture: "cohere2",
  defaults: {
    ...{ vocab_size: 256_000, hidden_size: 8192, intermediate_size: 22_528, num_hidden_layers: 40 },
    ...{ num_attention_heads: 64, max_position_embeddings: 8192, layer_norm_eps: 1e-5 },
    ...{ logit_scale: 0.0625, sliding_window: 4096, tie_word_embeddings: true },
  },
  keys: {
    ...decoderKeys,
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.sliding_window": "sliding_window",
    logit_scale: "logit_scale",
  },
  activations: ["silu"],
  metadata: (c) => ({
    "rope.scaling.type": "none",
    ...rotary(c, true),
    "rope.dimension_count": Math.trunc(headDim(c) * (c.number("rotary_pct") ?? 1)),
    "attention.sliding_window_pattern": windowPattern(c),
  }),
  tensors: {
    ...ends,
    ...attention,
    ...gatedFeedForward,
    "layers.{i}.input_layernorm": "blk.{i}.attn_norm",
  },
  extraTensors: llama3Factors,
};

const qwen2: Family = {
  modelTypes: ["qwen2"],
  architecture: "qwen2",
  defaults: { max_position_embeddings: 32_768, rms_norm_eps: 1e-6, num_key_value_heads: 32 },
  keys: decoderKeys,
  activations: ["silu"],
  metadata: (c) => {
    refuseWindow(c);
    return rotary(c);
  },
  tensors: { ...ends, ...preNorms, ...attention, ...gatedFeedForward },
  ignored: [/\.rotary_emb\.inv_freq$/],
};

const qwen3: Family = {
  ...qwen2,
  modelTypes: ["qwen3"],
  architecture: "qwen3",
  defaults: { ...qwen2.defaults, head_dim: 128 },
  tensors: { ...qwen2.tensors, ...headNorms },
};

const qwen3moe: Family = {
  ...qwen3,
  modelTypes: ["qwen3_moe"],
  architecture: "qwen3moe",
  defaults: {
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-6,
    num_key_value_heads: 4,
    decoder_sparse_step: 1,
  },
  keys: {
    ...decoderKeys,
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "moe_intermediate_size",
  },
  metadata: (c) => {
    if (!c.boolean("norm_topk_prob"))
      throw c.error("norm_topk_prob", "is false, which is not supported", "ERR_MODEL_UNSUPPORTED");
    const dense = c.values.mlp_only_layers;
    if (c.number("decoder_sparse_step") !== 1 || (Array.isArray(dense) && dense.length > 0))
      throw c.error(
        "mlp_only_layers",
        "names layers without experts, which is not supported",
        "ERR_MODEL_UNSUPPORTED",
      );
    return qwen2.metadata(c);
  },
  tensors: {
    ...ends,
    ...preNorms,
    ...attention,
    ...headNorms,
    "layers.{i}.mlp.gate": "blk.{i}.ffn_gate_inp",
    "layers.{i}.mlp.experts.{e}.gate_proj": "blk.{i}.ffn_gate_exps",
    "layers.{i}.mlp.experts.{e}.up_proj": "blk.{i}.ffn_up_exps",
    "layers.{i}.mlp.experts.{e}.down_proj": "blk.{i}.ffn_down_exps",
  },
};

const gemma2: Family = {
  modelTypes: ["gemma2"],
  architecture: "gemma2",
  defaults: {
    ...{ max_position_embeddings: 8192, rms_norm_eps: 1e-6, num_key_value_heads: 4, head_dim: 256 },
    ...{ sliding_window: 4096, query_pre_attn_scalar: 256 },
    ...{ attn_logit_softcapping: 50, final_logit_softcapping: 30, tie_word_embeddings: true },
  },
  keys: {
    ...decoderKeys,
    "attention.sliding_window": "sliding_window",
    attn_logit_softcapping: "attn_logit_softcapping",
    final_logit_softcapping: "final_logit_softcapping",
  },
  activations: ["gelu_pytorch_tanh"],
  metadata: (c) => {
    checkGemmaScale(c, 46);
    return { ...rotary(c), "attention.sliding_window_pattern": windowPattern(c) };
  },
  tensors: {
    ...attention,
    ...gatedFeedForward,
    embed_tokens: "token_embd",
    lm_head: "output",
    norm: ["output_norm", "add one"],
    "layers.{i}.input_layernorm": ["blk.{i}.attn_norm", "add one"],
    "layers.{i}.post_attention_layernorm": ["blk.{i}.post_attention_norm", "add one"],
    "layers.{i}.pre_feedforward_layernorm": ["blk.{i}.ffn_norm", "add one"],
    "layers.{i}.post_feedforward_layernorm": ["blk.{i}.post_ffw_norm", "add one"],
  },
};

const gemma3: Family = {
  ...gemma2,
  modelTypes: ["gemma3_text", "gemma3"],
  architecture: "gemma3",
  defaults: {
    ...{ vocab_size: 262_208, hidden_size: 2304, intermediate_size: 9216, num_hidden_layers: 26 },
    ...{ num_attention_heads: 8, num_key_value_heads: 4, head_dim: 256, max_position_embeddings: 131_072 },
    ...{ rms_norm_eps: 1e-6, rope_theta: 1e6, sliding_window: 4096, query_pre_attn_scalar: 256 },
    tie_word_embeddings: true,
  },
  keys: { ...decoderKeys, "attention.sliding_window": "sliding_window" },
  metadata: (c) => {
    for (const key of ["attn_logit_softcapping", "final_logit_softcapping"])
      if (c.number(key) !== undefined)
        throw c.error(key, "is set, which is not supported", "ERR_MODEL_UNSUPPORTED");
    const local = c.object("rope_parameters")?.object("sliding_attention");
    const base = local?.number("rope_theta") ?? c.number("rope_local_base_freq");
    checkGemmaScale(c, 62);
    return {
      ...rotary(c),
      "attention.sliding_window_pattern": windowPattern(c),
      "rope.freq_base_swa": base,
    };
  },
  tensors: {
    ...gemma2.tensors,
    "layers.{i}.self_attn.q_norm": ["blk.{i}.attn_q_norm", "add one"],
    "layers.{i}.self_attn.k_norm": ["blk.{i}.attn_k_norm", "add one"],
  },
  // The part that sees.
  ignored: [/(^|\.)vision_tower\./, /(^|\.)multi_modal_projector\./],
};

const phi3: Family = {
  modelTypes: ["phi3"],
  architecture: "phi3",
  defaults: { max_position_embeddings: 4096, rms_norm_eps: 1e-5, original_max_position_embeddings: 4096 },
  keys: { ...decoderKeys, "attention.sliding_window": "sliding_window" },
  activations: ["silu"],
  metadata: phi3Metadata,
  tensors: {
    ...ends,
    ...preNorms,
    "layers.{i}.self_attn.qkv_proj": "blk.{i}.attn_qkv",
    "layers.{i}.self_attn.o_proj": "blk.{i}.attn_output",
    "layers.{i}.mlp.gate_up_proj": "blk.{i}.ffn_up",
    "layers.{i}.mlp.down_proj": "blk.{i}.ffn_down",
  },
  ignored: [/\.rotary_emb\.inv_freq$/],
  extraTensors: longRopeFactors,
};

const olmo2: Family = {
  modelTypes: ["olmo2"],
  architecture: "olmo2",
  defaults: { max_position_embeddings: 2048, rms_norm_eps: 1e-5 },
  keys: decoderKeys,
  activations: ["silu"],
  metadata: rotary,
  tensors: {
    ...ends,
    ...attention,
    ...headNorms,
    ...gatedFeedForward,
    "layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    "layers.{i}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
  },
};

const starcoder2: Family = {
  modelTypes: ["starcoder2"],
  architecture: "starcoder2",
  defaults: {
    max_position_embeddings: 4096,
    norm_epsilon: 1e-5,
    num_key_value_heads: 2,
    tie_word_embeddings: true,
  },
  keys: {
    ...decoderKeys,
    "attention.layer_norm_epsilon": "norm_epsilon",
    "attention.sliding_window": "sliding_window",
  },
  activations: ["gelu_pytorch_tanh"],
  metadata: rotary,
  tensors: {
    ...ends,
    ...preNorms,
    ...attention,
    "layers.{i}.mlp.c_fc": "blk.{i}.ffn_up",
    "layers.{i}.mlp.c_proj": "blk.{i}.ffn_down",
  },
};

const gpt2: Family = {
  modelTypes: ["gpt2"],
  architecture: "gpt2",
  defaults: { n_positions: 1024, layer_norm_epsilon: 1e-5, tie_word_embeddings: true },
  keys: {
    context_length: "n_positions",
    embedding_length: "n_embd",
    block_count: "n_layer",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
    vocab_size: "vocab_size",
  },
  activations: ["gelu_new"],
  metadata: (c) => {
    for (const [key, expected] of [
      ["scale_attn_weights", true],
      ["scale_attn_by_inverse_layer_idx", false],
    ] as const)
      if ((c.values[key] ?? expected) !== expected)
        throw c.error(key, `is ${!expected}, which is not supported`, "ERR_MODEL_UNSUPPORTED");
    return { feed_forward_length: c.number("n_inner") ?? 4 * c.required("n_embd") };
  },
  tensors: {
    wte: "token_embd",
    wpe: "position_embd",
    ln_f: "output_norm",
    lm_head: "output",
    "h.{i}.ln_1": "blk.{i}.attn_norm",
    "h.{i}.ln_2": "blk.{i}.ffn_norm",
    "h.{i}.attn.c_attn": ["blk.{i}.attn_qkv", "transpose"],
    "h.{i}.attn.c_proj": ["blk.{i}.attn_output", "transpose"],
    "h.{i}.mlp.c_fc": ["blk.{i}.ffn_up", "transpose"],
    "h.{i}.mlp.c_proj": ["blk.{i}.ffn_down", "transpose"],
  },
  // The causal mask, kept as a tensor.
  ignored: [/\.attn\.(masked_)?bias$/],
};

export const families: readonly Family[] = [
  ...[llama, mistral, mixtral, granite, qwen2, qwen3, qwen3moe, gemma2, gemma3],
  ...[phi3, olmo2, starcoder2, gpt2, smollm3, cohere2],
];

function refuseWindow(c: Config): void {
  if (c.boolean("use_sliding_window"))
    throw c.error("use_sliding_window", "is true, which is not supported", "ERR_MODEL_UNSUPPORTED");
}

/** The scale of scores is not in GGUF's metadata: that of a head, and in the largest model that of the width. */
function checkGemmaScale(c: Config, largestLayers: number): void {
  const found = c.required("query_pre_attn_scalar");
  const largest = c.required("num_hidden_layers") === largestLayers;
  const expected = largest ? c.required("hidden_size") / c.required("num_attention_heads") : headDim(c);
  if (found !== expected)
    throw c.error("query_pre_attn_scalar", `is ${found}, expected ${expected}`, "ERR_MODEL_UNSUPPORTED");
}

/** Layers from one that sees all to the next. */
function windowPattern(c: Config): number | undefined {
  const types = c.values.layer_types;
  if (!Array.isArray(types)) return c.number("sliding_window_pattern");
  const period = types.indexOf("full_attention") + 1 || types.length + 1;
  const regular = types.every((type, i) => (type === "full_attention") === (i % period === period - 1));
  if (regular) return period;
  throw c.error("layer_types", "has layers with windows in no regular order", "ERR_MODEL_UNSUPPORTED");
}

function headDim(c: Config): number {
  return c.number("head_dim") ?? c.required("hidden_size") / c.required("num_attention_heads");
}

/** Where the settings of rotary positions are: `rope_parameters` since version 5 of the library. */
function ropeSettings(c: Config): { base: number | undefined; scaling: Config | undefined } {
  const parameters = c.object("rope_parameters");
  const own = parameters?.object("full_attention") ?? parameters;
  const scaling = own ?? c.object("rope_scaling");
  return { base: own?.number("rope_theta") ?? c.number("rope_theta"), scaling };
}

const scalingType = (scaling: Config | undefined) =>
  scaling?.text("rope_type") ?? scaling?.text("type") ?? "default";

/** `factors`: the model takes those of Llama 3, which are a tensor. */
function rotary(c: Config, factors = false): Record<string, MetadataValue | undefined> {
  const { base, scaling } = ropeSettings(c);
  const keys = { "rope.freq_base": base ?? 10_000 };
  const type = scalingType(scaling);
  if (type === "default" || (factors && type === "llama3")) return keys;
  if (type === "linear")
    return { ...keys, "rope.scaling.type": "linear", "rope.scaling.factor": scaling!.required("factor") };
  if (type === "yarn" && scaling!.number("attention_factor") === undefined)
    return {
      ...keys,
      "rope.scaling.type": "yarn",
      "rope.scaling.factor": scaling!.required("factor"),
      "rope.scaling.original_context_length": scaling!.number("original_max_position_embeddings"),
      "rope.scaling.yarn_beta_fast": scaling!.number("beta_fast"),
      "rope.scaling.yarn_beta_slow": scaling!.number("beta_slow"),
    };
  throw scaling!.error(
    "rope_type",
    `is ${JSON.stringify(type.slice(0, 40))}; supported: default, linear, ${factors ? "llama3, " : ""}yarn`,
    "ERR_MODEL_UNSUPPORTED",
  );
}

/** Long wavelengths are divided by `factor`, short ones are left, between them it is smooth (Llama 3.1). */
function llama3Factors(c: Config): Record<string, Float32Array> {
  const { base = 10_000, scaling } = ropeSettings(c);
  if (scaling === undefined || scalingType(scaling) !== "llama3") return {};
  const [factor, low, high] = [
    scaling.required("factor"),
    scaling.required("low_freq_factor"),
    scaling.required("high_freq_factor"),
  ];
  const original = scaling.required("original_max_position_embeddings");
  const dims = headDim(c);
  const factors = Float32Array.from({ length: Math.floor(dims / 2) }, (_, i) => {
    const wavelength = (2 * Math.PI) / base ** ((-2 * i) / dims);
    if (wavelength < original / high) return 1;
    if (wavelength > original / low) return factor;
    const smooth = (original / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
  return { "rope_freqs.weight": factors };
}

const isLongRope = (scaling: Config | undefined) => ["longrope", "su"].includes(scalingType(scaling));

function phi3Metadata(c: Config): Record<string, MetadataValue | undefined> {
  const { base, scaling } = ropeSettings(c);
  const partial = c.number("partial_rotary_factor") ?? scaling?.number("partial_rotary_factor") ?? 1;
  const dims = { "rope.dimension_count": Math.round(headDim(c) * partial) };
  if (!isLongRope(scaling)) return { ...rotary(c), ...dims };
  const original =
    scaling!.number("original_max_position_embeddings") ?? c.required("original_max_position_embeddings");
  const stretch = c.required("max_position_embeddings") / original;
  const factor = stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(original));
  return {
    ...dims,
    "rope.freq_base": base ?? 10_000,
    "rope.scaling.original_context_length": original,
    "rope.scaling.attn_factor": scaling!.number("attention_factor") ?? factor,
  };
}

function longRopeFactors(c: Config): Record<string, Float32Array> {
  const { scaling } = ropeSettings(c);
  if (!isLongRope(scaling)) return {};
  return {
    "rope_factors_long.weight": Float32Array.from(scaling!.numbers("long_factor")),
    "rope_factors_short.weight": Float32Array.from(scaling!.numbers("short_factor")),
  };
}
