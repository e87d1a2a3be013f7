// Speculation never changes a bit: the same tokens and log-probabilities with every strategy, sampled too.
import assert from "node:assert/strict";
import { load } from "outrider";

await using model = await load();
const prompt = "Repeat this list twice: apples, pears, plums, cherries.";
const options = { maxTokens: 60, temperature: 0.8, topP: 0.95, seed: 7 };
const plain = await model.generate(prompt, { ...options, strategy: "none" }).result;
const drafted = await model.generate(prompt, { ...options, strategy: "auto" }).result;
assert.deepEqual(drafted.tokens, plain.tokens);
assert.deepEqual(drafted.logprobs, plain.logprobs);
console.log(
  `identical: ${plain.tokens.length} tokens in ${plain.stats.passes} and in ${drafted.stats.passes} passes`,
);
