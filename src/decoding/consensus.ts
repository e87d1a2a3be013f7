import { NgramTable, ngrams } from "./ngrams.js";
import type { Predictor } from "./predictor.js";

/**
 * What the samples of one prompt have written so far: each sample's drafts are what most of its siblings wrote after the
 * same last tokens ("Speculative Decoding for Multi-Sample Inference", Li et al. 2025, arXiv:2503.05330, with counts
 * of n-grams for the graph of suffix matches).
 */
export class Siblings {
  readonly #table = new NgramTable(SLOTS);

  /** For one of the samples; what it writes, the others hear of. */
  predictor(): Predictor {
    return { ...ngrams(this.#table), name: "consensus" };
  }
}

/** Four contexts a token: room for 64 samples of 256 tokens that share nothing. */
const SLOTS = 1 << 16;
