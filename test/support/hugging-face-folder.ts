/**
 * The golden GGUF models as folders of the Hugging Face libraries: the way back of src/weights/hugging-face-families.ts,
 * written without it.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Description, Tensor } from "./gguf-writer.js";
import { type FloatTensor, writeSafetensors } from "./safetensors-writer.js";

type Values = ReadonlyMap<string, number | string>;

interface HuggingFaceModel {
  readonly config: Record<string, unknown>;
  readonly tensors: readonly FloatTensor[];
}

/** Norms whose weights are stored less one cannot all be told exactly: these are what comes back. */
export function withExactNorms(model: Description): Description {
  if (!architecture(model).startsWith("gemma")) return model;
  return {
    ...model,
    tensors: model.tensors.map((tensor) =>
      tensor.shape.length === 1 ? { ...tensor, data: bytesOf(lessOne(tensor).map((w) => w + 1)) } : tensor,
    ),
  };
}

export function toHuggingFace(model: Description): HuggingFaceModel {
  const values: Values = new Map(
    model.metadata.map(({ key, value }) => [String(key), value as number | string]),
  );
  const arch = architecture(model);
  const layout = layouts[arch]!(values);
  const tensors = model.tensors.flatMap((tensor) => rename(tensor, arch, layout));
  const tied = !model.tensors.some(({ name }) => name === "output.weight");
  return { config: { tie_word_embeddings: tied, ...layout.config }, tensors };
}

/** Writes a folder; the tensors go into so many files, more than one with an index. */
export async function saveHuggingFace(folder: string, model: HuggingFaceModel, files = 1): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), JSON.stringify(model.config));
  if (files === 1) {
    await writeFile(join(folder, "model.safetensors"), writeSafetensors(model.tensors));
    return;
  }
  const weightMap: Record<string, string> = {};
  for (let i = 0; i < files; i++) {
    const part = model.tensors.filter((_, index) => index % files === i);
    const name = `model-${String(i + 1).padStart(5, "0")}-of-${String(files).padStart(5, "0")}.safetensors`;
    for (const tensor of part) weightMap[tensor.name] = name;
    await writeFile(join(folder, name), writeSafetensors(part));
  }
  await writeFile(
    join(folder, "model.safetensors.index.json"),
    JSON.stringify({ metadata: { total_size: 1 }, weight_map: weightMap }),
  );
}

const architecture = (model: Description) =>
  String(model.metadata.find(({ key }) => key === "general.architecture")!.value);

interface Layout {
  readonly config: Record<string, unknown>;
  /** Names of a layer's parts, and of the others; `null` leaves a tensor out. */
  readonly names: Readonly<Record<string, string | null>>;
  readonly prefix?: string;
  /** Heads of q and k, where rows go back from pairs to halves. */
  readonly heads?: Readonly<Record<string, number>>;
}

const llamaNames = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
  attn_norm: "input_layernorm",
  ffn_norm: "post_attention_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
  rope_freqs: null,
};

function decoderConfig(v: Values, modelType: string): Record<string, unknown> {
  const arch = v.get("general.architecture");
  const get = (key: string) => v.get(`${arch}.${key}`);
  return {
    model_type: modelType,
    vocab_size: get("vocab_size"),
    max_position_embeddings: get("context_length"),
    hidden_size: get("embedding_length"),
    num_hidden_layers: get("block_count"),
    intermediate_size: get("feed_forward_length"),
    num_attention_heads: get("attention.head_count"),
    num_key_value_heads: get("attention.head_count_kv") ?? get("attention.head_count"),
    head_dim: get("attention.key_length"),
    rms_norm_eps: get("attention.layer_norm_rms_epsilon"),
    rope_theta: get("rope.freq_base"),
    hidden_act: "silu",
    torch_dtype: "bfloat16",
  };
}

const headsOf = (v: Values) => {
  const arch = v.get("general.architecture");
  const q = Number(v.get(`${arch}.attention.head_count`));
  return { attn_q: q, attn_k: Number(v.get(`${arch}.attention.head_count_kv`) ?? q) };
};

const gemmaNames = {
  ...llamaNames,
  post_attention_norm: "post_attention_layernorm",
  ffn_norm: "pre_feedforward_layernorm",
  post_ffw_norm: "post_feedforward_layernorm",
};

const layouts: Readonly<Record<string, (v: Values) => Layout>> = {
  llama: (v) => {
    if (v.get("llama.expert_count") !== undefined)
      return {
        config: {
          ...decoderConfig(v, "mixtral"),
          num_local_experts: v.get("llama.expert_count"),
          num_experts_per_tok: v.get("llama.expert_used_count"),
          sliding_window: null,
        },
        names: {
          ...llamaNames,
          ffn_gate_inp: "block_sparse_moe.gate",
          ffn_gate_exps: "block_sparse_moe.experts.{e}.w1",
          ffn_down_exps: "block_sparse_moe.experts.{e}.w2",
          ffn_up_exps: "block_sparse_moe.experts.{e}.w3",
        },
        heads: headsOf(v),
      };
    // The only golden of this base is the one with Llama 3's factors.
    const llama3 = v.get("llama.rope.freq_base") === 500_000;
    const scaling = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
    return {
      config: {
        ...decoderConfig(v, "llama"),
        rope_scaling: llama3 ? { ...scaling, original_max_position_embeddings: 64 } : null,
      },
      names: llamaNames,
      heads: headsOf(v),
    };
  },
  granite: (v) => ({
    config: {
      ...decoderConfig(v, "granite"),
      embedding_multiplier: v.get("granite.embedding_scale"),
      residual_multiplier: v.get("granite.residual_scale"),
      attention_multiplier: v.get("granite.attention.scale"),
      logits_scaling: v.get("granite.logit_scale"),
    },
    names: llamaNames,
    heads: headsOf(v),
  }),
  qwen2: (v) => ({
    config: { ...decoderConfig(v, "qwen2"), use_sliding_window: false, sliding_window: 32_768 },
    names: llamaNames,
  }),
  qwen3: (v) => ({ config: decoderConfig(v, "qwen3"), names: llamaNames }),
  qwen3moe: (v) => ({
    config: {
      ...decoderConfig(v, "qwen3_moe"),
      num_experts: v.get("qwen3moe.expert_count"),
      num_experts_per_tok: v.get("qwen3moe.expert_used_count"),
      moe_intermediate_size: v.get("qwen3moe.expert_feed_forward_length"),
      norm_topk_prob: true,
      decoder_sparse_step: 1,
      mlp_only_layers: [],
    },
    names: {
      ...llamaNames,
      ffn_gate_inp: "mlp.gate",
      ffn_gate_exps: "mlp.experts.{e}.gate_proj",
      ffn_up_exps: "mlp.experts.{e}.up_proj",
      ffn_down_exps: "mlp.experts.{e}.down_proj",
    },
  }),
  gemma2: (v) => ({
    config: {
      ...decoderConfig(v, "gemma2"),
      hidden_act: undefined,
      hidden_activation: "gelu_pytorch_tanh",
      sliding_window: v.get("gemma2.attention.sliding_window"),
      query_pre_attn_scalar: v.get("gemma2.attention.key_length"),
      attn_logit_softcapping: v.get("gemma2.attn_logit_softcapping"),
      final_logit_softcapping: v.get("gemma2.final_logit_softcapping"),
    },
    names: gemmaNames,
  }),
  // As the models that also see are laid out.
  gemma3: (v) => ({
    config: {
      model_type: "gemma3",
      text_config: {
        ...decoderConfig(v, "gemma3_text"),
        hidden_act: undefined,
        hidden_activation: "gelu_pytorch_tanh",
        sliding_window: v.get("gemma3.attention.sliding_window"),
        query_pre_attn_scalar: v.get("gemma3.attention.key_length"),
        rope_scaling: v.has("gemma3.rope.scaling.factor") ? { rope_type: "linear", factor: 8 } : null,
      },
    },
    names: gemmaNames,
    prefix: "language_model.",
  }),
  phi3: (v) => {
    const long = v.has("phi3.rope.scaling.attn_factor");
    const scaling = {
      type: "longrope",
      attention_factor: v.get("phi3.rope.scaling.attn_factor"),
      long_factor: [1.5, 2, 3, 4, 6, 8],
      short_factor: [1, 1.125, 1.25, 1.5, 1.75, 2],
    };
    return {
      config: {
        ...decoderConfig(v, "phi3"),
        original_max_position_embeddings: 512,
        partial_rotary_factor: Number(v.get("phi3.rope.dimension_count")) / 16,
        rope_scaling: long ? scaling : null,
      },
      names: {
        ...llamaNames,
        attn_qkv: "self_attn.qkv_proj",
        ffn_up: "mlp.gate_up_proj",
        rope_factors_long: null,
        rope_factors_short: null,
      },
    };
  },
  olmo2: (v) => ({
    config: decoderConfig(v, "olmo2"),
    names: {
      ...llamaNames,
      post_attention_norm: "post_attention_layernorm",
      post_ffw_norm: "post_feedforward_layernorm",
    },
  }),
  smollm3: (v) => ({
    config: {
      ...decoderConfig(v, "smollm3"),
      no_rope_layers: Array.from({ length: Number(v.get("smollm3.block_count")) }, (_, i) =>
        i % 4 === 3 ? 0 : 1,
      ),
      use_sliding_window: false,
    },
    names: llamaNames,
    heads: headsOf(v),
  }),
  cohere2: (v) => ({
    config: {
      ...decoderConfig(v, "cohere2"),
      layer_norm_eps: v.get("cohere2.attention.layer_norm_epsilon"),
      sliding_window: v.get("cohere2.attention.sliding_window"),
      logit_scale: v.get("cohere2.logit_scale"),
    },
    names: llamaNames,
  }),
  starcoder2: (v) => ({
    config: {
      ...decoderConfig(v, "starcoder2"),
      hidden_act: "gelu_pytorch_tanh",
      norm_epsilon: v.get("starcoder2.attention.layer_norm_epsilon"),
    },
    names: { ...llamaNames, ffn_up: "mlp.c_fc", ffn_down: "mlp.c_proj" },
  }),
  gpt2: (v) => ({
    config: {
      model_type: "gpt2",
      vocab_size: v.get("gpt2.vocab_size"),
      n_positions: v.get("gpt2.context_length"),
      n_embd: v.get("gpt2.embedding_length"),
      n_layer: v.get("gpt2.block_count"),
      n_head: v.get("gpt2.attention.head_count"),
      n_inner: v.get("gpt2.feed_forward_length"),
      layer_norm_epsilon: v.get("gpt2.attention.layer_norm_epsilon"),
      activation_function: "gelu_new",
    },
    names: {
      token_embd: "wte",
      position_embd: "wpe",
      output_norm: "ln_f",
      attn_norm: "ln_1",
      ffn_norm: "ln_2",
      attn_qkv: "attn.c_attn",
      attn_output: "attn.c_proj",
      ffn_up: "mlp.c_fc",
      ffn_down: "mlp.c_proj",
    },
  }),
};

function rename(tensor: Tensor, arch: string, layout: Layout): FloatTensor[] {
  const [, layer, part, kind] = /^(?:blk\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(String(tensor.name))!;
  const name = layout.names[part!];
  if (name === null) return [];
  if (name === undefined) throw new Error(`no name for ${String(tensor.name)}`);
  const folder = arch === "gpt2" ? "h" : "model.layers";
  const whole = `${layout.prefix ?? ""}${layer === undefined ? name : `${folder}.${layer}.${name}`}.${kind}`;
  const shape = tensor.shape.toReversed();
  const [dtype, data] = [tensor.type, Buffer.from(tensor.data!)];
  const size = dtype === "F32" ? 4 : 2;
  if (name.includes("{e}")) {
    const [experts, ...rest] = shape as [number, ...number[]];
    const bytes = data.length / experts;
    return Array.from({ length: experts }, (_, e) => ({
      name: whole.replace("{e}", String(e)),
      dtype,
      shape: rest,
      data: data.subarray(e * bytes, (e + 1) * bytes),
    }));
  }
  const heads = layout.heads?.[part!];
  if (heads !== undefined)
    return [{ name: whole, dtype, shape, data: toHalves(data, shape[0]! / heads, shape[1] ?? 1, size) }];
  if (arch.startsWith("gemma") && shape.length === 1)
    return [{ name: whole, dtype, shape, data: bytesOf(lessOne(tensor)) }];
  if (arch === "gpt2" && shape.length === 2 && layer !== undefined)
    return [
      { name: whole, dtype, shape: shape.toReversed(), data: turned(data, shape[0]!, shape[1]!, size) },
    ];
  return [{ name: whole, dtype, shape, data }];
}

/** llama.cpp: reshape(heads, dim / 2, 2, …).swapaxes(1, 2), the inverse of its conversion. */
function toHalves(data: Buffer, headRows: number, columns: number, size: number): Buffer {
  const rowBytes = columns * size;
  const out = Buffer.alloc(data.length);
  for (let row = 0; row < data.length / rowBytes; row++) {
    const inHead = row % headRows;
    const to = row - inHead + Math.floor(inHead / 2) + (inHead % 2) * (headRows / 2);
    data.copy(out, to * rowBytes, row * rowBytes, (row + 1) * rowBytes);
  }
  return out;
}

function turned(data: Buffer, rows: number, columns: number, size: number): Buffer {
  const out = Buffer.alloc(data.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      data.copy(
        out,
        (column * rows + row) * size,
        (row * columns + column) * size,
        (row * columns + column + 1) * size,
      );
  return out;
}

function lessOne(tensor: Tensor): Float32Array {
  const data = new Uint8Array(tensor.data!);
  return new Float32Array(data.buffer).map((w) => w - 1);
}

const bytesOf = (numbers: Float32Array) => Buffer.from(numbers.buffer);
