/**
 * The model as its own drafter: what `self` and `layer-parallel` gain over plain decoding, drafting one token, three, or
 * as many as pay ("auto").
 *
 *   node bench/self-drafts.mjs [--model MODEL] [--repetitions 3]
 *
 * All answer the same prompts, in turns that begin with another each time. The gain is a median over repetitions, the rest
 * counts all answers; each is compared with plain decoding's.
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

const model = await load(values.model, { learn: false });
const answer = async (prompt, { strategy, draftLength }) =>
  await model.generate(prompt, { strategy, draftLength, maxTokens: 80 }).result;
for (const way of ways) await answer("Warm up.", way);
const prompts = newPrompts(6);
let turn = 0;
for (let repetition = 0; repetition < Number(values.repetitions); repetition++) {
  const ms = ways.map(() => 0);
  for (const prompt of prompts) {
    const results = [];
    turn++;
    for (let n = 0; n < ways.length; n++) {
      const i = (n + turn) % ways.length;
      results[i] = await answer(prompt, ways[i]);
      ms[i] += results[i].stats.decodeMs;
    }
    const texts = results.map(({ tokens }) => tokens.join());
    for (const [i, { answers }] of ways.entries())
      answers?.push({ ...results[i].stats, different: texts[i] !== texts[0] });
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
