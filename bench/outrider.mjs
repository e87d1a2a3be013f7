/**
 * Measures Outrider as bench/peers/llama-cpp.mjs measures node-llama-cpp: the same modes, the same JSON lines.
 *
 *   node bench/outrider.mjs --file MODEL.gguf --prompts PROMPTS.jsonl --mode decode [--strategy auto]
 *
 * Modes: decode (greedy, per prompt), prefill (512 tokens to the first token), pass (n tokens with a pick after each,
 * behind 256), start (a new process to its first token), memory (resident set while generating at a full context), load
 * (open file to a token computed, several times; resident set at its highest in the first of them and then).
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Engine } from "../dist/engine/engine.js";
import { resolveSampling } from "../dist/engine/sampling.js";
import { load } from "../dist/index.js";
import { openGguf } from "../dist/weights/gguf.js";
import { required, round, summary } from "./measurement.mjs";

const PREFILL_TOKENS = 512;
const START_TOKENS = 20;
const PASS_PAST = 256;
const WARM_UP_TOKENS = 16;
const MEMORY_CONTEXT = 2048;
/** Far more than any cache holds: how fast memory is read does not depend on how much there is. */
const MOST_READING_BYTES = 2 ** 29;

const { values } = parseArgs({
  options: {
    file: { type: "string" },
    prompts: { type: "string" },
    mode: { type: "string" },
    strategy: { type: "string", default: "none" },
    threads: { type: "string", default: String(Math.min(8, availableParallelism())) },
    "instruction-set": { type: "string" },
    "max-tokens": { type: "string", default: "128" },
    repetitions: { type: "string", default: "5" },
    sizes: { type: "string", default: "1,2,3,4,6,8,16,64" },
  },
});
required(values, "file", "prompts", "mode");
const { file, mode, strategy } = values;
const passSizes = values.sizes.split(",").map(Number);
const threads = Number(values.threads);
const maxTokens = Number(values["max-tokens"]);
const repetitions = Number(values.repetitions);
const instructionSet = values["instruction-set"];
const prompts = readFileSync(values.prompts, "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line));
const someTokens = (count) => {
  const all = prompts.flatMap((prompt) => prompt.prompt_tokens);
  return Array.from({ length: count }, (_, i) => all[i % all.length]);
};
const print = (result) =>
  console.log(
    JSON.stringify({
      bench: mode,
      peer: "outrider",
      file: basename(file),
      strategy,
      threads,
      instructionSet,
      ...result,
    }),
  );

async function decode() {
  const model = await load(file, { learn: false, threads, instructionSet });
  const generate = async (prompt) => {
    let first;
    const begin = performance.now();
    const run = model.generate(prompt, { maxTokens, strategy });
    let firstTokens = 0;
    for await (const piece of run) {
      if (first === undefined) {
        first = performance.now();
        firstTokens = piece.tokens.length;
      }
    }
    const { tokens, stats } = await run.result;
    return { tokens, stats, firstTokens, firstTokenMs: first - begin, ms: performance.now() - first };
  };
  await model.generate(prompts[0].prompt_tokens, { maxTokens: WARM_UP_TOKENS, strategy }).result;
  for (const { id, category, prompt_tokens: promptTokens } of prompts) {
    const runs = [];
    for (let i = 0; i < repetitions; i++) runs.push(await generate(promptTokens));
    const { tokens, stats, firstTokens } = runs[0];
    const ms = summary(runs.map((run) => run.ms));
    print({
      id,
      category,
      promptTokens: promptTokens.length,
      n: tokens.length,
      ms,
      tokensPerSecond: round(((tokens.length - firstTokens) * 1000) / ms.median),
      passes: stats.passes,
      drafted: stats.drafted,
      accepted: stats.accepted,
      outsideCore: round(1 - stats.coreMs / stats.decodeMs),
      output: tokens,
    });
  }
  await model.close();
}

async function prefill() {
  const gguf = await openGguf(file);
  const engine = await Engine.load(gguf, { threads, instructionSet });
  const sampling = resolveSampling({}, engine.config.vocab, 0);
  const once = async (tokens) => {
    engine.forget();
    const sequence = engine.open();
    const begin = performance.now();
    await sequence.prefill(tokens.slice(0, -1));
    await sequence.step(tokens.slice(-1), { sampling });
    const ms = performance.now() - begin;
    sequence.keep([0]);
    sequence[Symbol.dispose]();
    return ms;
  };
  await once(someTokens(WARM_UP_TOKENS));
  const all = [];
  for (let i = 0; i < repetitions; i++) all.push(await once(someTokens(PREFILL_TOKENS)));
  const ms = summary(all);
  print({ n: PREFILL_TOKENS, ms, tokensPerSecond: round((PREFILL_TOKENS * 1000) / ms.median) });
  await engine[Symbol.asyncDispose]();
  await gguf[Symbol.asyncDispose]();
}

/** Also the floor: what reading the weights once takes at this machine's bandwidth, in the same run. */
async function pass() {
  const gguf = await openGguf(file);
  const engine = await Engine.load(gguf, { threads, instructionSet });
  const sampling = resolveSampling({}, engine.config.vocab, 0);
  const tokens = someTokens(PASS_PAST + Math.max(...passSizes));
  const sequence = engine.open();
  await sequence.prefill(tokens.slice(0, PASS_PAST));
  const core = new Map(passSizes.map((n) => [n, []]));
  const whole = new Map(passSizes.map((n) => [n, []]));
  const readings = [];
  for (let i = 0; i <= repetitions; i++) {
    for (const n of passSizes) {
      // As while decoding, a pass follows another of its size: two before the one that counts.
      let begin = 0;
      let result;
      for (let warm = 0; warm < 3; warm++) {
        begin = performance.now();
        result = await sequence.step(tokens.slice(PASS_PAST, PASS_PAST + n), { sampling });
        sequence.keep([]);
      }
      if (i === 0) continue;
      whole.get(n).push(performance.now() - begin);
      core.get(n).push(result.coreMs);
    }
    if (i > 0) readings.push(await readWeightsMilliseconds(engine));
  }
  for (const n of passSizes)
    print({ n, past: PASS_PAST, ms: summary(whole.get(n)), coreMs: summary(core.get(n)) });
  print({ n: 0, weightBytes: engine.memory.weights, readMs: summary(readings) });
  sequence[Symbol.dispose]();
  await engine[Symbol.asyncDispose]();
  await gguf[Symbol.asyncDispose]();
}

async function readWeightsMilliseconds(engine) {
  const bytes = Math.min(engine.memory.weights, MOST_READING_BYTES);
  return (await engine.core.readMilliseconds(bytes, 3)) * (engine.memory.weights / bytes);
}

/** From the start of a Node process to its first token, with the file in the page cache. */
async function start() {
  const script = fileURLToPath(new URL("outrider-first-token.mjs", import.meta.url));
  const all = [];
  for (let i = 0; i <= repetitions; i++) {
    const begin = performance.now();
    const child = spawn(process.execPath, [script, file, String(threads), someTokens(START_TOKENS).join()], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let firstTokenMs;
    child.stdout.once("data", () => {
      firstTokenMs = performance.now() - begin;
    });
    await once(child, "close");
    if (i > 0) all.push(firstTokenMs);
  }
  print({ n: START_TOKENS, ms: summary(all) });
}

async function memory() {
  const model = await load(file, { learn: false, threads, instructionSet, context: MEMORY_CONTEXT });
  const prompt = someTokens(MEMORY_CONTEXT - 128);
  await model.generate(prompt, { strategy, ignoreEnd: true }).result;
  print({ context: MEMORY_CONTEXT, residentMb: round(process.memoryUsage().rss / 2 ** 20) });
  await model.close();
}

const statusMb = (field) =>
  Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync("/proc/self/status", "utf8"))[1]) / 1024;

/**
 * A file in the page cache to a model that has computed a token; resident set at its highest until the first was there
 * and then. Of all loads the least counts: the first may wait for memory that a virtual machine gave back to its host
 * (at half a gigabyte a second), the next ones have what the last one left.
 */
async function loading() {
  const [all, loads] = [[], []];
  let resident;
  for (let i = 0; i < repetitions; i++) {
    const begin = performance.now();
    const gguf = await openGguf(file);
    const engine = await Engine.load(gguf, { threads, instructionSet, context: 576 });
    loads.push(performance.now() - begin);
    const sequence = engine.open();
    await sequence.step([1], { sampling: resolveSampling({}, engine.config.vocab, 0) });
    all.push(performance.now() - begin);
    resident ??= { peakMb: round(statusMb("VmHWM")), residentMb: round(statusMb("VmRSS")) };
    sequence.keep([0]);
    sequence[Symbol.dispose]();
    await engine[Symbol.asyncDispose]();
    await gguf[Symbol.asyncDispose]();
  }
  print({ n: 1, ms: summary(all), loadMs: summary(loads), ...resident });
}

await { decode, prefill, pass, start, memory, load: loading }[mode]();
