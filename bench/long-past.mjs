/**
 * What a pass over one token costs behind a long past, beside what reading the weights and the past would cost at the
 * speed at which this machine reads memory.
 *
 *   node bench/long-past.mjs [--file MODEL.gguf] [--past 4000] [--threads 2]
 *
 * One JSON line: `pass_ms` (median of the passes), `reading_ms` (weights, keys and values over the measured speed), and
 * their ratio.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { Engine } from "../dist/engine/engine.js";
import { resolveSampling } from "../dist/engine/sampling.js";
import { embeddedModel } from "../dist/index.js";
import { openModelSource } from "../dist/weights/open-model-source.js";

const { values } = parseArgs({
  options: {
    file: { type: "string", default: embeddedModel },
    past: { type: "string", default: "4000" },
    threads: { type: "string", default: String(Math.min(8, availableParallelism())) },
    passes: { type: "string", default: "60" },
    "instruction-set": { type: "string" },
  },
});
const past = Number(values.past);
const passes = Number(values.passes);
const median = (all) => all.toSorted((a, b) => a - b)[all.length >> 1];

const source = await openModelSource(values.file);
const engine = await Engine.load(source, {
  threads: Number(values.threads),
  instructionSet: values["instruction-set"],
  context: past + passes + 8,
});
const { layers, numKvHeads, headDim, vocab } = engine.config;
const sampling = resolveSampling({}, vocab, 0);

async function passMilliseconds(sequence, count) {
  const all = [];
  let last = 1;
  for (let i = 0; i < count; i++) {
    const begin = performance.now();
    const { picks } = await sequence.step([last], { sampling });
    all.push(performance.now() - begin);
    sequence.keep([0]);
    last = picks[0];
  }
  return median(all);
}

// Text of all kinds of tokens: what is in them does not change what attention costs.
const tokens = Array.from({ length: past }, (_, i) => (i * 7919) % vocab);
const start = engine.open();
await start.prefill(tokens.slice(0, 16));
const shortMs = await passMilliseconds(start, passes);
start[Symbol.dispose]();
engine.forget();
const sequence = engine.open();
const begin = performance.now();
await sequence.prefill(tokens);
const prefillMs = performance.now() - begin;
const passMs = await passMilliseconds(sequence, passes);
sequence[Symbol.dispose]();

const cacheBytes = past * layers * numKvHeads * headDim * 2 * 2; // float16 keys and values
const bytes = engine.memory.weights + cacheBytes;
const readingMs = await engine.core.readMilliseconds(bytes);
const round = (value) => Math.round(value * 1000) / 1000;
console.log(
  JSON.stringify({
    bench: "long-past",
    past,
    threads: Number(values.threads),
    pass_ms: round(passMs),
    pass_ms_behind_16: round(shortMs),
    prefill_ms: round(prefillMs),
    weight_mb: round(engine.memory.weights / 1e6),
    cache_mb: round(cacheBytes / 1e6),
    gb_per_second: round(bytes / 1e6 / readingMs),
    reading_ms: round(readingMs),
    ratio: round(passMs / readingMs),
  }),
);

await engine[Symbol.asyncDispose]();
await source[Symbol.asyncDispose]();
