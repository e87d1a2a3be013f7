/**
 * Measures llama.cpp's server, plain and with its n-gram speculation, and prints a JSON line per prompt:
 *
 *   node bench/peers/llama-server.mjs --llama-server PATH --file MODEL.gguf --prompts PROMPTS.jsonl
 *
 * The server is started on a free port of 127.0.0.1 for each count of threads and each speculation, on the CPU with one
 * slot. Times are its own (`timings` of /completion). PROMPTS.jsonl as for llama-cpp.mjs; its ids are used as they are.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { createServer } from "node:net";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readArguments, readPrompts, summary, tokensPerSecond } from "./measurement.mjs";

const WARM_UP_TOKENS = 16;
const START_MS = 120_000;

const usage =
  "node bench/peers/llama-server.mjs --llama-server PATH --file MODEL.gguf --prompts PROMPTS.jsonl " +
  "[--speculation none,ngram-simple] [--threads 1,2] [--max-tokens 128] [--repetitions 5]";

/** The n-gram kinds that this build lists for --spec-type: they differ between releases. */
function kindsOf(help) {
  const option = /--spec-type\b([\s\S]*?)(?=\n\s*-|$)/.exec(help)?.[1] ?? "";
  return [...new Set(option.match(/\bngram-[a-z0-9-]*[a-z0-9]/g) ?? [])];
}

function outputOf(binary, flag) {
  try {
    // --version goes to stderr.
    const script = ["-c", '"$0" "$1" 2>&1', binary, flag];
    return execFileSync("/bin/sh", script, { encoding: "utf8", maxBuffer: 1 << 24 });
  } catch (error) {
    return fail(`${binary} ${flag} failed: ${error.message}`);
  }
}

function fail(problem) {
  console.error(`${problem}\nusage: ${usage}`);
  process.exit(2);
}

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}

async function start(binary, args) {
  const port = await freePort();
  const child = spawn(binary, [...args, "--host", "127.0.0.1", "--port", port], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    log = (log + text).slice(-2000);
  });
  const closed = once(child, "close");
  const url = `http://127.0.0.1:${port}`;
  const deadline = performance.now() + START_MS;
  while (!(await fetch(`${url}/health`).catch(() => undefined))?.ok) {
    if (child.exitCode !== null || child.signalCode !== null || performance.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`${binary} ${args.join(" ")} did not start:\n${log}`);
    }
    await sleep(50);
  }
  return {
    url,
    async stop() {
      child.kill("SIGTERM");
      await closed;
    },
  };
}

/** One greedy answer; the prompt is computed anew, whatever a slot still has of it. */
async function generate(url, promptTokens, maxTokens) {
  const response = await fetch(`${url}/completion`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      prompt: promptTokens,
      n_predict: maxTokens,
      temperature: 0,
      cache_prompt: false,
      return_tokens: true,
    }),
  });
  const answer = await response.json();
  if (!response.ok || !answer.timings)
    throw new Error(`/completion answered ${response.status}: ${JSON.stringify(answer).slice(0, 500)}`);
  return answer;
}

const options = readArguments(usage, ["file", "prompts"], {
  "llama-server": { type: "string" },
  file: { type: "string" },
  speculation: { type: "string" },
});
const { file, threads, maxTokens, repetitions } = options;
const binary = options["llama-server"];
if (binary === undefined)
  fail("--llama-server is missing: the path of llama.cpp's server, which node-llama-cpp does not contain");
try {
  accessSync(binary, constants.X_OK);
} catch {
  fail(`--llama-server ${binary} is not a program`);
}
const version = /version: (.+)/.exec(outputOf(binary, "--version"))?.[1];
const known = kindsOf(outputOf(binary, "--help"));
if (known.length === 0)
  console.error(`${binary} has no n-gram kind of --spec-type (too old?): it is measured plain`);
const kinds = options.speculation?.split(",") ?? ["none", ...known];
for (const kind of kinds)
  if (kind !== "none" && !known.includes(kind))
    fail(`--speculation ${kind} is not one of ${["none", ...known].join(", ")}`);

const prompts = readPrompts(options.prompts);
const context = Math.max(...prompts.map((prompt) => prompt.prompt_tokens.length)) + maxTokens + 64;
for (const count of threads)
  for (const kind of kinds) {
    const server = await start(binary, [
      ...["--model", file, "--threads", count, "--threads-batch", count, "--ctx-size", context],
      ...["--parallel", 1, "--gpu-layers", 0],
      ...(kind === "none" ? [] : ["--spec-type", kind]),
    ]);
    try {
      await generate(server.url, prompts[0].prompt_tokens, WARM_UP_TOKENS);
      for (const { id, prompt_tokens: promptTokens } of prompts) {
        const runs = [];
        for (let i = 0; i < repetitions; i++) runs.push(await generate(server.url, promptTokens, maxTokens));
        const n = runs[0].timings.predicted_n;
        const ms = summary(runs.map(({ timings }) => timings.predicted_ms));
        const mean = (field) =>
          kind === "none"
            ? undefined
            : runs.reduce((sum, { timings }) => sum + (timings[field] ?? 0), 0) / repetitions;
        console.log(
          JSON.stringify({
            bench: kind === "none" ? "decode" : kind,
            peer: "llama-server",
            version,
            file: basename(file),
            threads: count,
            id,
            promptTokens: promptTokens.length,
            n,
            firstTokenMs: summary(runs.map(({ timings }) => timings.prompt_ms)),
            ms,
            tokensPerSecond: tokensPerSecond(n, ms.median),
            drafted: mean("draft_n"),
            accepted: mean("draft_n_accepted"),
            output: runs[0].tokens,
          }),
        );
      }
    } finally {
      await server.stop();
    }
  }
