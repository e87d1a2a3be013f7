import path from "node:path";
import { Engine, type EngineOptions } from "../../src/engine/engine.js";
import type { Sampling } from "../../src/engine/sampling.js";
import type { Sequence } from "../../src/engine/sequence.js";
import { openModelSource } from "../../src/weights/open-model-source.js";
import type { Quantization } from "../../src/weights/quantise.js";

const root = path.resolve(import.meta.dirname, "../..");

/** SmolLM2-135M-Instruct. */
export const embeddedModel = path.join(root, "models/SmolLM2-135M-Instruct.Q4_1.gguf");

/** The answers of an independent engine for the embedded model, one JSON object a line. */
export const embeddedGoldens = path.join(root, "test/goldens/smollm2-135m.jsonl");

/** Small random models with known answers: `NAME.gguf` and `NAME.json`. */
export const goldenFolder = path.join(root, "test/goldens/arch");

export const goldenModel = (name: string) => path.join(goldenFolder, `${name}.gguf`);

export async function loadEngine(
  file: string,
  options: EngineOptions = {},
  quantize?: Quantization,
): Promise<Engine> {
  await using source = await openModelSource(file, quantize);
  return await Engine.load(source, options);
}

export interface Continuation {
  readonly tokens: number[];
  readonly logprobs: number[];
}

/** One token at a time after the sequence's cached tokens and then `last`. */
export async function continuePlainly(
  sequence: Sequence,
  last: number,
  sampling: Sampling,
  count: number,
): Promise<Continuation> {
  const continuation: Continuation = { tokens: [], logprobs: [] };
  let token = last;
  for (let i = 0; i < count; i++) {
    const { picks, logprobs } = await sequence.step([token], { sampling });
    sequence.keep([0]);
    token = picks[0]!;
    continuation.tokens.push(token);
    continuation.logprobs.push(logprobs[0]!);
  }
  return continuation;
}
