/**
 * What a pass over one token costs behind a long past, beside what reading the weights and the past would cost at the
 * speed at which this machine reads memory; the goal is 1.5 times that at most.
 *
 *   node bench/long-past.mjs [--file MODEL.gguf] [--past 4000] [--threads 2] [--rounds 5] [--passes 12] [--out FILE]
 *
 * Passes and readings take turns, round by round; medians over the rounds' medians count. One JSON line (appended to
 * FILE, too), then whether the goal is met; exit code 1 where it is not.
 */
import { appendFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { Engine } from "../dist/engine/engine.js";
import { resolveSampling } from "../dist/engine/sampling.js";
import { embeddedModel } from "../dist/index.js";
import { openModelSource } from "../dist/weights/open-model-source.js";
import { median, round } from "./measurement.mjs";

const goal = 1.5;
const { values } = parseArgs({
  options: {
    file: { type: "string", default: embeddedModel },
    past: { type: "string", default: "4000" },
    threads: { type: "string", default: String(Math.min(8, availableParallelism())) },
    rounds: { type: "string", default: "5" },
    passes: { type: "string", default: "12" },
    "instruction-set": { type: "string" },
    out: { type: "string" },
  },
});
const number = (name) => {
  const value = Number(values[name]);
  if (Number.isInteger(value) && value > 0) return value;
  console.error(`--${name}: "${values[name]}" is not a whole number from 1`);
  process.exit(2);
};
const [past, threads, rounds, passes] = ["past", "threads", "rounds", "passes"].map(number);

const source = await openModelSource(values.file);
const engine = await Engine.load(source, {
  threads,
  instructionSet: values["instruction-set"],
  context: past + 8,
});
const { layers, numKvHeads, headDim, vocab } = engine.config;
const sampling = resolveSampling({}, vocab, 0);
// Any tokens: which they are does not change what attention costs.
const tokens = Array.from({ length: past }, (_, i) => (i * 7919) % vocab);
const cacheBytes = past * layers * numKvHeads * headDim * 2 * 2; // float16 keys and values
const bytes = engine.memory.weights + cacheBytes;

/** Milliseconds of a pass behind the sequence's tokens, none of which stays. */
async function passMilliseconds(sequence) {
  const all = [];
  for (let i = 0; i < passes; i++) {
    const begin = performance.now();
    await sequence.step([1], { sampling });
    all.push(performance.now() - begin);
    sequence.keep([]);
  }
  return median(all);
}

async function behind(count, measure) {
  engine.forget();
  const sequence = engine.open();
  try {
    const begin = performance.now();
    await sequence.prefill(tokens.slice(0, count));
    return await measure(sequence, performance.now() - begin);
  } finally {
    sequence[Symbol.dispose]();
  }
}

const shortMs = await behind(16, passMilliseconds);
const { prefillMs, passMs, readingMs } = await behind(past, async (sequence, prefillMs) => {
  const [measured, readings] = [[], []];
  await passMilliseconds(sequence);
  for (let i = 0; i < rounds; i++) {
    measured.push(await passMilliseconds(sequence));
    readings.push(await engine.core.readMilliseconds(bytes, 3));
  }
  return { prefillMs, passMs: median(measured), readingMs: median(readings) };
});
const ratio = passMs / readingMs;
const line = JSON.stringify({
  bench: "long-past",
  past,
  threads,
  pass_ms: round(passMs),
  pass_ms_behind_16: round(shortMs),
  prefill_ms: round(prefillMs),
  weight_mb: round(engine.memory.weights / 1e6),
  cache_mb: round(cacheBytes / 1e6),
  gb_per_second: round(bytes / 1e6 / readingMs),
  reading_ms: round(readingMs),
  ratio: round(ratio),
  goal,
  met: ratio <= goal,
});
console.log(line);
if (values.out) appendFileSync(values.out, `${line}\n`);
console.log(
  `${ratio <= goal ? "met" : "NOT MET"}: a pass behind ${past} tokens takes ${round(ratio)} times what reading the ` +
    `weights and the past takes (goal <= ${goal})`,
);
if (ratio > goal) process.exitCode = 1;
await engine[Symbol.asyncDispose]();
await source[Symbol.asyncDispose]();
