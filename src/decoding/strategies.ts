import type { Sequence } from "../engine/sequence.js";
import type { Siblings } from "./consensus.js";
import type { CostModel } from "./cost-model.js";
import { draftModel } from "./draft-model.js";
import { type Drafter, noDrafter } from "./drafter.js";
import { guideGuesser } from "./guide.js";
import { jacobi } from "./jacobi.js";
import { lookahead } from "./lookahead.js";
import { matches } from "./matches.js";
import { DraftMemory } from "./memory.js";
import { mixed } from "./mixture.js";
import { ngrams } from "./ngrams.js";
import { adaptiveLength, fixedLength, type Planner } from "./plan.js";
import type { Predictor } from "./predictor.js";
import { recycled } from "./recycled.js";
import { selfDraft } from "./self.js";

/** What a strategy may draw on. */
export interface StrategyContext {
  /** The loaded model's pass costs, shared by all its texts. */
  readonly costs: CostModel;
  /** What drafting learned from the loaded model's earlier texts; default: nothing. */
  readonly memory?: DraftMemory | undefined;
  /** The other samples of the same prompt, where there are some. */
  readonly siblings?: Siblings | undefined;
  /** The text will be guided; default false. */
  readonly guided?: boolean;
  /** Draft exactly so many tokens, 1 or more; default: as many as pay. */
  readonly draftLength?: number | undefined;
  /** Opens a sequence of the draft model; called by strategies whose `needs` says so. */
  readonly draftSequence?: (() => Sequence) | undefined;
}

interface StrategyEntry {
  /** One line for a reader who chooses. */
  readonly summary: string;
  /** Where the method is described. */
  readonly source: string;
  readonly needs: "nothing" | "draft model";
  /** Draft so many tokens, for methods that learn from all their rows or not at all; default: as many as pay. */
  readonly draftLength?: number;
  /** A draft costs microseconds; default false. */
  readonly isLight?: boolean | undefined;
  readonly drafter: (context: StrategyContext) => Drafter;
}

const JACOBI_BLOCK = 5;

/** All ways to decode; none changes the output. The keys are the values of the option `strategy`. */
export const strategies = {
  none: {
    summary: "One token at a time.",
    source: "plain decoding",
    needs: "nothing",
    drafter: () => noDrafter(),
  },
  lookup: {
    summary: "Repeats what followed the same words before, in the prompt or the answer.",
    source: "Prompt lookup decoding (Saxena 2023); SAM decoding (Hu et al. 2024), arXiv:2411.10666",
    needs: "nothing",
    isLight: true,
    drafter: (context) => mix("lookup", context, () => [matches(MOST_NODES)]),
  },
  ngram: {
    summary: "Says what most often followed the last one to four tokens in the model's earlier texts.",
    source: "n-gram models with backing off (Katz 1987); REST (He et al. 2023), arXiv:2311.08252",
    needs: "nothing",
    isLight: true,
    drafter: (context) => mix("ngram", context, (m) => [ngrams(m.ngrams)]),
  },
  recycle: {
    summary:
      "Repeats what the model wanted to say behind the same tokens, in rejected drafts too; runners-up are tried.",
    source: "Token recycling (Luo et al. 2024), arXiv:2408.08696",
    needs: "nothing",
    isLight: true,
    drafter: (context) => mix("recycle", context, (m) => [recycled(m.recycled, RUNNERS_UP)]),
  },
  lookahead: {
    summary: "Refines guesses in a window by Jacobi steps, and verifies the n-grams that come out of it.",
    source: "Lookahead decoding (Fu et al. 2024), arXiv:2402.02057",
    needs: "nothing",
    draftLength: 16,
    drafter: () => lookahead({ window: 2, ngram: 3, candidates: 2 }),
  },
  jacobi: {
    summary: "Guesses the next tokens all at once, again and again, until guess and answer agree.",
    source: "Jacobi decoding (Santilli et al. 2023), arXiv:2305.10427; Song et al. 2021, arXiv:2002.03629",
    needs: "nothing",
    draftLength: JACOBI_BLOCK - 1,
    drafter: () => jacobi("jacobi", JACOBI_BLOCK),
  },
  "gauss-seidel": {
    summary: "The same in blocks: the next block begins when the last one stands still.",
    source: "Gauss-Seidel-Jacobi decoding (Santilli et al. 2023), arXiv:2305.10427",
    needs: "nothing",
    draftLength: JACOBI_BLOCK - 1,
    drafter: () => jacobi("gauss-seidel", JACOBI_BLOCK),
  },
  hybrid: {
    summary: "The same up to the length of the prompt, then one token at a time.",
    source: "Hybrid Gauss-Seidel-Jacobi decoding (Santilli et al. 2023), arXiv:2305.10427",
    needs: "nothing",
    draftLength: JACOBI_BLOCK - 1,
    drafter: () => jacobi("hybrid", JACOBI_BLOCK),
  },
  self: {
    summary: "The model with layers left out writes ahead; outrider tune finds which.",
    source: "Draft & Verify (Zhang et al. 2023), arXiv:2309.08168; SWIFT (Xia et al. 2024), arXiv:2410.06916",
    needs: "nothing",
    drafter: () => selfDraft("self", "fewer"),
  },
  "layer-parallel": {
    summary: "The model writes ahead, with pairs of layers whose attentions do not wait for each other.",
    source: "EasySpec (Wu et al. 2025), arXiv:2502.02493",
    needs: "nothing",
    drafter: () => selfDraft("layer-parallel", "parallel"),
  },
  "draft-model": {
    summary: "A smaller model of the same vocabulary writes ahead.",
    source:
      "Fast Inference from Transformers via Speculative Decoding (Leviathan et al. 2023), arXiv:2211.17192",
    needs: "draft model",
    drafter: ({ draftSequence }) => {
      if (draftSequence === undefined) throw new TypeError('strategy "draft-model" without a draft sequence');
      return draftModel(draftSequence());
    },
  },
  auto: {
    summary:
      "The default: a tree of the likeliest guesses of lookup, ngram and recycle together, as far as it pays.",
    source: "docs/methods.md",
    needs: "nothing",
    isLight: true,
    drafter: ({ siblings, ...context }) =>
      mix(siblings ? "auto, consensus" : "auto", context, (m) => [
        matches(MOST_NODES),
        ngrams(m.ngrams),
        recycled(m.recycled, 0),
        ...(siblings ? [siblings.predictor()] : []),
      ]),
  },
} as const satisfies Record<string, StrategyEntry>;

function mix(
  name: string,
  { memory = new DraftMemory(), guided = false }: Pick<StrategyContext, "memory" | "guided">,
  predictors: (memory: DraftMemory) => Predictor[],
): Drafter {
  const list = predictors(memory);
  const guide = guided ? guideGuesser(MOST_NODES, memory.guides) : undefined;
  return mixed(name, list, memory.mixture(name, list), guide);
}

const MOST_NODES = 65;
const RUNNERS_UP = 3;

export type Strategy = keyof typeof strategies;

export const strategyNames = Object.keys(strategies) as Strategy[];

/** A drafter and a planner for one text, with the state they keep. */
export interface OpenStrategy extends Disposable {
  readonly drafter: Drafter;
  readonly planner: Planner;
}

export function openStrategy(name: Strategy, context: StrategyContext): OpenStrategy {
  const entry: StrategyEntry = strategies[name];
  const drafter = entry.drafter(context);
  const { costs, draftLength = entry.draftLength } = context;
  const planner =
    name === "none"
      ? fixedLength(0)
      : draftLength === undefined
        ? adaptiveLength(costs, { isLight: entry.isLight, isGuided: context.guided })
        : fixedLength(draftLength);
  return { drafter, planner, [Symbol.dispose]: () => drafter[Symbol.dispose]() };
}
