import type { ProgramBuilder, Tensor } from "../runtime/program.js";
import type { Weight } from "../runtime/weight.js";
import type { Metadata } from "./metadata.js";

/** Groups of neighbouring layers, by their indices, ascending. */
export type LayerGroups = readonly (readonly number[])[];

/** What the layers above must know of a model, whatever its architecture. */
export interface ModelConfig {
  readonly vocab: number;
  /** Positions that the model was trained for. */
  readonly context: number;
  readonly width: number;
  readonly layers: number;
  /** The layers that a program runs, in order, the attentions of a group on the same input; default: each alone. */
  readonly layerGroups?: LayerGroups | undefined;
  /** Heads and head size of the key/value cache. */
  readonly numKvHeads: number;
  readonly headDim: number;
}

/**
 * The weights by the names that they have in GGUF files. Asking for one is also how a program declares it: before
 * anything is loaded, `planModel` runs the program on weights that only write down what it asks for.
 */
export interface ModelWeights {
  /** [rows, columns] */
  matrix(name: string, rows: number, columns: number): Weight;
  optionalMatrix(name: string, rows: number, columns: number): Weight | undefined;
  /** Matrices whose rows lie one after another in one tensor, as fused projections do. */
  fusedMatrices(name: string, rows: readonly number[], columns: number): readonly Weight[];
  /** [experts, rows, columns], as a matrix of experts * rows rows. */
  expertMatrices(name: string, experts: number, rows: number, columns: number): Weight;
  /** [length] float32 */
  vector(name: string, length: number): Float32Array;
  optionalVector(name: string, length: number): Float32Array | undefined;
  /** The weights under `blk.INDEX.` */
  layer(index: number): ModelWeights;
}

/**
 * One architecture: from metadata to a configuration, and from that to the program that it is.
 * docs/adding-an-architecture.md says how to add one.
 */
export interface Architecture<C extends ModelConfig = ModelConfig> {
  /** `general.architecture` in GGUF files. */
  readonly name: string;
  config(metadata: Metadata): C;
  /** The forward pass; returns the logits of the wanted rows, and the normalised hidden states that they are made from. */
  program(b: ProgramBuilder, config: C, w: ModelWeights): { logits: Tensor; hidden: Tensor };
}
