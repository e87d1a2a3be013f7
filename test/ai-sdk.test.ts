import { embed, generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createOutrider } from "../src/ai-sdk/index.js";
import { load, type Model } from "../src/index.js";
import { type ServerProcess, startServer } from "./support/server.js";

let model: Model;
let server: ServerProcess;
beforeAll(async () => {
  model = await load();
  server = await startServer([]);
}, 60_000);
afterAll(async () => {
  await model.close();
  await server[Symbol.asyncDispose]();
});

const weather = tool({
  description: "The weather of a city",
  inputSchema: jsonSchema<{ city: string }>({
    type: "object",
    properties: { city: { type: "string", maxLength: 20 } },
    required: ["city"],
  }),
  execute: async ({ city }) => ({ city, sky: "clear" }),
});
const person = jsonSchema<{ name: string; age: number }>({
  type: "object",
  properties: { name: { type: "string", maxLength: 12 }, age: { type: "integer", minimum: 0, maximum: 120 } },
  required: ["name", "age"],
});

describe.each(["in this process", "over HTTP"] as const)("%s", (where) => {
  const provider = () =>
    where === "in this process" ? createOutrider({ model }) : createOutrider({ baseURL: server.url });
  const settings = { maxOutputTokens: 40, temperature: 0 } as const;

  test("generateText gives what the library gives, and says how", async () => {
    const expected = await model.generate([{ role: "user", content: "Say hello." }], { maxTokens: 40 })
      .result;
    const result = await generateText({ model: provider()(), prompt: "Say hello.", ...settings });
    expect(result.text).toBe(expected.text);
    expect(result.usage.outputTokens).toBe(expected.tokens.length);
    expect(result.usage.inputTokens).toBe(expected.promptTokens.length);
    expect(result.providerMetadata?.outrider).toMatchObject({ strategy: "auto" });
  });

  test("streamText gives the same text in pieces", async () => {
    const whole = await generateText({ model: provider()(), prompt: "Name three colours.", ...settings });
    const stream = streamText({ model: provider()(), prompt: "Name three colours.", ...settings });
    const pieces: string[] = [];
    for await (const piece of stream.textStream) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(3);
    expect(pieces.join("")).toBe(whole.text);
    expect(await stream.finishReason).toBe(whole.finishReason);
  });

  test("an abort ends the stream", async () => {
    const stop = new AbortController();
    const stream = streamText({
      model: provider()(),
      prompt: "Count to a thousand.",
      abortSignal: stop.signal,
      onError: () => undefined,
    });
    let pieces = 0;
    for await (const part of stream.fullStream) {
      if (part.type === "text-delta" && ++pieces === 3) stop.abort();
    }
    expect(pieces).toBeLessThan(20);
  });

  test("generateObject gives what the schema says", async () => {
    const { object } = await generateObject({
      model: provider()(),
      schema: person,
      prompt: "Describe Anna, 30.",
      temperature: 0,
    });
    expect(typeof object.name).toBe("string");
    expect(object.age).toBeGreaterThanOrEqual(0);
  });

  test("a tool that must be called is called, and its result goes back to the model", async () => {
    const result = await generateText({
      model: provider()(),
      prompt: "What is the weather in Paris?",
      tools: { weather },
      toolChoice: "required",
      stopWhen: stepCountIs(1),
      temperature: 0,
      maxOutputTokens: 60,
    });
    expect(result.finishReason).toBe("tool-calls");
    expect(result.toolCalls[0]?.toolName).toBe("weather");
    expect(result.toolResults[0]?.output).toMatchObject({ sky: "clear" });
  });

  test("embed gives vectors of length 1", async () => {
    const { embedding } = await embed({ model: provider().embeddingModel(), value: "a small river" });
    expect(Math.hypot(...embedding)).toBeCloseTo(1, 4);
    expect(embedding).toHaveLength(576);
  });

  test("what these models cannot read is refused", async () => {
    await expect(
      generateText({
        model: provider()(),
        messages: [
          {
            role: "user",
            content: [{ type: "image", image: new Uint8Array([1, 2, 3]), mediaType: "image/png" }],
          },
        ],
        maxRetries: 0,
      }),
    ).rejects.toThrow(/text only/);
  });
});
