/** How node-llama-cpp is set up wherever it is measured: on the CPU, with the settings that were fastest for it. */
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

export async function loadModel(file) {
  const llama = await getLlama({
    gpu: false,
    build: "never", // the prebuilt binary, which picks its kernels for this CPU, or an error
    maxThreads: 0, // no limit: a context uses exactly the threads it asks for
    logLevel: LlamaLogLevel.error,
  });
  return { llama, model: await llama.loadModel({ modelPath: file }) };
}

/**
 * `contextSize`: no more than needed, because the cache is allocated and cleared at once. Flash attention, one thread,
 * SmolLM2-135M Q4_0: prefill 1.5 times as fast, decoding 1.05; only passes of 8 and 16 tokens lose, 0.9.
 */
export function createContext(model, threads, contextSize) {
  return model.createContext({ threads, contextSize, flashAttention: true });
}
