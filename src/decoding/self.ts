import type { DraftRun } from "../engine/draft-layers.js";
import type { Sequence } from "../engine/sequence.js";
import { draftModel } from "./draft-model.js";
import { type Drafter, EMPTY_DRAFT } from "./drafter.js";

/**
 * The model writes ahead of itself: with layers left out (Draft & Verify, Zhang et al. 2023; early exit is the case of
 * the first k layers), or with attentions that do not wait for each other (EasySpec, Wu et al. 2025); with the target's
 * sampling and noise. Its passes read the exact keys and values of the layers that they run from the text's own place in
 * the cache, and write theirs behind them, where the verifying pass rewrites every cell before anybody else reads it.
 */
export function selfDraft(name: string, run: DraftRun): Drafter {
  let sequence: Sequence | undefined;
  let writer: Drafter | undefined;
  return {
    name,
    async reset(prompt, text) {
      const own = text.sequence;
      sequence = own;
      writer = own && draftModel(own, (tokens, options) => own.step(tokens, { ...options, draft: run }));
      await writer?.reset(prompt, text);
    },
    accept(tokens) {
      writer?.accept(tokens);
    },
    async propose(limit, price) {
      if (!sequence || !writer) return EMPTY_DRAFT;
      const { length } = sequence.tokens;
      try {
        return await writer.propose(limit, price);
      } finally {
        sequence.truncate(length);
      }
    },
    [Symbol.dispose]() {},
  };
}
