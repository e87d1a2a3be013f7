import type { Sequence, StepOptions } from "../engine/sequence.js";
import { OutriderError, quote } from "../errors.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { Calibration } from "./calibration.js";
import { type Draft, type Drafter, EMPTY_DRAFT } from "./drafter.js";
import { warped } from "./warp.js";

/**
 * Lets a smaller model draft: speculative decoding (Leviathan et al. 2023) with the target's own sampling, so that at
 * a temperature both models draw with the same noise (Gumbel coupling, Daliri et al. 2024) and agree wherever their
 * distributions nearly do. The sequence becomes the drafter's to dispose of. Its vocabulary must be the target's:
 * `vocabularyMismatch`. Where the text outgrows the sequence's context, or its cache is full, nothing is drafted.
 *
 * `step`: how a pass over the sequence is made.
 */
export function draftModel(
  sequence: Sequence,
  step: Sequence["step"] = (tokens, options) => sequence.step(tokens, options),
): Drafter {
  const calibration = new Calibration(PRIOR, PRIOR_STRENGTH);
  const text: number[] = [];
  let drafted: number[] = [];
  let kinds: number[] = [];
  let options: StepOptions | undefined;
  let round = 0;

  /** Makes the cache hold all of the text but its last tokens, which one step may take. */
  async function catchUp(signal: AbortSignal | undefined): Promise<void> {
    let shared = 0;
    const most = Math.min(sequence.tokens.length, text.length - 1);
    while (shared < most && sequence.tokens[shared] === text[shared]) shared++;
    if (shared < sequence.tokens.length) sequence.truncate(shared);
    const behind = text.length - shared;
    if (behind > sequence.maxStep) await sequence.prefill(text.slice(shared, -1), signal);
  }

  return {
    name: "draft-model",
    async reset(prompt, { sampling, proposals = false, signal }) {
      text.length = 0;
      for (const token of prompt) text.push(token);
      drafted = [];
      options = { sampling, logits: proposals && sampling.temperature > 0, signal };
      round = 0;
      if (text.length < sequence.context) await catchUp(signal).catch(unlessFull);
    },
    accept(tokens) {
      calibration.observeChain(drafted, kinds, tokens);
      drafted = [];
      for (const token of tokens) text.push(token);
    },
    async propose(limit, price): Promise<Draft> {
      if (options === undefined || text.length + limit > sequence.context) return EMPTY_DRAFT;
      const tokens: number[] = [];
      const probabilities: number[] = [];
      const proposals: Float64Array[] = [];
      // Rejection asks for draws that are independent of all earlier ones, and of the target's.
      const { sampling } = options;
      const draws = options.logits
        ? { ...sampling, seed: (sampling.seed + 0x9e3779b1 * ++round) % 2 ** 53 }
        : sampling;
      drafted = tokens;
      kinds = [];
      let reach = 1;
      try {
        await catchUp(options.signal);
        let pass = text.slice(sequence.tokens.length);
        while (tokens.length < limit) {
          const { picks, logprobs, logits } = await step(pass, { ...options, sampling: draws });
          sequence.keep(pass.map((_, row) => row));
          const row = options.logits && logits?.subarray(logits.length - logits.length / picks.length);
          const proposal = row ? warped(row, draws, [...text, ...tokens]) : undefined;
          // Rejection is right for drafts that end where the text says, not the drawn token: dropping unlikely draws
          // would leave a draft that was not drawn from its proposal.
          const kind = kindOf(proposal ? largest(proposal) : Math.exp(logprobs.at(-1)!));
          const probability = calibration.estimate(kind);
          const token = picks.at(-1)!;
          tokens.push(token);
          kinds.push(kind);
          probabilities.push(probability);
          if (proposal) proposals.push(proposal);
          // This one is paid for; the next would be reached as often at most.
          reach *= probability;
          if (reach < price(tokens.length + 1)) break;
          pass = [token];
        }
      } catch (error) {
        unlessFull(error);
      }
      return { tokens, probabilities, ...(proposals.length > 0 ? { proposals } : undefined) };
    },
    [Symbol.dispose]() {
      sequence[Symbol.dispose]();
    },
  };
}

/** Texts share the draft model's cache, and it may hold fewer of them than the target's: no reason for a text to fail. */
function unlessFull(error: unknown): void {
  if (!(error instanceof OutriderError && error.code === "ERR_CONTEXT")) throw error;
}

const KINDS = 10;

/** By the probability that the draft model gave its token, in tenths; by its best token's where that must not count. */
function kindOf(probability: number): number {
  return Math.min(KINDS - 1, Math.max(0, Math.floor(KINDS * probability) || 0));
}

function largest(p: Float64Array): number {
  return p.reduce((a, b) => Math.max(a, b), 0);
}

/** A model agrees with another about as often as it is sure; not measured. */
const PRIOR = Array.from({ length: KINDS }, (_, kind) => (kind + 0.5) / KINDS);
const PRIOR_STRENGTH = 8;

const LISTED = 5;

/**
 * Why a draft model cannot draft for a target: a sentence without its end, e.g. "token 7 is …"; undefined when it
 * can. Lists the first differing tokens.
 */
export function vocabularyMismatch(target: VocabularyView, draft: VocabularyView): string | undefined {
  const differences: string[] = [];
  const size = Math.max(target.vocabSize, draft.vocabSize);
  // Compared raw: quoted text is shortened, and building it for a whole vocabulary would take a second.
  for (let id = 0; id < size && differences.length < LISTED; id++) {
    if (sameToken(target, draft, id)) continue;
    const ours = describe(target, id);
    const theirs = describe(draft, id);
    differences.push(`token ${id} is ${ours} in the target and ${theirs} in the draft`);
  }
  for (const key of ["bosId", "eosId"] as const) {
    if (target[key] === draft[key]) continue;
    differences.push(
      `${key} is ${target[key] ?? "unset"} in the target and ${draft[key] ?? "unset"} in the draft`,
    );
  }
  if (target.vocabSize !== draft.vocabSize) {
    differences.unshift(`the target has ${target.vocabSize} tokens and the draft ${draft.vocabSize}`);
  }
  return differences.length === 0 ? undefined : differences.join("; ");
}

/** What two models must share. */
export type VocabularyView = Pick<Tokenizer, "vocabSize" | "text" | "isControl" | "bosId" | "eosId">;

function sameToken(a: VocabularyView, b: VocabularyView, id: number): boolean {
  if (id >= a.vocabSize || id >= b.vocabSize) return false;
  return a.text(id) === b.text(id) && a.isControl(id) === b.isControl(id);
}

function describe(vocabulary: VocabularyView, id: number): string {
  if (id >= vocabulary.vocabSize) return "missing";
  return `${quote(vocabulary.text(id))}${vocabulary.isControl(id) ? " (control)" : ""}`;
}
