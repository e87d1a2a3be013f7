/**
 * Makes the file with which the embedded model's drafts start: what it says often, learned from its own answers to
 * prompts that are in no benchmark.
 *
 *   node scripts/learn-ngrams.mjs [--prompts 4359] [--record FILE] [--out models/SmolLM2-135M-Instruct.Q4_1.learned]
 *
 * --record: keeps the answers, and takes those from there that it has already. Counts come from all of them, what guesses
 * are worth from the last fifth, drafted with the counts of the others.
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { greedy, recordedSequence } from "../bench/recorded-sequence.mjs";
import { CostModel } from "../dist/decoding/cost-model.js";
import { decode } from "../dist/decoding/decode.js";
import { DraftMemory } from "../dist/decoding/memory.js";
import { ngrams } from "../dist/decoding/ngrams.js";
import { openStrategy } from "../dist/decoding/strategies.js";
import { embeddedModel, load } from "../dist/index.js";
import { trainingPrompt } from "./training-prompts.mjs";

const { values } = parseArgs({
  options: {
    prompts: { type: "string", default: "4359" },
    record: { type: "string" },
    out: { type: "string", default: "models/SmolLM2-135M-Instruct.Q4_1.learned" },
    least: { type: "string", default: "2" },
  },
});
const MAX_TOKENS = 160;
const PASSAGE_TOKENS = 100;
const MOST_PASSAGES = 400;
const VOCAB = 49152;

async function answers() {
  const texts =
    values.record && existsSync(values.record)
      ? readFileSync(values.record, "utf8")
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line))
      : [];
  if (texts.length >= Number(values.prompts)) return texts;
  const model = await load(embeddedModel, { learn: false });
  const passages = [];
  const collect = ({ tokens }) => {
    const answer = model.detokenize(tokens);
    if (tokens.length >= PASSAGE_TOKENS && passages.length < MOST_PASSAGES)
      passages.push(answer.slice(0, answer.lastIndexOf(".") + 1));
  };
  for (const text of texts) collect(text);
  const seen = new Set(texts.map(({ prompt }) => prompt.join()));
  for (let i = texts.length; texts.length < Number(values.prompts); i++) {
    const prompt = await model.promptTokens(trainingPrompt(i, passages));
    if (seen.has(prompt.join())) continue;
    seen.add(prompt.join());
    const text = { prompt, tokens: (await model.generate(prompt, { maxTokens: MAX_TOKENS }).result).tokens };
    collect(text);
    texts.push(text);
    if (values.record) appendFileSync(values.record, `${JSON.stringify(text)}\n`);
  }
  await model.close();
  return texts;
}

/** A memory of these texts without the n-grams that occur only once. */
function count(texts) {
  const counted = new DraftMemory(1 << 21);
  const predictor = ngrams(counted.ngrams);
  for (const { prompt, tokens } of texts) {
    predictor.reset(prompt);
    predictor.accept(tokens);
  }
  const memory = new DraftMemory();
  memory.ngrams.load(counted.ngrams.save(Number(values.least)), VOCAB);
  return memory;
}

const texts = await answers();
const held = Math.floor(0.8 * texts.length);
const trial = count(texts.slice(0, held));
const costs = new CostModel(64);
for (const strategy of ["auto", "ngram", "lookup", "recycle"])
  for (const text of texts.slice(held)) {
    const options = { sampling: greedy, maxTokens: text.tokens.length, endIds: new Set() };
    const sequence = recordedSequence(text, (n) => 1 + 0.06 * n);
    const open = openStrategy(strategy, { costs, memory: trial });
    for await (const step of decode(sequence, text.prompt.at(-1), { ...open, ...options })) void step;
  }
const final = count(texts);
final.adopt(trial);
const bytes = await final.save(1, 11);
writeFileSync(values.out, bytes);
console.log(
  `${texts.length} answers, ${texts.reduce((n, t) => n + t.tokens.length, 0)} tokens, ${bytes.length} bytes`,
);
