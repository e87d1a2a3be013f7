import { OutriderError } from "../errors.js";
import { type Arena, checkWeightType, Weight } from "../runtime/weight.js";
import type { ModelSource, TensorInfo } from "./model-source.js";

/** Bytes that a tensor takes once it is packed, as matrices of so many rows. */
export function packedBytes(
  file: ModelSource,
  tensor: TensorInfo,
  parts = [tensor.rows] as readonly number[],
): number {
  const type = checkWeightType(tensor.packAs ?? tensor.type, `${file.path}: tensor ${tensor.name}`);
  return parts.reduce((sum, rows) => sum + Weight.packedBytes(type, rows, tensor.columns), 0);
}

/** A matrix, streamed from the file into the core's packed form. `onBytes` counts what was read. */
export async function packMatrix(
  file: ModelSource,
  tensor: TensorInfo,
  onBytes?: (bytes: number) => void,
  arena?: Arena,
): Promise<Weight> {
  const [weight] = await packMatrices(file, tensor, [tensor.rows], onBytes, arena);
  return weight!;
}

/** A tensor whose rows belong to several matrices, so many to each, one after another. */
export async function packMatrices(
  file: ModelSource,
  tensor: TensorInfo,
  parts: readonly number[],
  onBytes?: (bytes: number) => void,
  arena?: Arena,
): Promise<Weight[]> {
  const fileType = checkWeightType(tensor.type, `${file.path}: tensor ${tensor.name}`);
  const type = checkWeightType(tensor.packAs ?? fileType, `${file.path}: tensor ${tensor.name}`);
  const weights: Weight[] = [];
  try {
    for (const rows of parts) weights.push(new Weight(tensor.name, type, rows, tensor.columns, arena));
    for await (const chunk of file.read(tensor)) {
      const rowBytes = chunk.bytes.length / chunk.rows;
      let first = 0; // of the part, in the tensor
      for (const weight of weights) {
        const from = Math.max(first, chunk.firstRow);
        const to = Math.min(first + weight.rows, chunk.firstRow + chunk.rows);
        const at = (row: number) => (row - chunk.firstRow) * rowBytes;
        if (from < to) await weight.pack(chunk.bytes.subarray(at(from), at(to)), from - first, fileType);
        first += weight.rows;
      }
      onBytes?.(chunk.bytes.length);
    }
    return weights;
  } catch (error) {
    for (const weight of weights) weight[Symbol.dispose]();
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
