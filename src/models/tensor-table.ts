import { ProgramBuilder } from "../runtime/program.js";
import type { Weight } from "../runtime/weight.js";
import type { Architecture, ModelConfig, ModelWeights } from "./architecture.js";

/** A tensor that the file must hold (or may, when optional), by its name there. */
export interface TensorSpec {
  readonly name: string;
  /** [experts, rows, columns], [rows, columns] of a matrix or [length] of a vector of float32. */
  readonly shape: readonly number[];
  readonly optional: boolean;
  /** Several matrices of so many rows, one after another. */
  readonly fused?: readonly number[] | undefined;
}

/** The tensors that an architecture's program asks for, in its order: all optional ones that `exists` knows. */
export function tensorTable<C extends ModelConfig>(
  architecture: Architecture<C>,
  config: C,
  exists: (name: string) => boolean,
): readonly TensorSpec[] {
  const specs = new Map<string, TensorSpec>();
  architecture.program(planningBuilder(config), config, new Declarations(specs, exists));
  return [...specs.values()];
}

function planningBuilder(config: ModelConfig): ProgramBuilder {
  const { vocab, context } = config;
  return new ProgramBuilder({ vocab, maxRows: 1, maxOutputs: 1, maxPosition: context, precise: true });
}

/** Writes down what is asked for and hands out stand-ins: matrices without numbers, vectors of ones. */
class Declarations implements ModelWeights {
  readonly #specs: Map<string, TensorSpec>;
  readonly #exists: (name: string) => boolean;
  readonly #prefix: string;

  constructor(specs: Map<string, TensorSpec>, exists: (name: string) => boolean, prefix = "") {
    this.#specs = specs;
    this.#exists = exists;
    this.#prefix = prefix;
  }

  matrix(name: string, rows: number, columns: number): Weight {
    this.#declare(name, [rows, columns]);
    return standIn(name, rows, columns);
  }

  optionalMatrix(name: string, rows: number, columns: number): Weight | undefined {
    return this.#declareOptional(name, [rows, columns]) ? standIn(name, rows, columns) : undefined;
  }

  fusedMatrices(name: string, rows: readonly number[], columns: number): readonly Weight[] {
    this.#declare(name, [rows.reduce((sum, n) => sum + n, 0), columns], false, rows);
    return rows.map((n) => standIn(name, n, columns));
  }

  expertMatrices(name: string, experts: number, rows: number, columns: number): Weight {
    this.#declare(name, [experts, rows, columns]);
    return standIn(name, experts * rows, columns);
  }

  vector(name: string, length: number): Float32Array {
    this.#declare(name, [length]);
    return new Float32Array(length).fill(1);
  }

  optionalVector(name: string, length: number): Float32Array | undefined {
    return this.#declareOptional(name, [length]) ? new Float32Array(length).fill(1) : undefined;
  }

  layer(index: number): ModelWeights {
    return new Declarations(this.#specs, this.#exists, `${this.#prefix}blk.${index}.`);
  }

  #declareOptional(name: string, shape: readonly number[]): boolean {
    const exists = this.#exists(this.#prefix + name);
    if (exists) this.#declare(name, shape, true);
    return exists;
  }

  #declare(name: string, shape: readonly number[], optional = false, fused?: readonly number[]): void {
    const whole = this.#prefix + name;
    if (!this.#specs.has(whole)) this.#specs.set(whole, { name: whole, shape, optional, fused });
  }
}

function standIn(name: string, rows: number, columns: number): Weight {
  return { name, rows, columns, type: "F32", blockQuantised: false } as Weight;
}
