/**
 * Several texts at a time beside one after another, with the embedded model in one process:
 *
 *   node bench/batch.mjs [--rounds 3] [--max-tokens 96] [--only chats,samples,prefill,queue] [--strategies none,auto]
 *
 * chats: tokens/s of 8 at a time over that of one at a time. samples: 8 of one prompt over 8 runs one after another.
 * prefill: the time to the first token of a short request beside a prompt of 4,000 tokens, in passes. queue: the mean
 * latency of a heavy-tailed mix, by predicted length over first come first served. Every round has prompts of its own for
 * each side, in turns, since drafting learns from texts that it saw before. JSON lines; medians over rounds.
 */
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { load } from "../dist/index.js";
import { LengthPredictor } from "../dist/scheduling/length-predictor.js";
import { createScheduler } from "../dist/scheduling/scheduler.js";
import { forms, median, newPrompts, round, subjects, sum } from "./measurement.mjs";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    "max-tokens": { type: "string", default: "96" },
    only: { type: "string", default: "chats,samples,prefill,queue" },
    strategies: { type: "string", default: "none,auto" },
  },
});
const rounds = Number(values.rounds);
const maxTokens = Number(values["max-tokens"]);
const parts = values.only.split(",");
const together = 8;

const tell = (record) => console.log(JSON.stringify(record));

async function timed(work) {
  const began = performance.now();
  const results = await work();
  const tokens = sum(results.map((result) => result.tokens.length));
  return { ms: performance.now() - began, tokens, results };
}

async function oneByOne(runs) {
  const results = [];
  for (const run of runs) results.push(await run().result);
  return results;
}

/** Tokens/s of both ways, round by round, the first one changing. */
async function compare(bench, strategy, alone, joined) {
  const speeds = { alone: [], joined: [] };
  const passes = { alone: [], joined: [] };
  for (let r = 0; r < rounds; r++)
    for (const way of r % 2 ? ["joined", "alone"] : ["alone", "joined"]) {
      const { ms, tokens, results } = await timed(way === "alone" ? alone : joined);
      speeds[way].push((1000 * tokens) / ms);
      passes[way].push(tokens / sum(results.map(({ stats }) => stats.passes)));
    }
  tell({
    bench,
    strategy,
    n: together,
    max_tokens: maxTokens,
    tokens_per_second: { alone: median(speeds.alone), together: median(speeds.joined) },
    tokens_per_pass: { alone: round(median(passes.alone)), together: round(median(passes.joined)) },
    ratio: round(median(speeds.joined.map((speed, r) => speed / speeds.alone[r]))),
    ratios: speeds.joined.map((speed, r) => round(speed / speeds.alone[r])),
  });
}

for (const strategy of values.strategies.split(",")) {
  // A model of its own for each: what one strategy learns would speed the other up.
  const model = await load(undefined, { learn: false });
  const options = { strategy, maxTokens, ignoreEnd: true };
  const chat = (prompt) => () => model.generate(prompt, options);
  await oneByOne(newPrompts(4).map(chat));
  if (parts.includes("chats"))
    await compare(
      "chats",
      strategy,
      () => oneByOne(newPrompts(together).map(chat)),
      () => Promise.all(newPrompts(together).map((prompt) => chat(prompt)().result)),
    );
  const sampling = { ...options, temperature: 0.7 };
  if (parts.includes("samples"))
    await compare(
      "samples",
      strategy,
      () => {
        const [prompt] = newPrompts(1);
        return oneByOne(
          Array.from({ length: together }, (_, seed) => () => model.generate(prompt, { ...sampling, seed })),
        );
      },
      () =>
        Promise.all(
          model.samples(newPrompts(1)[0], { ...sampling, n: together }).map((sample) => sample.result),
        ),
    );
  await model.close();
}

if (parts.includes("prefill")) {
  const model = await load(undefined, { learn: false });
  const long = Array.from({ length: 4000 }, (_, i) => 1000 + ((i * 7919) % 40000));
  const first = async (prompt, extra) => {
    const began = performance.now();
    for await (const piece of model.generate(prompt, { maxTokens: 8, ...extra }))
      if (piece.tokens.length) break;
    return performance.now() - began;
  };
  await first("Hello.");
  for (const writing of [false, true]) {
    const ratios = [];
    for (let r = 0; r < rounds; r++) {
      const stop = new AbortController();
      const writer =
        writing && model.generate("Count to a thousand.", { ignoreEnd: true, signal: stop.signal });
      const written = writer ? writer.result : undefined;
      if (writer) await first("Hi.");
      // What a pass with a full chunk takes: the prompt's rows come in passes of 512 alone, of 64 beside texts.
      const chunk = writing ? 64 : 512;
      const began = performance.now();
      const filling = first([2 * r + 10 + (writing ? 1 : 0), ...long], {}).then(
        (ms) => ms / Math.ceil(4000 / chunk),
      );
      await new Promise((resolve) => setTimeout(resolve, 300));
      const ms = await first(`Name the capital of ${subjects[r]}.`);
      const perPass = await filling;
      ratios.push({ ms, perPass, passes: ms / perPass, all: performance.now() - began });
      stop.abort();
      await written;
    }
    tell({
      bench: "first-token-beside-prefill",
      prompt: 4000,
      beside_a_text: writing,
      ms: round(median(ratios.map(({ ms }) => ms))),
      pass_ms: round(median(ratios.map(({ perPass }) => perPass))),
      passes: round(median(ratios.map(({ passes }) => passes))),
    });
  }
  await model.close();
}

if (parts.includes("queue")) {
  const model = await load(undefined, { learn: false });
  let state = 7;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const short = [
    "Answer with one word: what grows into",
    "Say yes or no: do people like",
    "In one word, name the colour of",
  ];
  const mix = Array.from({ length: 60 }, (_, i) => {
    const isLong = random() < 0.2;
    const words = isLong
      ? forms[Math.floor(random() * forms.length)]
      : short[Math.floor(random() * short.length)];
    return {
      text: `${words} ${subjects[i % subjects.length]}?`,
      maxTokens: Math.ceil(Math.min(400, (isLong ? 120 : 6) * random() ** (-1 / 1.5))),
      at: i * 45,
    };
  });
  const meanLatency = async (predictor) => {
    const scheduler = createScheduler({ parallel: 4, queue: 1000, predictor });
    const began = performance.now();
    const latencies = await Promise.all(
      mix.map(async ({ text, maxTokens: most, at }) => {
        await new Promise((resolve) => setTimeout(resolve, at));
        const request = { key: "bench", promptLength: 40, maxTokens: 400, deadlineMs: 600_000, text };
        await scheduler.run(request, async (signal, emitted) => {
          // The answer's length is the workload's, and unknown to the scheduler.
          const result = await model.generate(text, { maxTokens: most, ignoreEnd: true, signal }).result;
          emitted(result.tokens.length);
        });
        return performance.now() - began - at;
      }),
    );
    return { mean: sum(latencies) / latencies.length, counts: scheduler.counts };
  };
  const learned = new LengthPredictor();
  await meanLatency(learned);
  const ratios = [];
  let predictions;
  for (let r = 0; r < rounds; r++) {
    const plain = await meanLatency(undefined);
    const predicted = await meanLatency(learned);
    ratios.push({ plain: plain.mean, predicted: predicted.mean, ratio: predicted.mean / plain.mean });
    predictions = predicted.counts;
  }
  tell({
    bench: "queue",
    requests: mix.length,
    mean_latency_ms: {
      first_come_first_served: round(median(ratios.map(({ plain }) => plain))),
      predicted_length: round(median(ratios.map(({ predicted }) => predicted))),
    },
    ratio: round(median(ratios.map(({ ratio }) => ratio))),
    predictions: predictions.predictions,
    prediction_ms: round(predictions.predictionMs),
  });
  await model.close();
}
