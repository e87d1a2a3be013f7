// StarCoder2: rotary positions, grouped-query attention with a window, LayerNorm, biases everywhere, GELU.
// Lozhkov et al., "StarCoder 2 and The Stack v2".
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
  readWindow,
  residualLayers,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles } from "./rotary.js";

interface Starcoder2Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
  /** Positions that a row sees, 0: all. */
  readonly window: number;
}

export const starcoder2: Architecture<Starcoder2Config> = {
  name: "starcoder2",

  config(m) {
    const decoder = readDecoder(m, "layer");
    return { ...decoder, rotary: readRotary(m, decoder.headDim), window: readWindow(m) };
  },

  program(b, c, w) {
    const rotary = rotaryAngles(b, c.rotary);
    const parts = preNorm(b, c, layerNorm, {
      attend: (h, layer, i) => {
        const options = { rotary, pairs: "halves", bias: "all", window: c.window } as const;
        return attention(b, c, layer, i, h, options);
      },
      feed: (f, layer) => feedForward(b, c, layer, f),
    });
    const x = residualLayers(b, c, w, embedding(b, c, w), parts);
    return logits(b, c, w, layerNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
