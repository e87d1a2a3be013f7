// OLMo 2 and 3: no norms before the parts, one after each; q and k normalised as whole rows. OLMo 3 gives three of four
// layers a window, and stretches the context of the others only. OLMo Team, "2 OLMo 2 Furious".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  embedding,
  gatedFeedForward,
  isLocal,
  logits,
  readDecoder,
  readWindow,
  residualLayers,
  rmsNorm,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles, unscaled } from "./rotary.js";

interface Olmo2Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
  readonly window: number;
  /** Layers from one without a window to the next. */
  readonly period: number;
}

export const olmo2: Architecture<Olmo2Config> = {
  name: "olmo2",

  config(m) {
    const decoder = readDecoder(m);
    const window = readWindow(m);
    return {
      ...decoder,
      rotary: readRotary(m, decoder.headDim),
      window,
      period: window === 0 ? 1 : m.integer("attention.sliding_window_pattern", 1, 1024, 4),
    };
  },

  program(b, c, w) {
    const global = rotaryAngles(b, c.rotary);
    const local = c.period === 1 ? global : rotaryAngles(b, unscaled(c.rotary));
    const x = residualLayers(b, c, w, embedding(b, c, w), {
      attend: (x, layer, i) => {
        const windowed = isLocal(i, c.period);
        const attended = attention(b, c, layer, i, x, {
          rotary: windowed ? local : global,
          pairs: "halves",
          qkNorm: "row",
          window: windowed ? c.window : 0,
        });
        return rmsNorm(b, c, layer, "post_attention_norm", attended);
      },
      feed: (x, layer) => rmsNorm(b, c, layer, "post_ffw_norm", gatedFeedForward(b, c, layer, x)),
    });
    return logits(b, c, w, rmsNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
