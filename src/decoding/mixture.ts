import { Calibration } from "./calibration.js";
import { type Draft, type Drafter, EMPTY_DRAFT, type PassInfo } from "./drafter.js";
import type { GuideGuesser } from "./guide.js";
import { CONTEXT, DraftTree, Guesses, MOST_GUESSES, NO_TOKEN, type Predictor } from "./predictor.js";

/**
 * What several predictors' guesses are worth together, learned while decoding. Every predictor says of every candidate
 * of what kind its guess is, "not among my guesses" being a kind too; how often a kind comes true is counted
 * (`Calibration`). The log-odds of these estimates are added with weights that follow the gradient of the log-loss:
 * logistic mixing (Mattern 2012, as in the PAQ compressors), online gradient descent on a convex loss, so that the
 * regret against the best fixed weights grows with the square root of the number of guesses (Zinkevich 2003). All
 * candidates count, drafted or not: the text tells afterwards which of them was right.
 *
 * One for a loaded model and a set of predictors.
 */
export class Mixture {
  readonly inputs: number;
  readonly #calibrations: Calibration[];
  /** [predictor][kind] the log-odds of a kind's estimate. */
  readonly #odds: Float64Array[];
  /** [gates × (predictors + 1)] the last of each row weighs a constant 1. */
  readonly #weights: Float64Array;

  constructor(predictors: readonly Predictor[]) {
    this.inputs = predictors.length;
    this.#calibrations = predictors.map((p) => new Calibration(p.priors, p.strength));
    this.#odds = predictors.map((p) => p.priors.map(logOdds));
    const row = [...predictors.map(() => FIRST_WEIGHT / (predictors.length + 1)), 0];
    this.#weights = Float64Array.from(Array.from({ length: predictors[0]!.gates }, () => row).flat());
  }

  /** `kinds`: [inputs] from `at` on, what each predictor says of a candidate. */
  estimate(gate: number, kinds: Int32Array, at: number): number {
    const row = gate * (this.inputs + 1);
    let sum = this.#weights[row + this.inputs]!;
    for (let i = 0; i < this.inputs; i++) sum += this.#weights[row + i]! * this.#odds[i]![kinds[at + i]!]!;
    return 1 / (1 + Math.exp(-sum));
  }

  save(): SavedMixture {
    return {
      weights: Array.from(this.#weights, rounded),
      calibrations: this.#calibrations.map((calibration) => calibration.save().map(rounded)),
    };
  }

  /** Takes what `save` gave; what cannot be that is ignored. */
  load({ weights, calibrations }: SavedMixture): void {
    if (weights.length !== this.#weights.length || calibrations.length !== this.inputs) return;
    for (const [i, weight] of weights.entries())
      if (Math.abs(weight) < MOST_WEIGHT) this.#weights[i] = weight;
    for (const [i, calibration] of this.#calibrations.entries()) {
      calibration.load(calibrations[i]!);
      for (let kind = 0; kind < this.#odds[i]!.length; kind++)
        this.#odds[i]![kind] = logOdds(calibration.estimate(kind));
    }
  }

  /** The log-odds that predictor i's guesses of a kind come true. */
  odds(i: number, kind: number): number {
    return this.#odds[i]![kind]!;
  }

  /** A candidate of which `estimate` was said was the next token, or was not. */
  observe(gate: number, kinds: Int32Array, at: number, estimate: number, right: boolean): void {
    const row = gate * (this.inputs + 1);
    const step = LEARNING_RATE * ((right ? 1 : 0) - estimate);
    this.#weights[row + this.inputs] = this.#weights[row + this.inputs]! + step;
    for (let i = 0; i < this.inputs; i++) {
      const kind = kinds[at + i]!;
      this.#weights[row + i] = this.#weights[row + i]! + step * this.#odds[i]![kind]!;
      this.#calibrations[i]!.observe(kind, right);
      this.#odds[i]![kind] = logOdds(this.#calibrations[i]!.estimate(kind));
    }
  }
}

/** A mixture as plain data. */
export interface SavedMixture {
  readonly weights: readonly number[];
  readonly calibrations: readonly (readonly number[])[];
}

const rounded = (value: number) => Number(value.toPrecision(4));
const MOST_WEIGHT = 20;
const FIRST_WEIGHT = 1.2;
const LEARNING_RATE = 0.01;
const LEAST = 0.003;
const MOST = 0.995;

function logOdds(probability: number): number {
  const p = Math.min(MOST, Math.max(LEAST, probability));
  return Math.log(p / (1 - p));
}

/**
 * Drafts the tree of the likeliest guesses of all predictors, best first, for as long as the next guess can pay. Of
 * trees with so many tokens it is the one with the largest expected gain under the estimates (Sequoia's dynamic
 * programme, Chen et al. 2024, arXiv:2402.12374, comes to the same where a token's chance does not depend on the shape).
 *
 * With a `guide` only what it allows is drafted, its own guesses too, and what must follow is certain.
 */
export function mixed(
  name: string,
  predictors: readonly Predictor[],
  mixture: Mixture,
  guide?: GuideGuesser,
): Drafter {
  const inputs = predictors.length;
  const tree = new DraftTree(MOST_NODES);
  const last = new Int32Array(CONTEXT);
  const guesses = predictors.map(() => new Guesses());
  const guided = new Guesses();

  // Candidates, in the order of the nodes that they follow.
  let candidates = 0;
  const tokens = new Int32Array(MOST_CANDIDATES);
  const behind = new Int32Array(MOST_CANDIDATES);
  /** What the mixture gives each, and what the guide makes of it where it guesses the same. */
  const estimates = new Float64Array(MOST_CANDIDATES);
  const chances = new Float64Array(MOST_CANDIDATES);
  /** Whether a predictor guessed it, and of what kind the guide's guess is. */
  const predicted = new Uint8Array(MOST_CANDIDATES);
  const guideKinds = new Int8Array(MOST_CANDIDATES);
  const reaches = new Float64Array(MOST_CANDIDATES);
  const drafted = new Uint8Array(MOST_CANDIDATES);
  const kinds = new Int32Array(MOST_CANDIDATES * inputs);
  // For each node its own reach, and where its candidates begin; -1: nobody was asked.
  const reach = new Float64Array(MOST_NODES);
  const begins = new Int32Array(MOST_NODES);
  const ends = new Int32Array(MOST_NODES);
  const gates = new Int32Array(MOST_NODES);

  const append = (token: number) => {
    last.copyWithin(1, 0);
    last[0] = token;
  };

  const add = (token: number, node: number, gate: number, kind: number, said: number) => {
    if (candidates >= MOST_CANDIDATES) return;
    const at = candidates * inputs;
    for (let j = 0; j < inputs; j++) kinds[at + j] = kindIn(guesses[j]!, token);
    tokens[candidates] = token;
    behind[candidates] = node;
    drafted[candidates] = 0;
    const estimate = kind === CERTAIN ? CERTAIN_CHANCE : mixture.estimate(gate, kinds, at);
    predicted[candidates] = said;
    guideKinds[candidates] = kind;
    estimates[candidates] = estimate;
    chances[candidates] = kind >= 0 ? guide!.chance(kind, estimate) : estimate;
    reaches[candidates] = reach[node]! * chances[candidates]!;
    candidates++;
  };

  const expand = (node: number) => {
    let gate = 0;
    for (let i = 0; i < inputs; i++) {
      guesses[i]!.count = 0;
      const said = predictors[i]!.guess(tree, node, guesses[i]!);
      if (i === 0) gate = said;
    }
    gates[node] = gate;
    begins[node] = candidates;
    const only = guide?.guess(tree, node, guided);
    if (only !== undefined) add(only, node, gate, CERTAIN, 0);
    for (let i = 0; i < inputs && only === undefined; i++) {
      const own = guesses[i]!;
      for (let g = 0; g < own.count; g++) {
        const token = own.tokens[g]!;
        let twin = false;
        for (let j = 0; j < i && !twin; j++) twin = guesses[j]!.has(token);
        if (twin || (guide && !guide.allows(node, token))) continue;
        add(token, node, gate, guide && guided.has(token) ? kindIn(guided, token) : PREDICTED, 1);
      }
    }
    for (let g = 0; guide && only === undefined && g < guided.count; g++) {
      const token = guided.tokens[g]!;
      if (!guesses.some((own) => own.has(token))) add(token, node, gate, guided.kinds[g]!, 0);
    }
    ends[node] = candidates;
  };

  /** Scores what was said on the way that the text took. */
  const learn = (emitted: readonly number[]) => {
    let node = 0;
    for (const token of emitted) {
      if (node >= tree.size || begins[node]! < 0) return;
      for (let c = begins[node]!; c < ends[node]!; c++) {
        const right = tokens[c] === token;
        if (predicted[c] === 1) mixture.observe(gates[node]!, kinds, c * inputs, estimates[c]!, right);
        if (guideKinds[c]! >= 0) guide!.observe(guideKinds[c]!, estimates[c]!, right);
      }
      let child = node + 1;
      while (child < tree.size && (tree.parents[child] !== node || tree.token(child) !== token)) child++;
      node = child;
    }
  };

  const top = Math.max(...predictors.map((predictor) => predictor.top ?? 0));
  return {
    name,
    ...(top > 0 ? { top } : undefined),
    reset(prompt) {
      last.fill(NO_TOKEN);
      for (const token of prompt.slice(-CONTEXT)) append(token);
      tree.size = 0;
      for (const predictor of predictors) predictor.reset(prompt);
    },
    accept(emitted: readonly number[], pass?: PassInfo) {
      learn(emitted);
      tree.size = 0;
      for (const predictor of predictors) predictor.accept(emitted, pass);
      for (const token of emitted) append(token);
    },
    guided: guide !== undefined,
    propose(limit, price, state): Draft {
      tree.begin(last);
      if (guide && state) guide.begin(state);
      candidates = 0;
      reach[0] = 1;
      begins[0] = -1;
      if (last[0] === NO_TOKEN) return EMPTY_DRAFT;
      const most = Math.min(limit, MOST_NODES - 1);
      const draft = {
        tokens: [] as number[],
        parents: [] as number[],
        probabilities: [] as number[],
        sources: [] as string[],
      };
      expand(0);
      while (draft.tokens.length < most) {
        let best = -1;
        for (let c = 0; c < candidates; c++)
          if (drafted[c] === 0 && (best < 0 || reaches[c]! > reaches[best]!)) best = c;
        if (best < 0 || reaches[best]! < Math.max(NEGLIGIBLE, price(draft.tokens.length + 1))) break;
        drafted[best] = 1;
        const parent = behind[best]!;
        const node = tree.add(parent, tokens[best]!);
        reach[node] = reaches[best]!;
        begins[node] = -1;
        draft.tokens.push(tokens[best]!);
        draft.parents.push(parent - 1);
        draft.probabilities.push(chances[best]!);
        draft.sources.push(sourceOf(best));
        if (draft.tokens.length < most) expand(node);
      }
      return draft;
    },
    [Symbol.dispose]() {
      for (const predictor of predictors) predictor.reset([]);
    },
  };

  /** The predictor whose guess had the best odds. */
  function sourceOf(candidate: number): string {
    if (predicted[candidate] === 0) return "guide";
    let best = 0;
    for (let i = 1; i < inputs; i++)
      if (
        mixture.odds(i, kinds[candidate * inputs + i]!) >
        mixture.odds(best, kinds[candidate * inputs + best]!)
      )
        best = i;
    return predictors[best]!.name;
  }
}

function kindIn(guesses: Guesses, token: number): number {
  for (let i = 0; i < guesses.count; i++) if (guesses.tokens[i] === token) return guesses.kinds[i]!;
  return guesses.absent;
}

const MOST_NODES = 65;
const MOST_CANDIDATES = MOST_NODES * MOST_GUESSES;
/** In place of the kind of a guide's guess: it made none, or knows that nothing else may follow. */
const PREDICTED = -1;
const CERTAIN = -2;
const CERTAIN_CHANCE = 0.999;
/** On the flattest curve measured, a place in the pass costs more. */
const NEGLIGIBLE = 0.01;
