// Qwen3's mixtures of experts: its attention, and a router that chooses a few of many small feed-forward parts.
// Yang et al., "Qwen3 Technical Report".
import type { Architecture } from "./architecture.js";
import {
  attention,
  type DecoderConfig,
  type ExpertConfig,
  embedding,
  expertFeedForward,
  logits,
  preNorm,
  readDecoder,
  readExperts,
  residualLayers,
  rmsNorm,
} from "./decoder.js";
import { type RotaryConfig, readRotary, rotaryAngles } from "./rotary.js";

interface Qwen3MoeConfig extends DecoderConfig {
  readonly rotary: RotaryConfig;
  readonly experts: ExpertConfig;
}

export const qwen3moe: Architecture<Qwen3MoeConfig> = {
  name: "qwen3moe",

  config(m) {
    const decoder = readDecoder(m);
    const experts = readExperts(m, (used) => decoder.feedForward / used);
    if (!experts) throw m.error("expert_count", "is 0, expected 1 or more");
    return { ...decoder, rotary: readRotary(m, decoder.headDim), experts };
  },

  program(b, c, w) {
    const rotary = rotaryAngles(b, c.rotary);
    const parts = preNorm(b, c, rmsNorm, {
      attend: (h, layer, i) => attention(b, c, layer, i, h, { rotary, pairs: "halves", qkNorm: "head" }),
      feed: (f, layer) => expertFeedForward(b, c, layer, f, c.experts),
    });
    const x = residualLayers(b, c, w, embedding(b, c, w), parts);
    return logits(b, c, w, rmsNorm(b, c, w, "output_norm", b.selectOutputs(x)));
  },
};
