import { OutriderError, quote } from "../errors.js";
import type { ModelSource, TensorInfo } from "./model-source.js";
import { layoutByType, type WeightType } from "./weight-type.js";

/** Names of `LoadOptions.quantize`. */
export const quantizations = ["q8_0", "q4_1", "none"] as const;
export type Quantization = (typeof quantizations)[number];

const floats: ReadonlySet<WeightType> = new Set(["F32", "F16", "BF16"]);
// Small and sensitive: the choice of experts, and learned positions.
const keptAsTheyAre = /ffn_gate_inp|position_embd/;
// Every token's logit and input come from these: in 8 bits also where the others have 4.
const endsOfTheModel = /^(token_embd|output)\.weight$/;

export function checkQuantization(value: unknown): void {
  if (value === undefined || quantizations.includes(value as Quantization)) return;
  throw new OutriderError(
    "ERR_BAD_REQUEST",
    `quantize is ${quote(String(value))}, expected ${quantizations.join(", ")}`,
    { param: "quantize" },
  );
}

/**
 * A source whose F32, F16 and BF16 matrices are to be packed in blocks of fewer bits. Vectors, and what is in blocks
 * already, stay as they are. Default: q8_0 for safetensors; a GGUF file keeps what it has.
 */
export function quantised(source: ModelSource, quantization: Quantization | undefined): ModelSource {
  const chosen = quantization ?? (source.format === "safetensors" ? "q8_0" : "none");
  if (chosen === "none") return source;
  const tensors = new Map<string, TensorInfo>();
  for (const [name, tensor] of source.tensors) {
    const packAs = chosen === "q8_0" || endsOfTheModel.test(name) ? "Q8_0" : "Q4_1";
    tensors.set(name, canBecome(tensor, packAs) ? { ...tensor, packAs } : tensor);
  }
  return {
    format: source.format,
    path: source.path,
    files: source.files,
    size: source.size,
    metadata: source.metadata,
    tokenizer: source.tokenizer,
    tensors,
    read: (tensor, options) => source.read(tensor, options),
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}

function canBecome({ name, type, shape, columns }: TensorInfo, packAs: WeightType): boolean {
  const { blockWeights } = layoutByType.get(packAs)!;
  return floats.has(type) && shape.length > 1 && columns % blockWeights === 0 && !keptAsTheyAre.test(name);
}
