// JSON that always fits its schema: only tokens that it allows are picked, and what must come is drafted for free.
import { load } from "outrider";

await using model = await load();
const schema = {
  type: "object",
  properties: {
    title: { type: "string", maxLength: 40 },
    year: { type: "integer", minimum: 1900, maximum: 2030 },
    genres: {
      type: "array",
      items: { enum: ["drama", "comedy", "science fiction"] },
      minItems: 1,
      maxItems: 2,
    },
  },
  required: ["title", "year", "genres"],
};
const { text, stats } = await model.generate("Invent a film.", { guide: { json: schema }, maxTokens: 120 })
  .result;
console.log(JSON.parse(text), `${stats.tokens} tokens in ${stats.passes} passes`);
