/**
 * Records what a model says, for bench/simulate.mjs and scripts/learn-ngrams.mjs: greedy answers with the best tokens at every position.
 *
 *   node bench/record.mjs --prompts PROMPTS.jsonl --out RECORD.jsonl [--max-tokens 128] [--top 8] [--limit 1000]
 *
 * Prompts are lines with `turns` (the first one counts) or `prompt`, perhaps `category` and `id`. A line of the record:
 * {id, category, prompt: token ids, tokens: token ids, top: [[token, log-probability] × top] for each token}.
 */
import { createWriteStream, readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { embeddedModel, load } from "../dist/index.js";
import { required } from "./measurement.mjs";

const LONGEST_PROMPT = 1800;

const { values } = parseArgs({
  options: {
    model: { type: "string", default: embeddedModel },
    prompts: { type: "string" },
    out: { type: "string" },
    "max-tokens": { type: "string", default: "128" },
    top: { type: "string", default: "8" },
    limit: { type: "string", default: "1000000" },
  },
});
required(values, "prompts", "out");
const top = Number(values.top);
const out = createWriteStream(values.out);
const items = readFileSync(values.prompts, "utf8").trim().split("\n").slice(0, Number(values.limit));
const model = await load(values.model, { learn: false });
for (const [i, line] of items.entries()) {
  const item = JSON.parse(line);
  const prompt = await model.promptTokens(item.turns?.[0] ?? item.prompt);
  if (prompt.length > LONGEST_PROMPT) continue;
  const { tokens, topTokens } = await model.generate(prompt, { maxTokens: Number(values["max-tokens"]), top })
    .result;
  const ranked = topTokens.map((list) => list.map(([id, logprob]) => [id, Number(logprob.toFixed(3))]));
  out.write(
    `${JSON.stringify({ id: item.id ?? item.question_id ?? i, category: item.category ?? "all", prompt, tokens, top: ranked })}\n`,
  );
}
out.end();
await model.close();
