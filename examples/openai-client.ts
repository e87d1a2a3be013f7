// The official OpenAI client against Outrider's server: a chat, a stream, and JSON that a schema guarantees.
import OpenAI from "openai";
import { embeddedModel } from "outrider";
import { serve } from "outrider/server";

// From a shell: outrider serve --port 8080
const server = await serve({
  models: [{ name: "smollm2", source: { file: embeddedModel } }],
  port: 0,
  logLevel: "silent",
});
const client = new OpenAI({ baseURL: `http://127.0.0.1:${server.port}/v1`, apiKey: "none" });
const messages = [{ role: "user" as const, content: "Name a colour." }];

const answer = await client.chat.completions.create({
  model: "smollm2",
  messages,
  temperature: 0,
  max_tokens: 20,
});
console.log(answer.choices[0]?.message.content);

const stream = await client.chat.completions.create({
  model: "smollm2",
  messages,
  temperature: 0,
  max_tokens: 20,
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? "");

const person = await client.chat.completions.create({
  model: "smollm2",
  messages: [{ role: "user", content: "Describe Anna, who is 30." }],
  temperature: 0,
  response_format: {
    type: "json_schema",
    json_schema: {
      name: "person",
      schema: {
        type: "object",
        properties: {
          name: { type: "string", maxLength: 20 },
          age: { type: "integer", minimum: 0, maximum: 120 },
        },
        required: ["name", "age"],
      },
    },
  },
});
console.log("\n", JSON.parse(person.choices[0]?.message.content ?? ""));
await server.close();
