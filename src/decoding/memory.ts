import { Mixture } from "./mixture.js";
import { NgramTable } from "./ngrams.js";
import type { Predictor } from "./predictor.js";
import { RecycledTable } from "./recycled.js";

/** What drafting learned from a model's texts, whichever they were; one for a loaded model. */
export class DraftMemory {
  readonly ngrams = new NgramTable();
  readonly recycled = new RecycledTable();
  readonly #mixtures = new Map<string, Mixture>();

  /** What is known about the worth of these predictors' guesses. */
  mixture(name: string, predictors: readonly Predictor[]): Mixture {
    let mixture = this.#mixtures.get(name);
    if (mixture === undefined) {
      mixture = new Mixture(predictors);
      this.#mixtures.set(name, mixture);
    }
    return mixture;
  }
}
