/**
 * What `outrider serve` gives, through HTTP and the model's process, and node-llama-cpp batching the same requests:
 *
 *   npm ci --prefix bench/peers --ignore-scripts && node bench/serve.mjs [--rounds 3] [--max-tokens 96] [--only chats,first-token,queue]
 *
 * chats: tokens a second of 1, 4 and 8 chats at a time. The peer (where it is installed, and unless --types "") answers
 * the same prompts in this run, without HTTP, in its fastest types and with every count of threads, a new process each
 * round; contenders take turns, and its best setting for each number of chats counts. first-token: how long a short request waits, alone
 * and beside a prompt of 4,000 tokens. queue: the mean latency of a heavy-tailed mix, four at a time, in the server's
 * order over first come, first served. JSON lines; medians over rounds.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { embeddedModel, load } from "../dist/index.js";
import { forms, jsonLines, median, newPrompts, round, subjects, sum } from "./measurement.mjs";

const here = import.meta.dirname;
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    "max-tokens": { type: "string", default: "96" },
    only: { type: "string", default: "chats,first-token,queue" },
    strategies: { type: "string", default: "none,auto" },
    types: { type: "string", default: "Q8_0,Q4_0" },
  },
});
const rounds = Number(values.rounds);
const maxTokens = Number(values["max-tokens"]);
const parts = values.only.split(",");
const batches = [1, 4, 8];
const results = path.join(here, "results");
mkdirSync(results, { recursive: true });

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const tell = (record) => console.log(JSON.stringify(record));

async function startServer(...extra) {
  // --no-learn: a second run of this script must not know the first one's texts.
  const args = ["serve", "--port", "0", "--log-level", "error", "--no-learn", ...extra];
  const child = spawn(process.execPath, [path.join(here, "../dist/cli/main.js"), ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  const url = await new Promise((resolve, reject) => {
    child.on("exit", () => reject(new Error("the server ended")));
    child.stdout.setEncoding("utf8").on("data", (text) => {
      out += text;
      const found = /listens on (\S+)\n/.exec(out);
      if (found) resolve(found[1]);
    });
  });
  const chat = (content, fields) =>
    fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ temperature: 0, ...fields, messages: [{ role: "user", content }] }),
    });
  const stop = async () => {
    child.kill("SIGTERM");
    await once(child, "close");
  };
  return { chat, stop };
}

async function answerOf(response) {
  const body = await response.json();
  if (response.status !== 200) throw new Error(JSON.stringify(body));
  return body;
}

/** Tokens a second of all together. */
async function together({ chat }, strategy, contents) {
  const fields = { max_tokens: maxTokens, ignore_eos: true, outrider: { strategy } };
  const began = performance.now();
  const answers = await Promise.all(contents.map(async (content) => answerOf(await chat(content, fields))));
  const tokens = sum(answers.map(({ usage }) => usage.completion_tokens));
  return (1000 * tokens) / (performance.now() - began);
}

async function measureChats() {
  const peerThere = existsSync(path.join(here, "peers/node_modules/node-llama-cpp"));
  if (!peerThere)
    console.error(
      "node-llama-cpp is not installed (npm ci --prefix bench/peers --ignore-scripts): Outrider alone",
    );
  const peers = [];
  for (const type of peerThere ? values.types.split(",").filter(Boolean) : []) {
    const file = type === "Q4_1" ? embeddedModel : path.join(results, `SmolLM2-135M-Instruct.${type}.gguf`);
    if (type !== "Q4_1") await jsonLines("requantize.mjs", [embeddedModel, file, type]);
    for (let threads = 1; threads <= availableParallelism(); threads++) peers.push({ type, file, threads });
  }
  const total = sum(batches);
  const plan = Array.from({ length: rounds }, () => newPrompts(total));
  const files = [];
  const model = await load(embeddedModel);
  for (const [r, contents] of plan.entries()) {
    files[r] = path.join(results, `serve-prompts-${r}.jsonl`);
    const lines = contents.map(async (content, id) =>
      JSON.stringify({ id, prompt_tokens: await model.promptTokens(content) }),
    );
    writeFileSync(files[r], (await Promise.all(lines)).join("\n"));
  }
  await model.close();

  // A server for each strategy: what one learns, and keeps of prompts, would speed the other up.
  const ours = [];
  for (const strategy of values.strategies.split(",")) ours.push({ strategy, server: await startServer() });
  const speeds = new Map();
  const took = (name, n, speed) => {
    const list = speeds.get(`${name} ${n}`) ?? [];
    speeds.set(`${name} ${n}`, list);
    list.push(speed);
  };
  for (const { strategy, server } of ours) await together(server, strategy, newPrompts(8));
  const contenders = [...ours, ...peers];
  for (const [r, contents] of plan.entries())
    for (let i = 0; i < contenders.length; i++) {
      const { strategy, server, type, file, threads } = contenders[(i + r) % contenders.length];
      if (server) {
        let at = 0;
        for (const n of batches) {
          took(strategy, n, await together(server, strategy, contents.slice(at, at + n)));
          at += n;
        }
        continue;
      }
      const args = ["--file", file, "--prompts", files[r], "--batches", batches.join(), "--threads", threads];
      for (const line of await jsonLines("peers/llama-cpp-batch.mjs", [...args, "--max-tokens", maxTokens]))
        took(`${type} ${threads}`, line.n, line.tokensPerSecond);
    }
  for (const { server } of ours) await server.stop();

  const speed = (name, n) => median(speeds.get(`${name} ${n}`));
  const best = {};
  for (const n of batches)
    best[n] = peers
      .map(({ type, threads }) => ({ type, threads, tokensPerSecond: speed(`${type} ${threads}`, n) }))
      .reduce((a, b) => (a && a.tokensPerSecond >= b.tokensPerSecond ? a : b), undefined);
  const each = (of) => Object.fromEntries(batches.map((n) => [n, of(n)]));
  for (const { type, threads } of peers)
    tell({
      bench: "serve-peer",
      peer: "node-llama-cpp",
      type,
      threads,
      tokensPerSecond: each((n) => round(speed(`${type} ${threads}`, n), 1)),
    });
  for (const { strategy } of ours)
    tell({
      bench: "serve-chats",
      strategy,
      maxTokens,
      rounds,
      tokensPerSecond: each((n) => round(speed(strategy, n), 1)),
      overOne: each((n) => round(speed(strategy, n) / speed(strategy, 1))),
      ...(peers.length > 0 && {
        best: each((n) => best[n]),
        overPeer: each((n) => round(speed(strategy, n) / best[n].tokensPerSecond)),
      }),
    });
}

/** Milliseconds to a short request's first token. */
async function firstToken({ chat }, content) {
  const began = performance.now();
  const response = await chat(content, { max_tokens: 1, stream: true });
  const reader = response.body.getReader();
  await reader.read();
  const ms = performance.now() - began;
  while (!(await reader.read()).done);
  return ms;
}

async function measureFirstToken() {
  const server = await startServer();
  const alone = [];
  const beside = [];
  await firstToken(server, "Hi");
  for (let r = 0; r < rounds; r++) {
    alone.push(await firstToken(server, `Name the capital of ${subjects[r]}.`));
    const content =
      `${r} `.repeat(20) + "The quick brown fox jumps over the lazy dog near the river bank. ".repeat(285);
    const long = server.chat(content, { max_tokens: 1 }).then(answerOf);
    await pause(200 + 97 * r); // at another point of a pass each time
    const ms = await firstToken(server, `Name the river of ${subjects[r]}.`);
    const { usage, timings } = await long;
    beside.push({ ms, promptTokens: usage.prompt_tokens, prefillMs: timings.prompt_ms });
  }
  await server.stop();
  tell({
    bench: "serve-first-token",
    rounds,
    aloneMs: round(median(alone), 1),
    besideMs: round(median(beside.map(({ ms }) => ms)), 1),
    promptTokens: beside[0].promptTokens,
    prefillMs: round(median(beside.map(({ prefillMs }) => prefillMs)), 0),
  });
}

const parallel = 4;
const requests = 60;
const short = [
  "Answer with one word: what grows into",
  "Say yes or no: do people like",
  "In one word, name the colour of",
];

/** So many at a time, in the order in which they come: then the server's queue is always empty. */
function inOrder(most) {
  const waiting = [];
  let running = 0;
  return async (work) => {
    if (running >= most) await new Promise((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  };
}

async function measureQueue() {
  let state = 7;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const pick = (list) => list[Math.floor(random() * list.length)];
  // Answers end where the model ends them: the server cannot know when.
  const mix = Array.from({ length: requests }, (_, i) => ({
    content: `${random() < 0.2 ? pick(forms) : pick(short)} ${subjects[i % subjects.length]}?`,
    at: i * 30,
  }));
  const server = await startServer("--max-parallel", String(parallel), "--max-queue", String(requests));
  const lengths = [];
  /** The same seeds, so the same texts, in both orders; no drafts, since the second would know the first one's texts. */
  const meanLatency = async (seed, turn) => {
    const latencies = mix.map(async ({ content, at }, i) => {
      await pause(at);
      const began = performance.now();
      const fields = { temperature: 0.8, seed: seed + i, max_tokens: 400, outrider: { strategy: "none" } };
      const { usage } = await turn(async () => answerOf(await server.chat(content, fields)));
      lengths.push(usage.completion_tokens);
      return performance.now() - began;
    });
    return sum(await Promise.all(latencies)) / mix.length;
  };
  const orders = { arrival: inOrder(parallel), predicted: (work) => work() };
  await meanLatency(1, orders.arrival); // the predictor sees lengths; it learns in both orders
  const means = { arrival: [], predicted: [] };
  for (let r = 0; r < rounds; r++)
    for (const order of r % 2 ? ["predicted", "arrival"] : ["arrival", "predicted"])
      means[order].push(await meanLatency(1000 * (r + 1), orders[order]));
  await server.stop();
  const sorted = lengths.toSorted((a, b) => a - b);
  tell({
    bench: "serve-queue",
    requests,
    parallel,
    rounds,
    answerTokens: {
      median: median(lengths),
      p90: sorted[Math.floor(0.9 * sorted.length)],
      most: sorted.at(-1),
    },
    meanLatencyMs: {
      firstCome: round(median(means.arrival), 0),
      predicted: round(median(means.predicted), 0),
    },
    ratio: round(median(means.predicted.map((ms, r) => ms / means.arrival[r]))),
  });
}

if (parts.includes("chats")) await measureChats();
if (parts.includes("first-token")) await measureFirstToken();
if (parts.includes("queue")) await measureQueue();
