// The Vercel AI SDK on a model in this process: text in pieces, an object that fits its schema, an embedding.
import { embed, generateObject, jsonSchema, streamText } from "ai";
import { load } from "outrider";
import { createOutrider } from "outrider/ai-sdk";

await using model = await load();
const outrider = createOutrider({ model }); // or { baseURL: "http://127.0.0.1:8080" }

const { textStream } = streamText({
  model: outrider(),
  prompt: "Why is the sky blue?",
  maxOutputTokens: 40,
  temperature: 0,
});
for await (const text of textStream) process.stdout.write(text);

const { object } = await generateObject({
  model: outrider(),
  prompt: "Describe Anna, who is 30.",
  temperature: 0,
  schema: jsonSchema<{ name: string; age: number }>({
    type: "object",
    properties: {
      name: { type: "string", maxLength: 20 },
      age: { type: "integer", minimum: 0, maximum: 120 },
    },
    required: ["name", "age"],
  }),
});
console.log("\n", object);

const { embedding } = await embed({ model: outrider.embeddingModel(), value: "a small river" });
console.log(`a vector of ${embedding.length} numbers`);
