// GPT-2: learned positions, LayerNorm, biases everywhere, GELU.
// Radford et al., "Language Models are Unsupervised Multitask Learners".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  embedding,
  feedForward,
  layerNorm,
  logits,
  preNorm,
  readDecoder,
  residualLayers,
} from "./decoder.js";

export const gpt2: Architecture<DecoderConfig> = {
  name: "gpt2",

  config: (m) => readDecoder(m, "layer"),

  program(b, c, w) {
    const positions = w.matrix("position_embd.weight", c.context, c.width);
    const parts = preNorm(b, c, layerNorm, {
      attend: (h, layer, i) => attention(b, c, layer, i, h, { fused: true, bias: "all" }),
      feed: (f, layer) => feedForward(b, c, layer, f),
    });
    const x = residualLayers(b, c, w, b.add(embedding(b, c, w), b.embedPositions(positions)), parts);
    return logits(b, c, w, layerNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
