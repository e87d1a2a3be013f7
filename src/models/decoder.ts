// What decoder-only transformers have in common: their configuration, and the parts that a layer is made of. Each
// part takes the layer's weights and a value of the program and gives a value; an architecture puts them together.
import type { Activation, Finish, ProgramBuilder, Tensor } from "../runtime/program.js";
import type { ModelConfig, ModelWeights } from "./architecture.js";
import type { Metadata } from "./metadata.js";

export interface DecoderConfig extends ModelConfig {
  readonly heads: number;
  readonly feedForward: number;
  /** Of every norm. */
  readonly epsilon: number;
}

/** The keys that every decoder has. `norm` names its epsilon's key. */
export function readDecoder(m: Metadata, norm: "rms" | "layer" = "rms"): DecoderConfig {
  const width = m.integer("embedding_length", 1, 2 ** 20);
  const heads = m.integer("attention.head_count", 1, 4096);
  const numKvHeads = m.integer("attention.head_count_kv", 1, 4096, heads);
  const headDim = m.integer("attention.key_length", 1, 4096, width / heads);
  if (heads % numKvHeads !== 0)
    throw m.error("attention.head_count", `is ${heads}, expected a multiple of head_count_kv ${numKvHeads}`);
  if (m.integer("attention.value_length", 1, 4096, headDim) !== headDim)
    throw m.error("attention.value_length", "differs from the key length", "ERR_MODEL_UNSUPPORTED");
  const epsilon =
    norm === "rms"
      ? m.number("attention.layer_norm_rms_epsilon", 0, 1)
      : m.number("attention.layer_norm_epsilon", 0, 1);
  return {
    vocab: m.integer("vocab_size", 1, 2 ** 20, m.arrayLength("tokenizer.ggml.tokens")),
    context: m.integer("context_length", 1, 2 ** 26),
    width,
    layers: m.integer("block_count", 1, 1024),
    heads,
    numKvHeads,
    headDim,
    feedForward: m.integer("feed_forward_length", 1, 2 ** 22),
    epsilon,
  };
}

export interface AttentionOptions {
  /** Angles of each row's position; none where positions are learned, and in layers that know none. */
  readonly rotary?: Tensor | undefined;
  /** How the rotated pairs lie: neighbours, as llama.cpp's conversion lays out llama, or the halves of a head. */
  readonly pairs?: "interleaved" | "halves";
  /** Biases of q, k, v and the output: all of them or, of llama's kind, those that the file has. */
  readonly bias?: "qkv" | "all" | "optional";
  /** q and k are normalised before they are rotated: each head, or the whole row. */
  readonly qkNorm?: "head" | "row";
  /** One tensor holds q, k and v. */
  readonly fused?: boolean;
  /** Default: 1 / sqrt(headDim). */
  readonly scale?: number | undefined;
  readonly window?: number | undefined;
  readonly softCap?: number | undefined;
  /** Of the output. */
  readonly outputScale?: number | undefined;
}

/** What the parts of a layer add to a value that they are given. */
export interface ResidualParts {
  readonly attend: (x: Tensor, layer: ModelWeights, i: number) => Tensor;
  readonly feed: (x: Tensor, layer: ModelWeights, i: number) => Tensor;
}

/**
 * x behind all layers. Those of a group (`ModelConfig.layerGroups`) attend to the same, so that no attention waits for
 * another; what follows it goes on one by one.
 */
export function residualLayers(
  b: ProgramBuilder,
  c: ModelConfig,
  w: ModelWeights,
  input: Tensor,
  { attend, feed }: ResidualParts,
): Tensor {
  let x = input;
  for (const group of c.layerGroups ?? Array.from({ length: c.layers }, (_, i) => [i])) {
    const given = x;
    for (const i of group) x = b.add(x, attend(given, w.layer(i), i));
    for (const i of group) x = b.add(x, feed(x, w.layer(i), i));
  }
  return x;
}

/** Parts that are given what they read normalised, attention by `attn_norm`, what follows it by `ffn_norm`. */
export function preNorm(
  b: ProgramBuilder,
  c: DecoderConfig,
  norm: typeof rmsNorm,
  { attend, feed }: ResidualParts,
): ResidualParts {
  return {
    attend: (x, layer, i) => attend(norm(b, c, layer, "attn_norm", x), layer, i),
    feed: (x, layer, i) => feed(norm(b, c, layer, "ffn_norm", x), layer, i),
  };
}

/** How many positions a row sees; undefined or 0 in the file: all. */
export function readWindow(m: Metadata, fallback = 0): number {
  return m.integer("attention.sliding_window", 0, 2 ** 31 - 1, fallback);
}

/** Whether layer i is none of those that see all (or know no positions), the last of every `period` layers. */
export const isLocal = (i: number, period: number) => i % period < period - 1;

/** Grouped-query attention of layer `i` over h: project, rotate, store, attend, project. */
export function attention(
  b: ProgramBuilder,
  c: DecoderConfig,
  w: ModelWeights,
  i: number,
  h: Tensor,
  options: AttentionOptions = {},
): Tensor {
  const { rotary, pairs = "interleaved", qkNorm, scale = 1 / Math.sqrt(c.headDim) } = options;
  const sizes = [c.heads, c.numKvHeads, c.numKvHeads].map((heads) => heads * c.headDim);
  const [q, k, v] = projections(b, c, w, h, sizes, options) as [Tensor, Tensor, Tensor];
  const positioned = (x: Tensor, heads: number, name: string): Tensor => {
    const norm = (length: number) => ({
      weight: w.vector(`${name}.weight`, length),
      epsilon: c.epsilon,
    });
    const row = qkNorm === "row" ? norm(heads * c.headDim) : undefined;
    const normed = row ? b.rmsNorm(x, row.weight, row.epsilon) : x;
    if (!rotary) return normed;
    return b.rope(normed, rotary, {
      heads,
      headDim: c.headDim,
      interleaved: pairs === "interleaved",
      norm: qkNorm === "head" ? norm(c.headDim) : undefined,
    });
  };
  const queries = positioned(q, c.heads, "attn_q_norm");
  b.store(positioned(k, c.numKvHeads, "attn_k_norm"), v, i);
  const { window, softCap, outputScale } = options;
  const attended = b.attend(queries, i, { heads: c.heads, scale, window, softCap });
  const output = w.matrix("attn_output.weight", c.width, c.heads * c.headDim);
  const kinds = { all: "vector", optional: "optionalVector", qkv: undefined, none: undefined } as const;
  const kind = kinds[options.bias ?? "none"];
  return b.matmul(attended, output, {
    bias: kind && w[kind]("attn_output.bias", c.width),
    scale: outputScale,
  });
}

function projections(
  b: ProgramBuilder,
  c: DecoderConfig,
  w: ModelWeights,
  h: Tensor,
  sizes: readonly number[],
  { bias, fused }: AttentionOptions,
): Tensor[] {
  if (fused) {
    const matrices = w.fusedMatrices("attn_qkv.weight", sizes, c.width);
    const biases =
      bias &&
      w.vector(
        "attn_qkv.bias",
        sizes.reduce((sum, n) => sum + n, 0),
      );
    let from = 0;
    return matrices.map((matrix) => {
      const to = from + matrix.rows;
      const part = biases?.subarray(from, to);
      from = to;
      return b.matmul(h, matrix, { bias: part });
    });
  }
  return ["attn_q", "attn_k", "attn_v"].map((name, n) =>
    b.matmul(h, w.matrix(`${name}.weight`, sizes[n]!, c.width), {
      bias:
        bias === "optional"
          ? w.optionalVector(`${name}.bias`, sizes[n]!)
          : bias && w.vector(`${name}.bias`, sizes[n]!),
    }),
  );
}

export interface FeedForwardOptions {
  readonly activation?: Activation;
  /** `ffn_up` holds the gate's rows, then its own. */
  readonly fused?: boolean;
  /** Of the output. */
  readonly outputScale?: number | undefined;
}

/** down(activation(gate(f)) * up(f)) */
export function gatedFeedForward(
  b: ProgramBuilder,
  c: DecoderConfig,
  w: ModelWeights,
  f: Tensor,
  { activation, fused, outputScale }: FeedForwardOptions = {},
): Tensor {
  const [gate, up] = fused
    ? w.fusedMatrices("ffn_up.weight", [c.feedForward, c.feedForward], c.width)
    : ["ffn_gate.weight", "ffn_up.weight"].map((name) => w.matrix(name, c.feedForward, c.width));
  const gated = b.gated(f, gate!, up!, activation);
  return b.matmul(gated, w.matrix("ffn_down.weight", c.width, c.feedForward), { scale: outputScale });
}

export interface ExpertConfig {
  readonly count: number;
  /** How many of them a token uses. */
  readonly used: number;
  /** Inner width of one. */
  readonly feedForward: number;
}

/** The experts of a model that has some; undefined where it has none. `feedForward`: of a file that does not say. */
export function readExperts(m: Metadata, feedForward: (used: number) => number): ExpertConfig | undefined {
  const count = m.integer("expert_count", 0, 65536, 0);
  if (count === 0) return undefined;
  const used = m.integer("expert_used_count", 1, Math.min(count, 1024));
  const width = m.integer("expert_feed_forward_length", 1, 2 ** 22, feedForward(used));
  if (width % 16 !== 0)
    throw m.error(
      "expert_feed_forward_length",
      `is ${width}, expected a multiple of 16`,
      "ERR_MODEL_UNSUPPORTED",
    );
  const embedding = m.integer("embedding_length", 1, 2 ** 20);
  if (embedding % 16 !== 0)
    throw m.error(
      "embedding_length",
      `is ${embedding}, experts need a multiple of 16`,
      "ERR_MODEL_UNSUPPORTED",
    );
  return { count, used, feedForward: width };
}

/** The gated feed-forward parts of the experts that a router chooses, weighed by softmax over the chosen ones. */
export function expertFeedForward(
  b: ProgramBuilder,
  c: DecoderConfig,
  w: ModelWeights,
  f: Tensor,
  { count, used, feedForward }: ExpertConfig,
): Tensor {
  const scores = b.matmul(f, w.matrix("ffn_gate_inp.weight", count, c.width));
  const routes = b.route(scores, { used, gating: "softmax", normalise: true });
  const gate = w.expertMatrices("ffn_gate_exps.weight", count, feedForward, c.width);
  const up = w.expertMatrices("ffn_up_exps.weight", count, feedForward, c.width);
  const down = w.expertMatrices("ffn_down_exps.weight", count, c.width, feedForward);
  const gated = b.gatedExperts(f, routes, gate, up, feedForward);
  return b.sumExperts(b.matmulExperts(gated, routes, down, c.width), routes);
}

/** down(gelu(up(f))), with biases. */
export function feedForward(b: ProgramBuilder, c: DecoderConfig, w: ModelWeights, f: Tensor): Tensor {
  const up = w.matrix("ffn_up.weight", c.feedForward, c.width);
  const inner = b.matmul(f, up, { bias: w.vector("ffn_up.bias", c.feedForward), activation: "gelu" });
  const down = w.matrix("ffn_down.weight", c.width, c.feedForward);
  return b.matmul(inner, down, { bias: w.vector("ffn_down.bias", c.width) });
}

/** The RMSNorm with the weights of that name. */
export function rmsNorm(
  b: ProgramBuilder,
  c: DecoderConfig,
  w: ModelWeights,
  name: string,
  x: Tensor,
): Tensor {
  return b.rmsNorm(x, w.vector(`${name}.weight`, c.width), c.epsilon);
}

/** The LayerNorm with the weights of that name, and with its biases where the architecture has some. */
export function layerNorm(
  b: ProgramBuilder,
  c: DecoderConfig,
  w: ModelWeights,
  name: string,
  x: Tensor,
  bias: "all" | "none" = "all",
): Tensor {
  const weight = w.vector(`${name}.weight`, c.width);
  const shift = bias === "all" ? w.vector(`${name}.bias`, c.width) : new Float32Array(c.width);
  return b.layerNorm(x, weight, shift, c.epsilon);
}

/** Token embeddings, times `scale`. */
export function embedding(b: ProgramBuilder, c: DecoderConfig, w: ModelWeights, scale?: number): Tensor {
  return b.embed(w.matrix("token_embd.weight", c.vocab, c.width), scale);
}

/** Logits of the rows that want them, by the output matrix or, where embeddings are tied, by theirs. */
export function logits(
  b: ProgramBuilder,
  c: DecoderConfig,
  w: ModelWeights,
  last: Tensor,
  finish: Finish = {},
): { logits: Tensor; hidden: Tensor } {
  const output =
    w.optionalMatrix("output.weight", c.vocab, c.width) ?? w.matrix("token_embd.weight", c.vocab, c.width);
  return { logits: b.matmul(last, output, finish), hidden: last };
}
