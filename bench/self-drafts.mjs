/**
 * The model as its own drafter: what `self` and `layer-parallel` gain over plain decoding, drafting one token, three, or
 * as many as pay ("auto").
 *
 *   node bench/self-drafts.mjs [--model MODEL] [--repetitions 3]
 *
 * All answer the same prompts in turns. Medians over repetitions; every answer is compared with plain decoding's.
 */
import { parseArgs } from "node:util";
import { embeddedModel, load } from "../dist/index.js";
import { newPrompts, round, sum, summary } from "./measurement.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: embeddedModel },
    repetitions: { type: "string", default: "3" },
  },
});

const ways = [{ strategy: "none" }];
for (const strategy of ["self", "layer-parallel"])
  for (const draftLength of [1, 3, undefined]) ways.push({ strategy, draftLength, gains: [], answers: [] });

const prompts = newPrompts(6);
const model = await load(values.model, { learn: false });
for (let repetition = 0; repetition < Number(values.repetitions); repetition++) {
  const ms = ways.map(() => 0);
  for (const prompt of prompts) {
    const texts = [];
    for (const [i, { strategy, draftLength, answers }] of ways.entries()) {
      const { tokens, stats } = await model.generate(prompt, { strategy, draftLength, maxTokens: 80 }).result;
      ms[i] += stats.decodeMs;
      texts.push(tokens.join());
      answers?.push({ ...stats, different: texts[i] !== texts[0] });
    }
  }
  for (const [i, { gains }] of ways.entries()) gains?.push(ms[0] / ms[i]);
}

for (const { strategy, draftLength = "auto", gains, answers } of ways.slice(1)) {
  const total = (key) => sum(answers.map((answer) => Number(answer[key])));
  console.log(
    JSON.stringify({
      bench: "self-drafts",
      strategy,
      draftLength,
      gain: summary(gains),
      tokensPerPass: round(total("tokens") / total("passes")),
      right: round(total("accepted") / total("drafted")),
      answers: answers.length,
      different: total("different"),
    }),
  );
}
await model.close();
