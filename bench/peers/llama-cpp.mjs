/**
 * Measures node-llama-cpp on one model file and prints a JSON line per measurement:
 *
 *   node bench/peers/llama-cpp.mjs --file MODEL.gguf --prompts PROMPTS.jsonl --mode decode
 *
 * Modes: decode (greedy, per prompt), lookup (the same with its prompt lookup), prefill (512 tokens to the first
 * token), pass (n tokens with a pick after each, behind 256), start (a new process to its first token), load (open
 * file to a token computed).
 * PROMPTS.jsonl: lines with `id` and `prompt_tokens`. Times are milliseconds, medians of --repetitions after a
 * warm-up, with every repetition beside them: on a busy machine the least of `all` says more than the median.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { GgufFileType, getModuleVersion, InputLookupTokenPredictor } from "node-llama-cpp";
import { createContext, loadModel } from "./llama-cpp-model.mjs";
import { readArguments, readPrompts, round, summary, tokensPerSecond } from "./measurement.mjs";

const PREFILL_TOKENS = 512;
const START_TOKENS = 20;
const PASS_PAST = 256;
const WARM_UP_TOKENS = 16;

const modes = { decode, lookup, prefill, pass, start, load };

/** The prompts one after the other, repeated until `count` ids are there: what they say does not matter to the time. */
function someTokens(prompts, count) {
  const all = prompts.flatMap((prompt) => prompt.prompt_tokens);
  return Array.from({ length: count }, (_, i) => all[i % all.length]);
}

/** One greedy answer. A token that ends the text counts as one, because it costs a pass. */
async function generate(sequence, promptTokens, maxTokens) {
  await sequence.clearHistory();
  sequence.tokenPredictor?.updateInputTokens(promptTokens);
  const output = [];
  const begin = performance.now();
  let first = begin;
  for await (const token of sequence.evaluate(promptTokens, { temperature: 0, yieldEogToken: true })) {
    if (output.push(token) === 1) first = performance.now();
    if (output.length === maxTokens || sequence.model.isEogToken(token)) break;
  }
  return { output, firstTokenMs: first - begin, ms: performance.now() - first };
}

async function measureAnswers(settings, threads, createPredictor) {
  const { model, prompts, maxTokens, repetitions, print } = settings;
  const longest = Math.max(...prompts.map((prompt) => prompt.prompt_tokens.length));
  const context = await createContext(model, threads, longest + maxTokens);
  const tokenPredictor = createPredictor?.();
  const sequence = context.getSequence({ tokenPredictor });
  await generate(sequence, prompts[0].prompt_tokens, WARM_UP_TOKENS);
  for (const { id, prompt_tokens: promptTokens } of prompts) {
    const runs = [];
    const before = { ...sequence.tokenPredictions };
    for (let i = 0; i < repetitions; i++) runs.push(await generate(sequence, promptTokens, maxTokens));
    const { validated, refuted } = sequence.tokenPredictions;
    const ms = summary(runs.map((run) => run.ms));
    const { output } = runs[0];
    print(threads, {
      id,
      promptTokens: promptTokens.length,
      n: output.length,
      firstTokenMs: summary(runs.map((run) => run.firstTokenMs)),
      ms,
      tokensPerSecond: tokensPerSecond(output.length, ms.median),
      drafted: tokenPredictor && (validated + refuted - before.validated - before.refuted) / repetitions,
      accepted: tokenPredictor && (validated - before.validated) / repetitions,
      output,
    });
  }
  await context.dispose();
}

/** `ms`: from the first token to the last, thus n - 1 passes; `firstTokenMs`: from the call to the first. */
async function decode(settings, threads) {
  await measureAnswers(settings, threads);
}

async function lookup(settings, threads) {
  await measureAnswers(settings, threads, () => new InputLookupTokenPredictor());
}

async function prefill({ model, prompts, repetitions, print }, threads) {
  const context = await createContext(model, threads, PREFILL_TOKENS + WARM_UP_TOKENS);
  const sequence = context.getSequence();
  const tokens = someTokens(prompts, PREFILL_TOKENS);
  await generate(sequence, tokens.slice(0, WARM_UP_TOKENS), 1);
  const all = [];
  for (let i = 0; i < repetitions; i++) all.push((await generate(sequence, tokens, 1)).firstTokenMs);
  const ms = summary(all);
  await context.dispose();
  print(threads, { n: PREFILL_TOKENS, ms, tokensPerSecond: round((PREFILL_TOKENS * 1000) / ms.median) });
}

/** What a pass of verification costs: n tokens at once and the greedy pick after each of them. */
async function pass({ model, prompts, repetitions, sizes, print }, threads) {
  const most = Math.max(...sizes);
  const context = await createContext(model, threads, PASS_PAST + most);
  const sequence = context.getSequence();
  const tokens = someTokens(prompts, PASS_PAST + most);
  await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, PASS_PAST));
  const generateNext = { token: true, options: { temperature: 0 } };
  const onePass = async (n) => {
    const items = tokens.slice(PASS_PAST, PASS_PAST + n).map((token) => [token, { generateNext }]);
    const begin = performance.now();
    await sequence.controlledEvaluate(items);
    const ms = performance.now() - begin;
    await sequence.eraseContextTokenRanges([{ start: PASS_PAST, end: PASS_PAST + n }]);
    if (sequence.nextTokenIndex !== PASS_PAST) {
      throw new Error(
        `after a pass of ${n} the cache holds ${sequence.nextTokenIndex} tokens, expected ${PASS_PAST}`,
      );
    }
    return ms;
  };
  const all = new Map(sizes.map((n) => [n, []]));
  for (const n of sizes) await onePass(n);
  // Sizes in turn, so that a slow moment of the machine falls on all of them.
  for (let i = 0; i < repetitions; i++) for (const n of sizes) all.get(n).push(await onePass(n));
  await context.dispose();
  for (const n of sizes) print(threads, { n, past: PASS_PAST, ms: summary(all.get(n)) });
}

/** From the start of a Node process to its first token, with the file in the page cache. */
async function start({ file, prompts, repetitions, print }, threads) {
  const script = fileURLToPath(new URL("llama-cpp-first-token.mjs", import.meta.url));
  const tokens = someTokens(prompts, START_TOKENS);
  const oneStart = async () => {
    const begin = performance.now();
    const child = spawn(process.execPath, [script, file, threads, tokens.join()], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let firstTokenMs;
    child.stdout.once("data", () => {
      firstTokenMs = performance.now() - begin;
    });
    const [code] = await once(child, "close");
    if (firstTokenMs === undefined) throw new Error(`${script} ended with ${code} before its first token`);
    return firstTokenMs;
  };
  await oneStart();
  const all = [];
  for (let i = 0; i < repetitions; i++) all.push(await oneStart());
  print(threads, { n: START_TOKENS, ms: summary(all) });
}

/**
 * From a file in the page cache to a model that has computed a token, without what it takes node-llama-cpp to load and
 * try its own binary.
 */
async function load({ file, repetitions, print }, threads) {
  const [all, loads] = [[], []];
  for (let i = 0; i < repetitions; i++) {
    const begin = performance.now();
    const model = await llama.loadModel({ modelPath: file });
    loads.push(performance.now() - begin);
    const context = await createContext(model, threads, 576);
    for await (const _ of context.getSequence().evaluate([1], { temperature: 0, yieldEogToken: true })) break;
    all.push(performance.now() - begin);
    await context.dispose();
    await model.dispose();
  }
  print(threads, { n: 1, ms: summary(all), loadMs: summary(loads) });
}

const usage =
  "node bench/peers/llama-cpp.mjs --file MODEL.gguf --prompts PROMPTS.jsonl " +
  `--mode ${Object.keys(modes).join("|")} [--threads 1,2] [--max-tokens 128] [--repetitions 5] [--sizes 1,2,4,8,16,64]`;
const options = readArguments(usage, ["file", "prompts", "mode"], {
  file: { type: "string" },
  mode: { type: "string" },
  sizes: { type: "string", default: "1,2,4,8,16,64" },
});
const sizes = options.sizes.split(",").map(Number);
const { file, mode, threads, maxTokens, repetitions } = options;
if (!Object.hasOwn(modes, mode)) {
  console.error(`--mode ${mode} is unknown\nusage: ${usage}`);
  process.exit(2);
}
const prompts = readPrompts(options.prompts);
const { llama, model } = await loadModel(file);
const common = {
  bench: mode,
  peer: "node-llama-cpp",
  version: await getModuleVersion(),
  llamaCpp: llama.llamaCppRelease.release,
  file: basename(file),
  type: GgufFileType[model.fileInfo.metadata.general.file_type]?.replace("MOSTLY_", ""),
};
const print = (threadCount, result) =>
  console.log(JSON.stringify({ ...common, threads: threadCount, ...result }));
if (mode === "load") await model.dispose();
for (const count of threads)
  await modes[mode]({ file, model, prompts, maxTokens, repetitions, sizes, print }, count);
await llama.dispose();
