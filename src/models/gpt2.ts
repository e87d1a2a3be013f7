// GPT-2: learned positions, LayerNorm, biases everywhere, GELU.
// Radford et al., "Language Models are Unsupervised Multitask Learners".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  embedding,
  feedForward,
  layerNorm,
  layersOf,
  logits,
  readDecoder,
} from "./decoder.js";

export const gpt2: Architecture<DecoderConfig> = {
  name: "gpt2",

  config: (m) => readDecoder(m, "layer"),

  program(b, c, w) {
    const positions = w.matrix("position_embd.weight", c.context, c.width);
    let x = b.add(embedding(b, c, w), b.embedPositions(positions));
    for (const i of layersOf(c)) {
      const layer = w.layer(i);
      const h = layerNorm(b, c, layer, "attn_norm", x);
      x = b.add(x, attention(b, c, layer, i, h, { fused: true, bias: "all" }));
      const f = layerNorm(b, c, layer, "ffn_norm", x);
      x = b.add(x, feedForward(b, c, layer, f));
    }
    return logits(b, c, w, layerNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
