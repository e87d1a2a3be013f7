// The llama family: SmolLM2, Llama 2 and 3, Mistral. Pre-norm transformer blocks with grouped-query attention, rotary
// positions (pairs interleaved, as llama.cpp's conversion lays them out) and a gated SiLU feed-forward part.
// Touvron et al., "LLaMA: Open and Efficient Foundation Language Models".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  embedding,
  gatedFeedForward,
  logits,
  readDecoder,
  rmsNorm,
} from "./decoder.js";
import { frequencies, type RotaryConfig, readRotary } from "./rotary.js";

interface LlamaConfig extends DecoderConfig {
  readonly rotary: RotaryConfig;
}

export const llama: Architecture<LlamaConfig> = {
  name: "llama",

  config(m) {
    if (m.integer("expert_count", 0, 2 ** 20, 0) > 0)
      throw m.error(
        "expert_count",
        "is not 0: mixtures of experts are not supported yet",
        "ERR_MODEL_UNSUPPORTED",
      );
    const decoder = readDecoder(m);
    return { ...decoder, rotary: readRotary(m, decoder.headDim) };
  },

  program(b, c, w) {
    const factors = w.optionalVector("rope_freqs.weight", c.rotary.dims / 2);
    const rotary = b.rotary(frequencies(c.rotary, factors));
    let x = embedding(b, c, w);
    for (let i = 0; i < c.layers; i++) {
      const layer = w.layer(i);
      const h = rmsNorm(b, c, layer, "attn_norm", x);
      x = b.add(x, attention(b, c, layer, i, h, { rotary, pairs: "interleaved", bias: "optional" }));
      const f = rmsNorm(b, c, layer, "ffn_norm", x);
      x = b.add(x, gatedFeedForward(b, c, layer, f));
    }
    return logits(b, c, w, rmsNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
