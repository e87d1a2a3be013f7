// Gemma 2: norms before and after each part, scores and logits soft-capped, every other layer with a window, GELU.
// Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size".
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
  readWindow,
  residualLayers,
  rmsNorm,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles } from "./rotary.js";

interface Gemma2Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
  readonly window: number;
  /** Layers from one without a window to the next. */
  readonly period: number;
  readonly attentionScale: number;
  readonly attentionCap: number | undefined;
  readonly logitCap: number | undefined;
}

export const gemma2: Architecture<Gemma2Config> = {
  name: "gemma2",

  config(m) {
    const decoder = readDecoder(m);
    const { width, heads, headDim, layers } = decoder;
    const large = layers === 46; // 27B: the query is scaled by what a head would have of the width
    return {
      ...decoder,
      rotary: readRotary(m, headDim),
      window: readWindow(m, 4096),
      period: m.integer("attention.sliding_window_pattern", 1, 1024, 2),
      attentionScale: 1 / Math.sqrt(large ? width / heads : headDim),
      attentionCap: m.number("attn_logit_softcapping", 0, 1e6, 50) || undefined,
      logitCap: m.number("final_logit_softcapping", 0, 1e6, 30) || undefined,
    };
  },

  program(b, c, w) {
    const rotary = rotaryAngles(b, c.rotary);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) => {
        const attended = attention(b, c, layer, i, h, {
          rotary,
          pairs: "halves",
          scale: c.attentionScale,
          window: isLocal(i, c.period) ? c.window : 0,
          softCap: c.attentionCap,
        });
        return rmsNorm(b, c, layer, "post_attention_norm", attended);
      },
      feed: (f, layer) => {
        const fed = gatedFeedForward(b, c, layer, f, { activation: "gelu" });
        return rmsNorm(b, c, layer, "post_ffw_norm", fed);
      },
    });
    const x = residualLayers(b, c, w, embedding(b, c, w, Math.sqrt(c.width)), parts);
    const last = rmsNorm(b, c, w, "output_norm", b.selectOutputs(x));
    return logits(b, c, w, last, { softCap: c.logitCap });
  },
};
