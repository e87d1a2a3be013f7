import { OutriderError } from "../errors.js";
import { type Arena, checkWeightType, Weight } from "../runtime/weight.js";
import type { ModelSource, TensorInfo } from "./model-source.js";

/** Bytes that a tensor takes once it is packed. */
export function packedBytes(file: ModelSource, tensor: TensorInfo): number {
  const type = checkWeightType(tensor.type, `${file.path}: tensor ${tensor.name}`);
  return Weight.packedBytes(type, tensor.rows, tensor.columns);
}

/** A matrix, streamed from the file into the core's packed form. `onBytes` counts what was read. */
export async function packMatrix(
  file: ModelSource,
  tensor: TensorInfo,
  onBytes?: (bytes: number) => void,
  arena?: Arena,
): Promise<Weight> {
  const type = checkWeightType(tensor.type, `${file.path}: tensor ${tensor.name}`);
  const weight = new Weight(tensor.name, type, tensor.rows, tensor.columns, arena);
  try {
    for await (const chunk of file.read(tensor)) {
      await weight.pack(chunk.bytes, chunk.firstRow);
      onBytes?.(chunk.bytes.length);
    }
    return weight;
  } catch (error) {
    weight[Symbol.dispose]();
    throw error;
  }
}

/** A small tensor as float32 numbers: norms, biases, frequency factors. */
export async function readVector(
  file: ModelSource,
  tensor: TensorInfo,
  onBytes?: (bytes: number) => void,
): Promise<Float32Array> {
  if (tensor.type !== "F32")
    throw new OutriderError(
      "ERR_MODEL_UNSUPPORTED",
      `${file.path}: tensor ${tensor.name} is ${tensor.type}, expected F32`,
    );
  const bytes = new Uint8Array(tensor.bytes);
  let at = 0;
  for await (const chunk of file.read(tensor)) {
    bytes.set(chunk.bytes, at);
    at += chunk.bytes.length;
    onBytes?.(chunk.bytes.length);
  }
  return new Float32Array(bytes.buffer);
}
