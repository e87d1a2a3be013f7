// SmolLM3: llama's blocks, but every fourth layer does not rotate its queries and keys and so knows no positions.
// Bakouch et al., "SmolLM3: smol, multilingual, long-context reasoner"; Yang et al., "Rope to Nope and Back Again".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  embedding,
  gatedFeedForward,
  isLocal,
  logits,
  preNorm,
  readDecoder,
  residualLayers,
  rmsNorm,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles } from "./rotary.js";

interface SmolLm3Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
}

/** Layers from one without positions to the next; no key of the file says so. */
const period = 4;

export const smollm3: Architecture<SmolLm3Config> = {
  name: "smollm3",

  config(m) {
    const decoder = readDecoder(m);
    return { ...decoder, rotary: readRotary(m, decoder.headDim) };
  },

  program(b, c, w) {
    const rotary = rotaryAngles(b, c.rotary);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) => {
        const angles = isLocal(i, period) ? rotary : undefined;
        return attention(b, c, layer, i, h, { rotary: angles, pairs: "interleaved", bias: "optional" });
      },
      feed: (f, layer) => gatedFeedForward(b, c, layer, f),
    });
    const x = residualLayers(b, c, w, embedding(b, c, w), parts);
    return logits(b, c, w, rmsNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
