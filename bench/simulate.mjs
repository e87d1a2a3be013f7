/**
 * Decodes recorded texts again without the model and reckons what the passes would have cost: deterministic, a few
 * seconds, no quiet machine needed. For choosing between drafters.
 *
 *   node bench/record.mjs --prompts PROMPTS.jsonl --out RECORD.jsonl
 *   node bench/simulate.mjs --record RECORD.jsonl [--strategy auto] [--learned models/NAME.learned] [--ms 1.87,1.94,…] [--past 1.05,0.2] [--outside 0.12]
 *
 * --ms: the cost of passes over 1, 2, 3 … tokens without a past, beyond the last one as the last step; --past: the
 * microseconds that each position of the past adds to a pass and to each of its tokens; --outside: milliseconds a pass
 * outside the core. Rows of rejected drafts are not recorded, so what drafters learn from them is missing; with --engine
 * the embedded model runs for real and every row is there, only the costs are reckoned. --limit: the first n of each
 * category.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { CostModel, pastCost } from "../dist/decoding/cost-model.js";
import { decode } from "../dist/decoding/decode.js";
import { DraftMemory } from "../dist/decoding/memory.js";
import { newStats } from "../dist/decoding/stats.js";
import { openStrategy } from "../dist/decoding/strategies.js";
import { Engine } from "../dist/engine/engine.js";
import { embeddedModel } from "../dist/index.js";
import { openGguf } from "../dist/weights/gguf.js";
import { required } from "./measurement.mjs";
import { greedy, recordedSequence } from "./recorded-sequence.mjs";

const { values } = parseArgs({
  options: {
    record: { type: "string" },
    strategy: { type: "string", default: "auto" },
    learned: { type: "string" },
    ms: { type: "string", default: "1.87,1.94,2,2.06,2.2,2.37,2.58,2.73,3.1,3.47" },
    past: { type: "string", default: "1.05,0.2" },
    outside: { type: "string", default: "0.12" },
    engine: { type: "boolean", default: false },
    limit: { type: "string", default: "1000000" },
  },
});
required(values, "record");
const ms = values.ms.split(",").map(Number);
const outside = Number(values.outside);
const [read, attend] = values.past.split(",").map((us) => Number(us) / 1000);
const cost = (n, past) =>
  (ms[n - 1] ?? ms.at(-1) + (n - ms.length) * (ms.at(-1) - ms.at(-2))) + past * (read + n * attend);
const costs = new CostModel(64, pastCost(23040, 34560, 98e6));
const memory = new DraftMemory();
if (values.learned && !(await memory.load(readFileSync(values.learned), 49152)))
  throw new Error(`${values.learned} is not what was learned`);
const engine = values.engine ? await openEngine() : undefined;
const groups = new Map();
const taken = new Map();
const chat = ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"];
let clock = 0;
for (const line of readFileSync(values.record, "utf8").trim().split("\n")) {
  const record = JSON.parse(line);
  const index = taken.get(record.category) ?? 0;
  taken.set(record.category, index + 1);
  if (index >= Number(values.limit)) continue;
  const strategy = openStrategy(values.strategy, { costs, memory });
  const stats = newStats();
  const sequence = engine ? await engineSequence(record) : recordedSequence(record, cost);
  const began = performance.now();
  const options = {
    ...strategy,
    sampling: greedy,
    maxTokens: record.tokens.length,
    endIds: new Set(),
    stats,
    now: () => 0,
  };
  for await (const step of decode(sequence, record.prompt.at(-1), options)) void step;
  sequence[Symbol.dispose]?.();
  clock += performance.now() - began;
  for (const name of [chat.includes(record.category) ? "conversation" : record.category, "all"]) {
    const group = groups.get(name) ?? { plain: 0, drafted: 0, tokens: 0, passes: 0, rows: 0 };
    for (let i = 0; i < stats.tokens; i++) group.plain += cost(1, record.prompt.length + i) + outside;
    group.drafted += stats.coreMs + stats.passes * outside;
    group.tokens += stats.tokens;
    group.passes += stats.passes;
    group.rows += stats.passes + stats.drafted;
    groups.set(name, group);
  }
}
await engine?.[Symbol.asyncDispose]();
const total = groups.get("all");
for (const [name, g] of groups)
  console.log(
    `${name.padEnd(16)} ${(g.plain / g.drafted).toFixed(3)}×  ${(g.tokens / g.passes).toFixed(2)} tokens and ${(g.rows / g.passes).toFixed(1)} rows a pass`,
  );
console.log(`${((1000 * clock) / total.passes).toFixed(0)} µs of our own a pass`);

async function openEngine() {
  const file = await openGguf(embeddedModel);
  try {
    return await Engine.load(file);
  } finally {
    await file[Symbol.asyncDispose]();
  }
}

/** The model itself; a pass costs what was reckoned. */
async function engineSequence({ prompt }) {
  const sequence = engine.open(prompt);
  await sequence.prefill(prompt.slice(sequence.tokens.length, -1));
  const step = sequence.step.bind(sequence);
  sequence.step = async (tokens, options) => {
    const coreMs = cost(tokens.length, sequence.tokens.length);
    return { ...(await step(tokens, options)), coreMs, shared: undefined };
  };
  return sequence;
}
