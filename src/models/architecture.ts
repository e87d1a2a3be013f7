import type { ProgramBuilder, Tensor } from "../runtime/program.js";
import type { Weight } from "../runtime/weight.js";
import type { Metadata } from "./metadata.js";

/** What the layers above must know of a model, whatever its architecture. */
export interface ModelConfig {
  readonly vocab: number;
  /** Positions that the model was trained for. */
  readonly context: number;
  readonly width: number;
  readonly layers: number;
  /** Heads and head size of the key/value cache. */
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** A tensor that the file must hold (or may, when optional), by its name there. */
export interface TensorSpec {
  readonly name: string;
  /** [rows, columns] of a matrix or [length] of a vector of float32. */
  readonly shape: readonly [number, number] | readonly [number];
  readonly optional?: boolean;
}

/** The weights by the names that an architecture's `tensors` gives them. */
export interface ModelWeights {
  matrix(name: string): Weight;
  optionalMatrix(name: string): Weight | undefined;
  vector(name: string): Float32Array;
  optionalVector(name: string): Float32Array | undefined;
}

/**
 * One architecture: from metadata to a configuration, from that to the tensors it needs and to the program it is.
 * Adding one: a file beside this one, a line in `architectures.ts`, a golden.
 */
export interface Architecture<C extends ModelConfig = ModelConfig> {
  /** `general.architecture` in GGUF files. */
  readonly name: string;
  config(metadata: Metadata): C;
  tensors(config: C): readonly TensorSpec[];
  /** The forward pass; returns the logits of the wanted rows. */
  program(b: ProgramBuilder, config: C, w: ModelWeights): { logits: Tensor };
}
