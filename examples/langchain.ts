// LangChain.js against Outrider's server.
import { ChatOpenAI } from "@langchain/openai";
import { embeddedModel } from "outrider";
import { serve } from "outrider/server";

const server = await serve({
  models: [{ name: "smollm2", source: { file: embeddedModel } }],
  port: 0,
  logLevel: "silent",
});
const model = new ChatOpenAI({
  model: "smollm2",
  apiKey: "none",
  temperature: 0,
  maxTokens: 30,
  configuration: { baseURL: `http://127.0.0.1:${server.port}/v1` },
});
const { content } = await model.invoke([
  ["system", "You answer in one short sentence."],
  ["human", "What is a river?"],
]);
console.log(content);
for await (const chunk of await model.stream("Count to three.")) process.stdout.write(String(chunk.content));
console.log();
await server.close();
