// Gemma 3: five layers with a window and a rotary base of their own, then one that sees all; q and k normalised by
// head, norms before and after each part, GELU. Gemma Team, "Gemma 3 Technical Report".
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
import { type RotaryConfig, readRotary, rotaryAngles, unscaled } from "./rotary.js";

interface Gemma3Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
  readonly localRotary: RotaryConfig;
  readonly window: number;
  /** Layers from one without a window to the next. */
  readonly period: number;
  readonly attentionScale: number;
  readonly logitCap: number | undefined;
}

export const gemma3: Architecture<Gemma3Config> = {
  name: "gemma3",

  config(m) {
    const decoder = readDecoder(m);
    const { width, heads, headDim, layers } = decoder;
    const rotary = readRotary(m, headDim);
    const window = readWindow(m);
    const large = layers === 62; // 27B: the query is scaled by what a head would have of the width
    return {
      ...decoder,
      rotary,
      localRotary: { ...unscaled(rotary), base: m.number("rope.freq_base_swa", 1, 1e12, 10000) },
      window,
      period: window === 0 ? 1 : m.integer("attention.sliding_window_pattern", 1, 1024, 6),
      attentionScale: 1 / Math.sqrt(large ? width / heads : headDim),
      logitCap: m.number("final_logit_softcapping", 0, 1e6, 0) || undefined,
    };
  },

  program(b, c, w) {
    const global = rotaryAngles(b, c.rotary);
    const local = rotaryAngles(b, c.localRotary);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) => {
        const windowed = isLocal(i, c.period);
        const attended = attention(b, c, layer, i, h, {
          rotary: windowed ? local : global,
          pairs: "halves",
          qkNorm: "head",
          scale: c.attentionScale,
          window: windowed ? c.window : 0,
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
