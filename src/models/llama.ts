// The llama family: SmolLM2, Llama 2 and 3, Mistral, Mixtral. Pre-norm transformer blocks with grouped-query attention, rotary
// positions (pairs interleaved, as llama.cpp's conversion lays them out) and a gated SiLU feed-forward part.
// Touvron et al., "LLaMA: Open and Efficient Foundation Language Models"; Jiang et al., "Mistral 7B" (the window)
// and "Mixtral of Experts".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  type ExpertConfig,
  embedding,
  expertFeedForward,
  gatedFeedForward,
  logits,
  preNorm,
  readDecoder,
  readExperts,
  readWindow,
  residualLayers,
  rmsNorm,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles } from "./rotary.js";

interface LlamaConfig extends DecoderConfig {
  readonly rotary: RotaryConfig;
  /** Positions that a row sees, 0: all. */
  readonly window: number;
  readonly experts: ExpertConfig | undefined;
}

export const llama: Architecture<LlamaConfig> = {
  name: "llama",

  config(m) {
    const decoder = readDecoder(m);
    return {
      ...decoder,
      rotary: readRotary(m, decoder.headDim),
      window: readWindow(m),
      experts: readExperts(m, () => decoder.feedForward),
    };
  },

  program(b, c, w) {
    const factors = w.optionalVector("rope_freqs.weight", c.rotary.dims / 2);
    const rotary = rotaryAngles(b, c.rotary, factors);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) => {
        const options = { rotary, pairs: "interleaved", bias: "optional", window: c.window } as const;
        return attention(b, c, layer, i, h, options);
      },
      feed: (f, layer) =>
        c.experts ? expertFeedForward(b, c, layer, f, c.experts) : gatedFeedForward(b, c, layer, f),
    });
    const x = residualLayers(b, c, w, embedding(b, c, w), parts);
    return logits(b, c, w, rmsNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
