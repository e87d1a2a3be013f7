// The official client against the built server, as a process.
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ServerProcess, startServer } from "./support/server.js";

let server: ServerProcess;
let client: OpenAI;
beforeAll(async () => {
  server = await startServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused", maxRetries: 0 });
});
afterAll(() => server?.[Symbol.asyncDispose]());

const model = "smollm2-135m-instruct";
const ask = {
  model,
  messages: [{ role: "user" as const, content: "Name three colours." }],
  temperature: 0,
  max_tokens: 24,
};

describe("chat completions", () => {
  test("an answer, with usage, timings and what drafting brought", async () => {
    const answer = await client.chat.completions.create(ask);
    expect(answer.choices[0]!.message.content).toMatch(/red/i);
    expect(answer.choices[0]!.finish_reason).toBe("length");
    expect(answer.usage).toMatchObject({ prompt_tokens: 34, completion_tokens: 24, total_tokens: 58 });
    const { timings, outrider } = answer as unknown as Record<string, Record<string, number>>;
    expect(timings).toMatchObject({ predicted_n: 24 });
    expect(outrider!.passes! + outrider!.accepted!).toBe(24);
  });

  test("streamed it is the same text", async () => {
    const whole = await client.chat.completions.create(ask);
    const stream = await client.chat.completions.create({
      ...ask,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let usage: unknown;
    let finish: string | null = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    expect(text).toBe(whole.choices[0]!.message.content);
    expect(finish).toBe("length");
    expect(usage).toMatchObject({ completion_tokens: 24 });
  });
});

test("models", async () => {
  const ids = [];
  for await (const { id } of client.models.list()) ids.push(id);
  expect(ids).toEqual([model]);
});

test("an error is the client's own class, with code and param", async () => {
  const wrong = client.chat.completions.create({ ...ask, temperature: 7 });
  await expect(wrong).rejects.toBeInstanceOf(OpenAI.BadRequestError);
  await expect(wrong).rejects.toMatchObject({ code: "ERR_BAD_REQUEST", param: "temperature" });
});
