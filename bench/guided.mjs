/**
 * Guided JSON: how much faster `auto` is than one token at a time when a schema bounds the answer. What must come is
 * drafted for nothing, so structured output should gain most.
 *
 *   node bench/guided.mjs [--model MODEL] [--repetitions 3]
 *
 * Both strategies answer each prompt in turns, each with a model of its own (what one learned would speed the other up)
 * that is loaded anew for every repetition. Medians over repetitions, and beside them the ratio of each answer's quicker
 * times, for a machine that does other things too; every pair of answers is compared.
 */
import { parseArgs } from "node:util";
import { embeddedModel, load } from "../dist/index.js";
import { round, summary } from "./measurement.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: embeddedModel },
    repetitions: { type: "string", default: "3" },
  },
});

const string = (maxLength) => ({ type: "string", maxLength });
const object = (properties) => ({ type: "object", properties, required: Object.keys(properties) });
const list = (items, maxItems) => ({ type: "array", items, minItems: 1, maxItems });
const integer = (minimum, maximum) => ({ type: "integer", minimum, maximum });

const tasks = [
  [
    "Describe a person named Anna who is 30 and lives in Rome.",
    object({
      name: string(20),
      age: integer(0, 120),
      city: string(20),
      email: string(40),
      married: { type: "boolean" },
    }),
  ],
  [
    "Invent a film.",
    object({
      title: string(40),
      year: integer(1900, 2030),
      director: string(30),
      genres: list({ enum: ["drama", "comedy", "science fiction", "crime"] }, 3),
      rating: integer(1, 10),
    }),
  ],
  [
    "Which way does the review lean? 'The food was cold but the staff were kind.'",
    object({
      sentiment: { enum: ["positive", "negative", "mixed"] },
      confidence: integer(0, 100),
      reasons: list(string(60), 3),
    }),
  ],
  [
    "Extract the order: two coffees and a cake for table 7, to be paid by card.",
    object({
      table_number: integer(1, 99),
      items: list(object({ product_name: string(20), quantity: integer(1, 20) }), 4),
      payment_method: { enum: ["cash", "card", "invoice"] },
    }),
  ],
  [
    "Plan a day in Paris in three steps.",
    object({
      destination: string(20),
      activities: list(
        object({
          start_time: { type: "string", pattern: "^(0[6-9]|1[0-9]|2[0-2]):(00|30)$" },
          activity_name: string(40),
          estimated_cost: integer(0, 500),
        }),
        3,
      ),
    }),
  ],
  [
    "Classify the ticket: 'I cannot log in since the update.'",
    object({
      category: { enum: ["login", "billing", "crash", "other"] },
      priority: { enum: ["low", "medium", "high"] },
      needs_human_review: { type: "boolean" },
      suggested_reply: string(80),
    }),
  ],
  [
    "Call the weather tool for Berlin, in Celsius.",
    object({
      tool_name: { const: "get_current_weather" },
      arguments: object({
        location: string(30),
        temperature_unit: { enum: ["celsius", "fahrenheit"] },
        include_forecast: { type: "boolean" },
      }),
    }),
  ],
  [
    "Describe a server's configuration.",
    object({
      host_name: string(30),
      port_number: integer(1, 65535),
      enable_logging: { type: "boolean" },
      log_level: { enum: ["debug", "info", "warning", "error"] },
      allowed_origins: list(string(30), 3),
      request_timeout_seconds: integer(1, 600),
    }),
  ],
];

/** Other questions for the same schemas: what a server sees, whose schemas come again. */
const others = [
  "Describe a person named Peter who is 52 and lives in Oslo.",
  "Invent a book.",
  "Which way does the review lean? 'Fast delivery, but the box was torn.'",
  "Extract the order: one tea and three rolls for table 2, to be paid in cash.",
  "Plan a day in Tokyo in three steps.",
  "Classify the ticket: 'I was charged twice for the same month.'",
  "Call the weather tool for Madrid, in Fahrenheit.",
  "Describe a mail server's configuration.",
];

const strategies = ["none", "auto"];
const newTotals = () => ({
  ratios: [],
  ms: { none: [], auto: [] },
  tokens: 0,
  passes: 0,
  different: 0,
  answers: 0,
});
const groups = { "new schemas": newTotals(), "schemas seen before": newTotals() };
for (let repetition = 0; repetition < Number(values.repetitions); repetition++) {
  const models = new Map();
  for (const strategy of strategies) models.set(strategy, await load(values.model, { learn: false }));
  const run = async (strategy, prompt, schema) =>
    await models.get(strategy).generate(prompt, { strategy, guide: { json: schema }, maxTokens: 200 }).result;
  for (const strategy of strategies) await run(strategy, "Warm up.", object({ word: string(10) }));
  for (const [name, totals] of Object.entries(groups)) {
    const ms = { none: 0, auto: 0 };
    for (const [i, [prompt, schema]] of tasks.entries()) {
      const answers = {};
      for (const strategy of i % 2 ? strategies : strategies.toReversed())
        answers[strategy] = await run(strategy, name === "new schemas" ? prompt : others[i], schema);
      for (const strategy of strategies) {
        ms[strategy] += answers[strategy].stats.decodeMs;
        totals.ms[strategy][i] = [...(totals.ms[strategy][i] ?? []), answers[strategy].stats.decodeMs];
      }
      totals.tokens += answers.auto.stats.tokens;
      totals.passes += answers.auto.stats.passes;
      totals.answers++;
      if (answers.auto.tokens.join() !== answers.none.tokens.join()) totals.different++;
    }
    totals.ratios.push(ms.none / ms.auto);
  }
  for (const model of models.values()) await model.close();
}
/** The sum of each answer's time at its lower quartile: what it takes where nothing else disturbs it. */
const undisturbed = (answers) =>
  answers.reduce((sum, ms) => sum + ms.toSorted((a, b) => a - b)[Math.floor((ms.length - 1) / 4)], 0);

for (const [name, { ratios, ms, tokens, passes, answers, different }] of Object.entries(groups))
  console.log(
    JSON.stringify({
      bench: "guided-json",
      of: name,
      tasks: tasks.length,
      repetitions: ratios.length,
      speedup: summary(ratios),
      undisturbed: round(undisturbed(ms.none) / undisturbed(ms.auto)),
      tokensPerPass: round(tokens / passes),
      answers,
      different,
      goal: "≥2",
    }),
  );
