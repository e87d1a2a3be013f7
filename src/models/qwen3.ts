// Qwen3: llama's blocks with each head of q and k normalised before it is rotated, a head size of its own, and rotated
// pairs that are the halves of a head. Yang et al., "Qwen3 Technical Report".
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

interface Qwen3Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
}

export const qwen3: Architecture<Qwen3Config> = {
  name: "qwen3",

  config(m) {
    const decoder = readDecoder(m);
    return { ...decoder, rotary: readRotary(m, decoder.headDim) };
  },

  program(b, c, w) {
    const rotary = rotaryAngles(b, c.rotary);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) => attention(b, c, layer, i, h, { rotary, pairs: "halves", qkNorm: "head" }),
      feed: (f, layer) => gatedFeedForward(b, c, layer, f),
    });
    const x = residualLayers(b, c, w, embedding(b, c, w), parts);
    return logits(b, c, w, rmsNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
