import { OutriderError } from "../errors.js";
import { Arena, isWeightType, type Weight } from "../runtime/weight.js";
import type { ModelSource, TensorInfo } from "../weights/model-source.js";
import { packedBytes, packMatrices, readVector } from "../weights/pack.js";
import type { Architecture, ModelConfig, ModelWeights } from "./architecture.js";
import { findArchitecture } from "./architectures.js";
import { Metadata } from "./metadata.js";
import { type TensorSpec, tensorTable } from "./tensor-table.js";

/** A model whose file was checked, before any of its data was read. */
export interface ModelPlan {
  readonly architecture: Architecture;
  readonly config: ModelConfig;
  /** The tensors that the architecture uses, by name. */
  readonly tensors: ReadonlyMap<string, PlannedTensor>;
  /** Bytes of these tensors in the file. */
  readonly bytes: number;
  /** Bytes that they take once they are in the core. */
  readonly packedBytes: number;
}

interface PlannedTensor {
  readonly info: TensorInfo;
  readonly spec: TensorSpec;
}

/** Finds the architecture and checks that each tensor it needs is there in the right shape and a known type. */
export function planModel(file: ModelSource): ModelPlan {
  const architecture = findArchitecture(file.metadata.get("general.architecture"), file.path);
  const metadata = new Metadata(file.metadata, file.path, architecture.name);
  const config = architecture.config(metadata);
  metadata.refuseUnread();
  const tensors = new Map<string, PlannedTensor>();
  let bytes = 0;
  for (const spec of tensorTable(architecture, config, (name) => file.tensors.has(name))) {
    const info = file.tensors.get(spec.name);
    if (!info)
      throw new OutriderError(
        "ERR_MODEL_FORMAT",
        `${file.path}: tensor ${spec.name} is missing, expected ${shapeText(spec.shape)}`,
      );
    checkTensor(file.path, info, spec);
    tensors.set(spec.name, { info, spec });
    bytes += info.bytes;
  }
  const unused = [...file.tensors.keys()].filter((name) => !tensors.has(name));
  if (unused.length > 0)
    throw new OutriderError(
      "ERR_MODEL_UNSUPPORTED",
      `${file.path}: ${unused.length} tensors are not part of architecture ${architecture.name}, the first is ` +
        `${unused[0]}: the file needs something that this architecture does not have`,
    );
  const packed = [...tensors.values()].map((tensor) => tensorBytes(file, tensor));
  return { architecture, config, tensors, bytes, packedBytes: packed.reduce((sum, n) => sum + n, 0) };
}

const isVector = ({ spec }: PlannedTensor) => spec.shape.length === 1;
/** Rows of the matrices that a tensor holds one after another. */
const partsOf = ({ info, spec }: PlannedTensor) => spec.fused ?? [info.rows];

function tensorBytes(file: ModelSource, tensor: PlannedTensor): number {
  return isVector(tensor) ? tensor.info.bytes : packedBytes(file, tensor.info, partsOf(tensor));
}

function checkTensor(file: string, tensor: TensorInfo, spec: TensorSpec): void {
  const outer = tensor.shape.slice(1).reverse();
  const found =
    spec.shape.length === 1 && tensor.rows === 1
      ? [tensor.columns]
      : [...(spec.shape.length === 2 ? [tensor.rows] : outer), tensor.columns];
  if (found.length !== spec.shape.length || found.some((n, i) => n !== spec.shape[i]))
    throw new OutriderError(
      "ERR_MODEL_FORMAT",
      `${file}: tensor ${tensor.name} is ${shapeText(found)}, expected ${shapeText(spec.shape)} from the configuration`,
    );
  if (!isWeightType(tensor.type))
    throw new OutriderError(
      "ERR_MODEL_UNSUPPORTED",
      `${file}: tensor ${tensor.name} has weight type ${tensor.type}, which is not supported`,
    );
}

const shapeText = (shape: readonly number[]) => `[${shape.join(", ")}]`;

/** All weights of a model in the core, with one owner. */
export class LoadedWeights implements ModelWeights, Disposable {
  #arena: Arena | undefined;
  readonly #matrices = new Map<string, readonly Weight[]>();
  readonly #vectors = new Map<string, Float32Array>();

  /**
   * Streams the plan's tensors into the core, two at a time so that reading and packing overlap. `onProgress` hears
   * the bytes done so far. Nothing stays behind when it throws.
   */
  static async load(
    file: ModelSource,
    plan: ModelPlan,
    onProgress?: (done: number, total: number) => void,
  ): Promise<LoadedWeights> {
    const weights = new LoadedWeights();
    let done = 0;
    const count = (bytes: number) => {
      done += bytes;
      onProgress?.(done, plan.bytes);
    };
    const queue = [...plan.tensors.values()].sort((a, b) => a.info.offset - b.info.offset).reverse();
    const matrices = queue.filter((tensor) => !isVector(tensor));
    const arena = new Arena(matrices.reduce((sum, tensor) => sum + tensorBytes(file, tensor), 0));
    weights.#arena = arena;
    const worker = async () => {
      for (let tensor = queue.pop(); tensor; tensor = queue.pop()) {
        const { info } = tensor;
        if (isVector(tensor)) weights.#vectors.set(info.name, await readVector(file, info, count));
        else weights.#matrices.set(info.name, await packMatrices(file, info, partsOf(tensor), count, arena));
      }
    };
    const results = await Promise.allSettled([worker(), worker()]);
    const failed = results.find((r) => r.status === "rejected");
    if (failed) {
      weights[Symbol.dispose]();
      throw failed.reason;
    }
    return weights;
  }

  // The shapes were checked when the model was planned.
  matrix(name: string): Weight {
    return this.optionalMatrix(name) ?? missing(name);
  }
  optionalMatrix(name: string): Weight | undefined {
    return this.#matrices.get(name)?.[0];
  }
  fusedMatrices(name: string): readonly Weight[] {
    return this.#matrices.get(name) ?? missing(name);
  }
  expertMatrices(name: string): Weight {
    return this.matrix(name);
  }
  vector(name: string): Float32Array {
    return this.#vectors.get(name) ?? missing(name);
  }
  optionalVector(name: string): Float32Array | undefined {
    return this.#vectors.get(name);
  }
  layer(index: number): ModelWeights {
    return new LayerWeights(this, `blk.${index}.`);
  }

  [Symbol.dispose](): void {
    for (const weight of [...this.#matrices.values()].flat()) weight[Symbol.dispose]();
    this.#arena?.[Symbol.dispose]();
    this.#matrices.clear();
    this.#vectors.clear();
  }
}

/** A model's weights under a prefix. */
class LayerWeights implements ModelWeights {
  readonly #all: LoadedWeights;
  readonly #prefix: string;

  constructor(all: LoadedWeights, prefix: string) {
    this.#all = all;
    this.#prefix = prefix;
  }

  matrix = (name: string) => this.#all.matrix(this.#prefix + name);
  optionalMatrix = (name: string) => this.#all.optionalMatrix(this.#prefix + name);
  fusedMatrices = (name: string) => this.#all.fusedMatrices(this.#prefix + name);
  expertMatrices = (name: string) => this.#all.expertMatrices(this.#prefix + name);
  vector = (name: string) => this.#all.vector(this.#prefix + name);
  optionalVector = (name: string) => this.#all.optionalVector(this.#prefix + name);
  layer = (index: number) => new LayerWeights(this.#all, `${this.#prefix}blk.${index}.`);
}

function missing(name: string): never {
  throw new OutriderError(
    "ERR_PROGRAM",
    `weight ${name} is used by the architecture's program but was not asked for when the model was planned`,
  );
}
