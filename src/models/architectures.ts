import { OutriderError, quote } from "../errors.js";
import type { Architecture } from "./architecture.js";
import { cohere2 } from "./cohere2.js";
import { gemma2 } from "./gemma2.js";
import { gemma3 } from "./gemma3.js";
import { gpt2 } from "./gpt2.js";
import { granite } from "./granite.js";
import { llama } from "./llama.js";
import { olmo2 } from "./olmo2.js";
import { phi3 } from "./phi3.js";
import { qwen2 } from "./qwen2.js";
import { qwen3 } from "./qwen3.js";
import { qwen3moe } from "./qwen3moe.js";
import { smollm3 } from "./smollm3.js";
import { starcoder2 } from "./starcoder2.js";

/** Every architecture that Outrider runs. */
export const architectures: readonly Architecture[] = [
  llama,
  qwen2,
  qwen3,
  qwen3moe,
  gemma2,
  gemma3,
  phi3,
  granite,
  olmo2,
  gpt2,
  starcoder2,
  smollm3,
  cohere2,
];

/** The architecture of that name; an unknown one is `ERR_MODEL_UNSUPPORTED`, never a guess. */
export function findArchitecture(name: unknown, file: string): Architecture {
  const found = architectures.find((a) => a.name === name);
  if (found) return found;
  const stated = typeof name === "string" ? quote(name) : "missing";
  throw new OutriderError(
    typeof name === "string" ? "ERR_MODEL_UNSUPPORTED" : "ERR_MODEL_FORMAT",
    `${file}: general.architecture is ${stated}. Supported: ${architectures.map((a) => a.name).join(", ")}. ` +
      "Adding one: docs/adding-an-architecture.md.",
  );
}
