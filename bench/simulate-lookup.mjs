// Tokens per pass and speed-up of a drafter over recorded texts, with a given cost curve and no model.
//
//   node bench/simulate-lookup.mjs TEXTS.jsonl [--cost 1,1,1.02,…] [--single-ms 3.5]
//
// Each line of TEXTS.jsonl: { "category": string, "prompt_tokens": number[], "greedy": number[] }.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { runnerImport } from "vite";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    // Measured: SmolLM2-135M, 2 cores, AVX-512 VNNI; n = 1 … 8, then linear to 2.4 at 16.
    cost: { type: "string", default: "1,1,1.02,1.07,1.16,1.25,1.29,1.33,1.46,1.6,1.73,1.86,2,2.13,2.27,2.4" },
    "single-ms": { type: "string", default: "3.5" },
  },
});
const curve = values.cost.split(",").map(Number);
const singleMs = Number(values["single-ms"]);
if (positionals.length !== 1) throw new Error("expected one file of texts; see the head of this script");
const texts = readFileSync(positionals[0], "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line));

const load = async (name) =>
  (await runnerImport(new URL(`../src/decoding/${name}.ts`, import.meta.url).pathname)).module;
const { decode } = await load("decode");
const { lookup } = await load("lookup");
const { adaptiveLength, fixedLength } = await load("plan");
const { CostModel } = await load("cost-model");
const { newStats, tokensPerPass, acceptanceRate } = await load("stats");
const { GREEDY } = await load("testing");

/** A sequence that says what was recorded, and token 0 wherever a draft left the record. */
function replay(prompt, truth) {
  const text = [...prompt, ...truth];
  let cached = prompt.slice(0, -1);
  let pending = [];
  return {
    get tokens() {
      return cached;
    },
    context: text.length + 64,
    maxStep: curve.length,
    async step(tokens, { parents }) {
      pending = tokens;
      const depths = [];
      const right = [];
      const picks = tokens.map((token, row) => {
        const parent = parents[row];
        depths.push(parent < 0 ? 0 : depths[parent] + 1);
        const at = cached.length + depths[row];
        right.push((parent < 0 || right[parent]) && text[at] === token);
        return right[row] ? (text[at + 1] ?? 0) : 0;
      });
      return {
        picks: Int32Array.from(picks),
        logprobs: new Float32Array(picks.length),
        topTokens: new Int32Array(0),
        topLogprobs: new Float32Array(0),
        coreMs: singleMs * curve[tokens.length - 1],
      };
    },
    keep(path) {
      cached = [...cached, ...path.map((row) => pending[row])];
    },
  };
}

/** All texts in the file's order; each has a drafter and a planner of its own, as in the library. */
async function simulate(name, openPlanner, now = () => 0) {
  const all = newStats();
  const byCategory = new Map();
  for (const { category, prompt_tokens: prompt, greedy } of texts) {
    const stats = newStats();
    const drafter = lookup();
    const planner = openPlanner();
    const sequence = replay(prompt, greedy);
    for await (const _ of decode(sequence, prompt.at(-1), {
      drafter,
      planner,
      sampling: GREEDY,
      maxTokens: greedy.length,
      endIds: new Set(),
      stats,
      now,
    }));
    if (sequence.tokens.length !== prompt.length + greedy.length - 1)
      throw new Error("the text was not reproduced");
    const group = byCategory.get(category) ?? newStats();
    byCategory.set(category, group);
    for (const sum of [all, group]) {
      for (const key of [
        "passes",
        "tokens",
        "drafted",
        "accepted",
        "padded",
        "coreMs",
        "draftMs",
        "decodeMs",
      ]) {
        sum[key] += stats[key];
      }
    }
  }
  if (name === undefined) return all;
  for (const [category, stats] of [...byCategory, ["all", all]]) {
    console.log(
      JSON.stringify({
        planner: name,
        category,
        tokens: stats.tokens,
        tokensPerPass: round(tokensPerPass(stats)),
        acceptanceRate: round(acceptanceRate(stats)),
        speedup: round((stats.tokens * singleMs) / (stats.coreMs + stats.draftMs)),
      }),
    );
  }
}

const round = (value, digits = 3) => Number(value.toFixed(digits));

const adaptive = () => {
  const costs = new CostModel(curve.length);
  return () => adaptiveLength(costs);
};
await simulate("adaptive", adaptive());
for (const length of [1, 3, 7]) await simulate(`fixed ${length}`, () => fixedLength(length));

// All JavaScript around a pass, this replay's own part included, once it is compiled.
const clock = () => performance.now();
for (let i = 0; i < 5; i++) await simulate(undefined, adaptive(), clock);
const { passes, draftMs, decodeMs } = await simulate(undefined, adaptive(), clock);
console.log(
  JSON.stringify({ draftMsPerPass: round(draftMs / passes, 4), jsMsPerPass: round(decodeMs / passes, 4) }),
);
