/**
 * Outrider beside node-llama-cpp, in one run on one machine, and the goals that the project set itself:
 *
 *   npm ci --prefix bench/peers --ignore-scripts
 *   node bench/compare.mjs --prompts SPEC-BENCH.jsonl [--rounds 5] [--limit 4] [--speculation-tokens 256] [--out FILE]
 *
 * SPEC-BENCH.jsonl: lines with `question_id`, `category`, `turns` (or `id`, `prompt_tokens`); `limit` of each category are
 * taken. Spec-Bench's own limit is 1,024 tokens an answer; 256, the default of the comparison of `auto` with `none`,
 * flatters drafting less, since a small model's long answers repeat themselves. Contenders take turns round by round, each
 * in a process of its own; medians over rounds are compared, never single runs. The peer gets the embedded model in its own
 * file's type and, requantised here, in the two types for which llama.cpp has fast kernels, each with every thread setting;
 * its best setting counts.
 */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { embeddedModel, load } from "../dist/index.js";
import { jsonLines, median, required, round, sum } from "./measurement.mjs";

const { values } = parseArgs({
  options: {
    prompts: { type: "string" },
    rounds: { type: "string", default: "5" },
    limit: { type: "string", default: "1" },
    "max-tokens": { type: "string", default: "96" },
    "speculation-tokens": { type: "string", default: "256" },
    out: { type: "string", default: "bench/results/compare.json" },
    only: { type: "string" },
  },
});
required(values, "prompts");
const rounds = Number(values.rounds);
const perCategory = Number(values.limit);
const maxTokens = values["max-tokens"];
const speculationTokens = Number(values["speculation-tokens"]);
const here = import.meta.dirname;
const results = path.join(here, "results");
mkdirSync(results, { recursive: true });

/** Prompts as token ids for both engines: `perCategory` of each category. */
async function writePrompts(file) {
  const taken = new Map();
  const chosen = [];
  const model = await load(embeddedModel);
  for (const line of readFileSync(values.prompts, "utf8").trim().split("\n")) {
    const item = JSON.parse(line);
    const category = item.category ?? "all";
    if ((taken.get(category) ?? 0) >= perCategory) continue;
    const tokens = item.prompt_tokens ?? (await model.promptTokens(item.turns?.[0] ?? item.prompt));
    if (tokens.length > 1800) continue;
    taken.set(category, (taken.get(category) ?? 0) + 1);
    chosen.push({ id: item.id ?? item.question_id, category, prompt_tokens: tokens });
  }
  await model.close();
  writeFileSync(file, chosen.map((item) => JSON.stringify(item)).join("\n"));
  return chosen;
}

const promptsFile = path.join(results, "prompts.jsonl");
const prompts = await writePrompts(promptsFile);
const few = path.join(results, "few-prompts.jsonl");
writeFileSync(
  few,
  prompts
    .filter((p) => p.prompt_tokens.length < 400)
    .slice(0, 4)
    .map((p) => JSON.stringify(p))
    .join("\n"),
);

const files = { Q4_1: embeddedModel };
for (const type of ["Q8_0", "Q4_0"]) {
  files[type] = path.join(results, `SmolLM2-135M-Instruct.${type}.gguf`);
  await jsonLines("requantize.mjs", [embeddedModel, files[type], type]);
}

const cores = availableParallelism();
const ours = (mode, extra = []) =>
  jsonLines("outrider.mjs", [
    "--file",
    embeddedModel,
    "--prompts",
    few,
    "--mode",
    mode,
    "--max-tokens",
    maxTokens,
    "--repetitions",
    1,
    ...extra,
  ]);
const peer = (mode, type, threads, extra = []) =>
  jsonLines("peers/llama-cpp.mjs", [
    "--file",
    files[type],
    "--prompts",
    few,
    "--mode",
    mode,
    "--threads",
    threads,
    "--max-tokens",
    maxTokens,
    "--repetitions",
    1,
    ...extra,
  ]);
const contenders = Object.keys(files).flatMap((type) =>
  Array.from({ length: cores }, (_, i) => ({ type, threads: i + 1 })),
);
const decodeRate = (list) => sum(list.map((l) => l.n - 1)) / sum(list.map((l) => l.ms.median / 1000));

const report = {
  date: new Date().toISOString(),
  machine: { cpu: cpus()[0].model, cores, node: process.version },
  rounds,
  figures: {},
  goals: [],
};
const goal = (name, value, bound, unit = "×") => {
  const met = bound.startsWith("≥") ? value >= Number(bound.slice(1)) : value <= Number(bound.slice(1));
  report.goals.push({ name, value: round(value), bound, met });
  console.log(`${met ? "met    " : "not met"}  ${name.padEnd(52)} ${round(value)}${unit}  (${bound})`);
};
const wanted = (name) => values.only === undefined || values.only.split(",").includes(name);

/** Plain decoding over the peer's best, once measured. */
let fastest;

if (wanted("pass")) {
  const passes = { avx512: [], peer: [] };
  for (let i = 0; i < rounds; i++) {
    passes.avx512.push(await ours("pass", ["--repetitions", 11]));
    passes.peer.push(
      await peer("pass", "Q4_0", Array.from({ length: cores }, (_, t) => t + 1).join(), ["--repetitions", 5]),
    );
  }
  const cost = (n) => median(passes.avx512.map((r) => r.find((l) => l.n === n).coreMs.median));
  const whole = (n) => median(passes.avx512.map((r) => r.find((l) => l.n === n).ms.median));
  const reading = median(passes.avx512.map((r) => r.find((l) => l.n === 0).readMs.median));
  report.figures.passMs = Object.fromEntries([1, 2, 3, 4, 6, 8, 16, 64].map((n) => [n, round(cost(n))]));
  report.figures.readMs = round(reading);
  report.figures.peerPassMs = Object.fromEntries(
    contenders
      .filter((c) => c.type === "Q4_0")
      .map((c) => [
        c.threads,
        Object.fromEntries(
          [1, 2, 4, 8, 16].map((n) => [
            n,
            round(
              median(passes.peer.map((r) => r.find((l) => l.n === n && l.threads === c.threads).ms.median)),
            ),
          ]),
        ),
      ]),
  );
  console.log(
    "pass ms",
    report.figures.passMs,
    "reading the weights",
    report.figures.readMs,
    "peer",
    report.figures.peerPassMs,
  );
  goal("cost(4) / cost(1), past 256", cost(4) / cost(1), "≤1.15");
  goal("cost(8) / cost(1), past 256", cost(8) / cost(1), "≤1.5");
  goal("cost(1) / reading the weights once", cost(1) / reading, "≤1.5");
  goal("outside the core, share of a pass over 1 token", (whole(1) - cost(1)) / whole(1), "≤0.05", "");
}

if (wanted("decode")) {
  const rates = new Map();
  const add = (name, rate) => rates.set(name, [...(rates.get(name) ?? []), rate]);
  for (let i = 0; i < rounds; i++) {
    add("none", decodeRate(await ours("decode")));
    add("none, AVX2", decodeRate(await ours("decode", ["--instruction-set", "avx2"])));
    for (const { type, threads } of contenders)
      add(`${type} ${threads}`, decodeRate(await peer("decode", type, threads)));
  }
  report.figures.tokensPerSecond = Object.fromEntries(
    [...rates].map(([name, list]) => [
      name,
      { median: round(median(list), 1), all: list.map((r) => round(r, 1)) },
    ]),
  );
  const best = (type) =>
    Math.max(...[...rates].filter(([name]) => name.startsWith(type)).map(([, list]) => median(list)));
  console.log(
    "tokens/s",
    Object.fromEntries([...rates].map(([name, list]) => [name, round(median(list), 1)])),
  );
  const none = median(rates.get("none"));
  fastest = none / best("Q");
  goal("none / node-llama-cpp, same file, its best threads", none / best("Q4_1"), "≥3");
  goal("none / node-llama-cpp, its fastest file and threads", none / best("Q"), "≥2");
  goal("none with AVX2 only / its fastest", median(rates.get("none, AVX2")) / best("Q"), "≥1.2");
}

if (wanted("prefill")) {
  const all = { ours: [], peer: new Map() };
  for (let i = 0; i < rounds; i++) {
    all.ours.push((await ours("prefill", ["--repetitions", 3]))[0].tokensPerSecond);
    for (const { type, threads } of contenders) {
      const rate = (await peer("prefill", type, threads, ["--repetitions", 2]))[0].tokensPerSecond;
      all.peer.set(`${type} ${threads}`, [...(all.peer.get(`${type} ${threads}`) ?? []), rate]);
    }
  }
  report.figures.prefillTokensPerSecond = {
    outrider: round(median(all.ours), 0),
    ...Object.fromEntries([...all.peer].map(([k, v]) => [k, round(median(v), 0)])),
  };
  console.log("prefill tokens/s", report.figures.prefillTokensPerSecond);
  goal(
    "prefill of 512 / its fastest",
    median(all.ours) / Math.max(...[...all.peer.values()].map(median)),
    "≥2",
  );
}

if (wanted("start")) {
  const all = { ours: [], peer: [] };
  for (let i = 0; i < rounds; i++) {
    all.ours.push((await ours("start"))[0].ms.median);
    all.peer.push((await peer("start", "Q4_0", cores))[0].ms.median);
  }
  report.figures.startMs = {
    outrider: round(median(all.ours), 0),
    "node-llama-cpp": round(median(all.peer), 0),
  };
  console.log("process start to first token, ms", report.figures.startMs);
  goal("process start to first token / its", median(all.ours) / median(all.peer), "≤0.5");
}

/** `auto` beside `none` over all prompts, each prompt in both, in turn. */
async function speculation() {
  // Nothing learned from earlier runs: each prompt would know its answer.
  const model = await load(embeddedModel, { learn: false });
  const byCategory = new Map();
  let outside = 0;
  let whole = 0;
  await model.generate("Say something to warm up.", { maxTokens: 32 }).result;
  for (let i = 0; i < prompts.length; i++) {
    const { category, prompt_tokens: tokens } = prompts[i];
    const ms = { none: 0, auto: 0 };
    for (const strategy of i % 2 ? ["none", "auto"] : ["auto", "none"]) {
      const { stats, tokens: output } = await model.generate(tokens, {
        strategy,
        maxTokens: speculationTokens,
      }).result;
      ms[strategy] = stats.decodeMs;
      const entry = byCategory.get(category) ?? { none: 0, auto: 0, tokens: 0, passes: 0 };
      entry[strategy] += stats.decodeMs;
      if (strategy === "auto") {
        entry.tokens += output.length;
        entry.passes += stats.passes;
      } else {
        outside += stats.decodeMs - stats.coreMs;
        whole += stats.decodeMs;
      }
      byCategory.set(category, entry);
    }
  }
  await model.close();
  const all = [...byCategory.values()];
  return {
    overall: sum(all.map((e) => e.none)) / sum(all.map((e) => e.auto)),
    tokensPerPass: sum(all.map((e) => e.tokens)) / sum(all.map((e) => e.passes)),
    outside: outside / whole,
    categories: Object.fromEntries(
      [...byCategory].map(([c, e]) => [
        c,
        { speedup: round(e.none / e.auto), tokensPerPass: round(e.tokens / e.passes) },
      ]),
    ),
  };
}

if (wanted("speculation")) {
  const runs = [];
  for (let i = 0; i < Math.max(1, Math.floor(rounds / 2)); i++) runs.push(await speculation());
  const last = runs.at(-1);
  report.figures.speculation = {
    ...last,
    prompts: prompts.length,
    overall: runs.map((r) => round(r.overall)),
  };
  console.log("auto / none by category", last.categories, "tokens per pass", round(last.tokensPerPass));
  const overall = median(runs.map((r) => r.overall));
  goal(`auto / none over ${prompts.length} prompts, ${speculationTokens} tokens`, overall, "≥1.75");
  if (fastest !== undefined)
    goal("auto / node-llama-cpp, its fastest file and threads (product)", fastest * overall, "≥3.5");
  goal(
    "slowest category, auto / none",
    Math.min(...Object.values(last.categories).map((c) => c.speedup)),
    "≥1",
  );
  goal("outside the core while decoding plainly", median(runs.map((r) => r.outside)), "≤0.05", "");
}

if (wanted("busy")) {
  const busy = spawn(process.execPath, ["-e", "for(;;);"]);
  const loaded = await speculation();
  busy.kill("SIGKILL");
  report.figures.busy = loaded;
  goal("auto / none beside a process that keeps one core busy", loaded.overall, "≥1");
}

if (wanted("memory")) {
  const [{ residentMb }] = await ours("memory");
  report.figures.residentMb = residentMb;
  goal("resident at context 2,048, MB", residentMb, "≤320", " MB");
}

writeFileSync(values.out, `${JSON.stringify(report, null, 1)}\n`);
