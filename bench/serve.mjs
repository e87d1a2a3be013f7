// What a server gives: tokens a second of 1 and of 8 chats at a time, and how long a short request waits beside a prompt
// of 4,000 tokens, through HTTP and the model's process. One JSON line a measurement.
//   node bench/serve.mjs [--rounds 3] [--model FILE]
import { spawn } from "node:child_process";
import path from "node:path";
import { parseArgs } from "node:util";

const root = path.resolve(import.meta.dirname, "..");
const { values } = parseArgs({
  options: { rounds: { type: "string", default: "3" }, model: { type: "string" } },
});
const rounds = Number(values.rounds);
const tokens = 96;

const questions = [
  "Write a short story about a lighthouse keeper.",
  "Explain how a bicycle stays upright.",
  "Give me a recipe for pancakes.",
  "Why do leaves turn red in autumn?",
  "Describe a market in a small town on a rainy morning.",
  "What should I think of before I buy a used car?",
  "Write a letter to a friend who moved abroad.",
  "How does a refrigerator work?",
];

const args = [
  "serve",
  "--port",
  "0",
  "--log-level",
  "error",
  ...(values.model ? ["--model", values.model] : []),
];
const child = spawn(process.execPath, [path.join(root, "dist/cli/main.js"), ...args], {
  stdio: ["ignore", "pipe", "inherit"],
});
const url = await new Promise((resolve, reject) => {
  let out = "";
  child.on("exit", () => reject(new Error("the server ended")));
  child.stdout.setEncoding("utf8").on("data", (text) => {
    out += text;
    const found = /listens on (\S+)\n/.exec(out);
    if (found) resolve(found[1]);
  });
});

const post = (body) =>
  fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ temperature: 0, ...body }),
  });

/** Tokens a second of all together. */
async function chats(count, strategy, seed) {
  const started = performance.now();
  const answers = await Promise.all(
    questions.slice(0, count).map(async (content, i) => {
      const response = await post({
        messages: [{ role: "user", content }],
        max_tokens: tokens,
        // Not the same texts again: drafts would come from the last ones.
        temperature: 0.8,
        seed: seed + i,
        ignore_eos: true,
        outrider: { strategy },
      });
      return (await response.json()).usage.completion_tokens;
    }),
  );
  return (1000 * answers.reduce((a, b) => a + b, 0)) / (performance.now() - started);
}

/** Milliseconds to a short request's first token. */
async function firstToken() {
  const started = performance.now();
  const response = await post({ messages: [{ role: "user", content: "Hi" }], max_tokens: 1, stream: true });
  const reader = response.body.getReader();
  await reader.read();
  const ms = performance.now() - started;
  while (!(await reader.read()).done);
  return ms;
}

async function besideLongPrompt(round) {
  const content =
    `${round} `.repeat(20) + "The quick brown fox jumps over the lazy dog near the river bank. ".repeat(285);
  const long = post({ messages: [{ role: "user", content }], max_tokens: 1 }).then((r) => r.json());
  await new Promise((resolve) => setTimeout(resolve, 200));
  const ms = await firstToken();
  const { usage, timings } = await long;
  return { ms, promptTokens: usage.prompt_tokens, prefillMs: timings.prompt_ms };
}

let asked = 0;
const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];
try {
  await chats(8, "auto", 1); // warm
  for (const strategy of ["none", "auto"]) {
    const rates = { 1: [], 8: [] };
    for (let round = 0; round < rounds; round++) {
      for (const count of [1, 8]) rates[count].push(await chats(count, strategy, 100 * ++asked));
    }
    const [one, eight] = [median(rates[1]), median(rates[8])];
    console.log(
      JSON.stringify({
        bench: "serve",
        strategy,
        tokens,
        rounds,
        tokensPerSecond: { 1: one, 8: eight },
        ratio: eight / one,
      }),
    );
  }
  const alone = [];
  const beside = [];
  for (let round = 0; round < rounds; round++) {
    alone.push(await firstToken());
    beside.push(await besideLongPrompt(round));
  }
  console.log(
    JSON.stringify({
      bench: "serve-first-token",
      rounds,
      aloneMs: median(alone),
      besideMs: median(beside.map(({ ms }) => ms)),
      promptTokens: beside[0].promptTokens,
      prefillMs: median(beside.map(({ prefillMs }) => prefillMs)),
    }),
  );
} finally {
  child.kill("SIGTERM");
}
