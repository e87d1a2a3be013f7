// Qwen2 and Qwen2.5: llama's blocks with biases on q, k and v, and rotated pairs that are the halves of a head.
// Yang et al., "Qwen2 Technical Report".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  embedding,
  gatedFeedForward,
  logits,
  preNorm,
  readDecoder,
  residualLayers,
  rmsNorm,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles } from "./rotary.js";

interface Qwen2Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
}

export const qwen2: Architecture<Qwen2Config> = {
  name: "qwen2",

  config(m) {
    const decoder = readDecoder(m);
    return { ...decoder, rotary: readRotary(m, decoder.headDim) };
  },

  program(b, c, w) {
    const rotary = rotaryAngles(b, c.rotary);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) => attention(b, c, layer, i, h, { rotary, pairs: "halves", bias: "qkv" }),
      feed: (f, layer) => gatedFeedForward(b, c, layer, f),
    });
    const x = residualLayers(b, c, w, embedding(b, c, w), parts);
    return logits(b, c, w, rmsNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
