/**
 * What the n-gram cache brings: the same prompts with a new cache folder, after other prompts of the same kinds, and again.
 *
 *   node bench/learning.mjs [--prompts SPEC-BENCH.jsonl] [--limit 6] [--max-tokens 256]
 *
 * Without a file the prompts are similar ones: the same requests about other things. Of each kind or category `limit`
 * prompts are answered in every run, as many others between the first and the second. Each run is a load of its own; the
 * table that ships with the embedded model is there from the start. Tokens a pass depend little on the machine's load,
 * seconds much.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { embeddedModel, load } from "../dist/index.js";
import { round } from "./measurement.mjs";
import { similarPrompts } from "./similar-prompts.mjs";

const { values } = parseArgs({
  options: {
    prompts: { type: "string" },
    limit: { type: "string", default: "6" },
    "max-tokens": { type: "string", default: "256" },
  },
});
const limit = Number(values.limit);
const LONGEST_PROMPT = 6000;
const cache = mkdtempSync(path.join(tmpdir(), "outrider-learning-"));
process.env.OUTRIDER_CACHE = cache;

function byCategory(file) {
  const categories = new Map();
  for (const line of readFileSync(file, "utf8").trim().split("\n")) {
    const { category = "all", turns, prompt } = JSON.parse(line);
    const text = turns?.[0] ?? prompt;
    if (text.length > LONGEST_PROMPT) continue;
    categories.set(category, [...(categories.get(category) ?? []), text]);
  }
  return [...categories.values()];
}
const kinds = values.prompts ? byCategory(values.prompts) : similarPrompts;
const measured = kinds.flatMap((list) => list.slice(0, limit));
const others = kinds.flatMap((list) => list.slice(limit, 2 * limit));

async function run(prompts) {
  const model = await load(embeddedModel);
  const total = { tokens: 0, passes: 0, ms: 0 };
  for (const prompt of prompts) {
    const { stats } = await model.generate(prompt, { maxTokens: Number(values["max-tokens"]) }).result;
    total.tokens += stats.tokens;
    total.passes += stats.passes;
    total.ms += stats.decodeMs;
  }
  await model.close();
  return total;
}

const report = (name, { tokens, passes, ms }) =>
  console.log(
    JSON.stringify({
      bench: "learning",
      run: name,
      prompts: measured.length,
      tokensPerPass: round(tokens / passes),
      tokensPerSecond: round((1000 * tokens) / ms, 1),
    }),
  );
report("first", await run(measured));
rmSync(path.join(cache, "learned"), { recursive: true, force: true });
await run(others);
report("after others of the same kinds", await run(measured));
report("again", await run(measured));
rmSync(cache, { recursive: true });
