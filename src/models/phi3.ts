// Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: llama's blocks with q, k and v in one tensor and gate and up in another. Models
// for long contexts bring two sets of rotary factors, one for contexts up to the original length and one beyond.
// Abdin et al., "Phi-3 Technical Report"; Ding et al., "LongRoPE".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  embedding,
  gatedFeedForward,
  logits,
  preNorm,
  readDecoder,
  readWindow,
  residualLayers,
  rmsNorm,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles } from "./rotary.js";

interface Phi3Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
  readonly originalContext: number;
  /** Positions that a row sees, 0: all. */
  readonly window: number;
}

export const phi3: Architecture<Phi3Config> = {
  name: "phi3",

  config(m) {
    const decoder = readDecoder(m);
    return {
      ...decoder,
      rotary: readRotary(m, decoder.headDim),
      originalContext: m.integer("rope.scaling.original_context_length", 1, 2 ** 26, decoder.context),
      window: readWindow(m),
    };
  },

  program(b, c, w) {
    const pairs = c.rotary.dims / 2;
    const long = w.optionalVector("rope_factors_long.weight", pairs);
    const short = w.optionalVector("rope_factors_short.weight", pairs);
    const rotary = rotaryAngles(b, c.rotary, b.maxPosition > c.originalContext ? long : short);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) => {
        const options = { rotary, pairs: "halves", fused: true, window: c.window } as const;
        return attention(b, c, layer, i, h, options);
      },
      feed: (f, layer) => gatedFeedForward(b, c, layer, f, { fused: true }),
    });
    const x = residualLayers(b, c, w, embedding(b, c, w), parts);
    return logits(b, c, w, rmsNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
