/**
 * Answers several prompts at a time with node-llama-cpp, which batches the sequences of one context, and prints a JSON
 * line for each batch:
 *
 *   node bench/peers/llama-cpp-batch.mjs --file MODEL.gguf --prompts PROMPTS.jsonl --batches 1,4,8 [--threads 1,2]
 *
 * The first batch is the first prompt, the second the next four, and so on: none is asked twice, so that no sequence
 * finds its prompt in its cache. Greedy, `--max-tokens` tokens for each, a token that ends the text counting as one.
 * PROMPTS.jsonl: lines with `id` and `prompt_tokens`. `ms`: from the first call to the last token of all, the prompts
 * included.
 */
import { basename } from "node:path";
import { GgufFileType, getModuleVersion } from "node-llama-cpp";
import { loadModel } from "./llama-cpp-model.mjs";
import { readArguments, readPrompts, round } from "./measurement.mjs";

const options = readArguments(
  "node bench/peers/llama-cpp-batch.mjs --file MODEL.gguf --prompts PROMPTS.jsonl --batches 1,4,8 [--threads 1,2] [--max-tokens 128]",
  ["file", "prompts", "batches"],
  { file: { type: "string" }, batches: { type: "string" } },
);
const batches = options.batches.split(",").map(Number);
const prompts = readPrompts(options.prompts);
const longest = Math.max(...prompts.map((prompt) => prompt.prompt_tokens.length));
const { llama, model } = await loadModel(options.file);
const most = Math.max(...batches);

async function answer(sequence, promptTokens, maxTokens) {
  let tokens = 0;
  let firstTokenAt = 0;
  for await (const _ of sequence.evaluate(promptTokens, { temperature: 0, yieldEogToken: true })) {
    if (++tokens === 1) firstTokenAt = performance.now();
    if (tokens === maxTokens) break;
  }
  return { tokens, firstTokenAt };
}

for (const threads of options.threads) {
  const context = await model.createContext({
    threads,
    sequences: most,
    contextSize: longest + options.maxTokens, // of each sequence
    flashAttention: true,
  });
  const sequences = Array.from({ length: most }, () => context.getSequence());
  const together = async (list, maxTokens) => {
    for (const sequence of sequences) await sequence.clearHistory();
    const begin = performance.now();
    const answers = await Promise.all(
      list.map(({ prompt_tokens: ids }, i) => answer(sequences[i], ids, maxTokens)),
    );
    const ms = performance.now() - begin;
    const tokens = answers.reduce((sum, one) => sum + one.tokens, 0);
    const first = answers.map(({ firstTokenAt }) => firstTokenAt - begin);
    return { ms, tokens, firstTokenMs: first.reduce((a, b) => a + b, 0) / first.length };
  };
  await together(prompts.slice(0, most), 16);
  let at = 0;
  for (const n of batches) {
    const { ms, tokens, firstTokenMs } = await together(prompts.slice(at, at + n), options.maxTokens);
    at += n;
    console.log(
      JSON.stringify({
        bench: "batch",
        peer: "node-llama-cpp",
        version: await getModuleVersion(),
        llamaCpp: llama.llamaCppRelease.release,
        file: basename(options.file),
        type: GgufFileType[model.fileInfo.metadata.general.file_type]?.replace("MOSTLY_", ""),
        threads,
        n,
        tokens,
        ms: round(ms),
        firstTokenMs: round(firstTokenMs),
        tokensPerSecond: round((1000 * tokens) / ms),
      }),
    );
  }
  await context.dispose();
}
await llama.dispose();
