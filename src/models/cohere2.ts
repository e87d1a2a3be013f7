// Command R7B and Command A: attention and feed-forward part side by side behind one LayerNorm without biases. Three of
// four layers have a window and rotate; the fourth sees all and knows no positions. The logits have a factor.
// Cohere, "Command A: An Enterprise-Ready Large Language Model".
import type { Tensor } from "../runtime/program.js";
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  embedding,
  gatedFeedForward,
  isLocal,
  layerNorm,
  logits,
  readDecoder,
  readWindow,
  residualLayers,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles } from "./rotary.js";

interface Cohere2Config extends DecoderConfig {
  readonly rotary: RotaryConfig;
  /** Positions that a row of a rotated layer sees, 0: all. */
  readonly window: number;
  /** Layers from one that sees all to the next. */
  readonly period: number;
  readonly logitScale: number;
}

export const cohere2: Architecture<Cohere2Config> = {
  name: "cohere2",

  config(m) {
    const decoder = readDecoder(m, "layer");
    return {
      ...decoder,
      rotary: readRotary(m, decoder.headDim),
      window: readWindow(m),
      period: m.integer("attention.sliding_window_pattern", 1, 1024, 4),
      // 0 stands for none.
      logitScale: m.number("logit_scale", 0, 1e6) || 1,
    };
  },

  program(b, c, w) {
    const factors = w.optionalVector("rope_freqs.weight", c.rotary.dims / 2);
    const rotary = rotaryAngles(b, c.rotary, factors);
    /** [layers] what both parts of a layer are given. */
    const normed: Tensor[] = [];
    const x = residualLayers(b, c, w, embedding(b, c, w), {
      attend: (x, layer, i) => {
        const local = isLocal(i, c.period);
        const h = layerNorm(b, c, layer, "attn_norm", x, "none");
        normed[i] = h;
        return attention(b, c, layer, i, h, {
          rotary: local ? rotary : undefined,
          pairs: "interleaved",
          bias: "optional",
          window: local ? c.window : 0,
        });
      },
      feed: (_, layer, i) => gatedFeedForward(b, c, layer, normed[i]!),
    });
    const last = layerNorm(b, c, w, "output_norm", b.selectOutputs(x), "none");
    return logits(b, c, w, last, { scale: c.logitScale });
  },
};
