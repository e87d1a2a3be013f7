/**
 * Measures transformers.js (onnxruntime on the CPU) on one model and prints a JSON line per prompt and count of threads:
 *
 *   node bench/peers/transformers.mjs --onnx DIR --prompts PROMPTS.jsonl
 *
 * DIR is a model exported to ONNX, as in the onnx-community repositories: config.json, generation_config.json and
 * onnx/model*.onnx; --dtype says which of these. PROMPTS.jsonl as for llama-cpp.mjs; its ids are used as they are.
 */
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { AutoModelForCausalLM, env, Tensor } from "@huggingface/transformers";
import { readArguments, readPrompts, summary, tokensPerSecond } from "./measurement.mjs";

const WARM_UP_TOKENS = 16;

/** What transformers.js calls the file of each type. */
const suffixes = { fp32: "", fp16: "_fp16", q8: "_quantized", int8: "_int8", q4: "_q4", q4f16: "_q4f16" };

const usage =
  "node bench/peers/transformers.mjs --onnx DIR --prompts PROMPTS.jsonl " +
  `[--dtype ${Object.keys(suffixes).join("|")}] [--threads 1,2] [--max-tokens 128] [--repetitions 5]`;

function refuse(problem) {
  console.error(`${problem}
transformers.js runs models that were exported to ONNX, and nothing is fetched here. --onnx takes a folder with
config.json, generation_config.json and onnx/model*.onnx, e.g. a copy of HuggingFaceTB/SmolLM2-135M-Instruct from the hub.
usage: ${usage}`);
  process.exit(2);
}

const options = readArguments(usage, ["prompts"], {
  onnx: { type: "string" },
  dtype: { type: "string", default: "q8" },
});
const { onnx, dtype, threads, maxTokens, repetitions } = options;
if (onnx === undefined) refuse(`transformers.js ${env.version} is loaded, but --onnx is missing`);
if (!Object.hasOwn(suffixes, dtype)) refuse(`--dtype ${dtype} is unknown`);
const folder = path.resolve(onnx);
const modelFile = path.join("onnx", `model${suffixes[dtype]}.onnx`);
for (const file of ["config.json", modelFile])
  if (!existsSync(path.join(folder, file))) {
    const inside = path.join(folder, "onnx");
    const found = existsSync(inside) ? readdirSync(inside).filter((name) => name.endsWith(".onnx")) : [];
    refuse(`${path.join(onnx, file)} is missing${found.length > 0 ? `; onnx has ${found.join(", ")}` : ""}`);
  }

env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);

/** One greedy answer. `put` gets the prompt first, then every token; an end token counts, because it costs a pass. */
async function generate(model, promptTokens, tokens) {
  const output = [];
  const begin = performance.now();
  let first = begin;
  let last = begin;
  const shape = [1, promptTokens.length];
  await model.generate({
    input_ids: new Tensor("int64", BigInt64Array.from(promptTokens, BigInt), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(promptTokens.length).fill(1n), shape),
    max_new_tokens: tokens,
    do_sample: false,
    streamer: {
      prompt: true,
      put([ids]) {
        if (this.prompt) {
          this.prompt = false;
          return;
        }
        last = performance.now();
        if (output.push(...ids.map(Number)) === 1) first = last;
      },
      end() {},
    },
  });
  return { output, firstTokenMs: first - begin, ms: last - first };
}

const prompts = readPrompts(options.prompts);
for (const count of threads) {
  const model = await AutoModelForCausalLM.from_pretrained(path.basename(folder), {
    dtype,
    device: "cpu",
    local_files_only: true,
    session_options: { intraOpNumThreads: count, interOpNumThreads: 1 },
  });
  await generate(model, prompts[0].prompt_tokens, WARM_UP_TOKENS);
  for (const { id, prompt_tokens: promptTokens } of prompts) {
    const runs = [];
    for (let i = 0; i < repetitions; i++) runs.push(await generate(model, promptTokens, maxTokens));
    const { output } = runs[0];
    const ms = summary(runs.map((run) => run.ms));
    console.log(
      JSON.stringify({
        bench: "decode",
        peer: "transformers.js",
        version: env.version,
        file: modelFile,
        type: dtype,
        threads: count,
        id,
        promptTokens: promptTokens.length,
        n: output.length,
        firstTokenMs: summary(runs.map((run) => run.firstTokenMs)),
        ms,
        tokensPerSecond: tokensPerSecond(output.length, ms.median),
        output,
      }),
    );
  }
  await model.dispose();
}
