// Granite 3: llama's blocks with multipliers on the embeddings, the scores, what each part adds, and the logits (which
// are divided by theirs). Granite Team, "Granite 3.0 Language Models"; Yang et al., "Tensor Programs V".
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

interface GraniteConfig extends DecoderConfig {
  /** None where no layer knows positions. */
  readonly rotary: RotaryConfig | undefined;
  readonly embeddingScale: number;
  readonly attentionScale: number;
  readonly residualScale: number;
  readonly logitDivisor: number;
}

export const granite: Architecture<GraniteConfig> = {
  name: "granite",

  config(m) {
    const decoder = readDecoder(m);
    // 0 stands for none.
    const factor = (key: string) => m.number(key, 0, 1e6, 0);
    return {
      ...decoder,
      // llama.cpp took this key, which elsewhere says nothing, for a switch.
      rotary: m.boolean("rope.scaling.finetuned", true) ? readRotary(m, decoder.headDim) : undefined,
      embeddingScale: factor("embedding_scale") || 1,
      attentionScale: factor("attention.scale") || 1 / Math.sqrt(decoder.headDim),
      residualScale: factor("residual_scale") || 1,
      logitDivisor: m.number("logit_scale", 0, 1e6) || 1,
    };
  },

  program(b, c, w) {
    const factors = c.rotary && w.optionalVector("rope_freqs.weight", c.rotary.dims / 2);
    const rotary = c.rotary && rotaryAngles(b, c.rotary, factors);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) =>
        attention(b, c, layer, i, h, {
          rotary,
          pairs: "interleaved",
          bias: "optional",
          scale: c.attentionScale,
          outputScale: c.residualScale,
        }),
      feed: (f, layer) => gatedFeedForward(b, c, layer, f, { outputScale: c.residualScale }),
    });
    const x = residualLayers(b, c, w, embedding(b, c, w, c.embeddingScale), parts);
    const last = rmsNorm(b, c, w, "output_norm", b.selectOutputs(x));
    return logits(b, c, w, last, { scale: 1 / c.logitDivisor });
  },
};
