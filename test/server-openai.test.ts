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

describe("embeddings", () => {
  const cosine = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

  test("vectors of length 1, alike for texts that are", async () => {
    const input = [
      "The cat sleeps on the sofa.",
      "A cat is sleeping on a couch.",
      "Interest rates rose by 2 %.",
    ];
    // The client asks for base64 and decodes it.
    const { data, usage } = await client.embeddings.create({ model, input });
    const [cat, couch, rates] = data.map(({ embedding }) => embedding) as [number[], number[], number[]];
    expect(cat).toHaveLength(576);
    expect(cosine(cat, cat)).toBeCloseTo(1, 5);
    expect(cosine(cat, couch)).toBeGreaterThan(cosine(cat, rates));
    expect(usage.prompt_tokens).toBeGreaterThan(20);
    const asNumbers = await client.embeddings.create({ model, input: input[0]!, encoding_format: "float" });
    expect(asNumbers.data[0]!.embedding).toEqual(cat);
  });

  test("the same bits whatever runs beside", async () => {
    const input = "The same text, over and over. ".repeat(30);
    const alone = await client.embeddings.create({ model, input });
    const [beside] = await Promise.all([
      client.embeddings.create({ model, input }),
      client.chat.completions.create(ask),
      client.embeddings.create({ model, input: "another" }),
    ]);
    expect(beside.data).toEqual(alone.data);
  });
});

test("responses, whole and streamed", async () => {
  const request = { model, input: "Name three colours.", temperature: 0, max_output_tokens: 16 };
  const whole = await client.responses.create(request);
  expect(whole.output_text).toMatch(/red/i);
  expect(whole).toMatchObject({ status: "incomplete", incomplete_details: { reason: "max_output_tokens" } });
  let text = "";
  const types = new Set<string>();
  for await (const event of await client.responses.create({ ...request, stream: true })) {
    types.add(event.type);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  expect(text).toBe(whole.output_text);
  expect([...types].at(0)).toBe("response.created");
  expect([...types].at(-1)).toBe("response.incomplete");
});

describe("tools and formats", () => {
  const parameters = {
    type: "object",
    properties: { city: { type: "string", maxLength: 12 }, unit: { enum: ["celsius", "fahrenheit"] } },
    required: ["city", "unit"],
    additionalProperties: false,
  };
  const tools = [
    { type: "function" as const, function: { name: "get_weather", description: "The weather.", parameters } },
    {
      type: "function" as const,
      function: { name: "get_time", parameters: { type: "object", properties: {} } },
    },
  ];
  const request = {
    model,
    messages: [{ role: "user" as const, content: "How warm is it in Paris? Use celsius." }],
    temperature: 0,
    max_tokens: 80,
    tools,
  };

  test.each(["none", "auto"])(
    "a call that is asked for is one, by its schema, with strategy %s",
    async (strategy) => {
      const answer = await client.chat.completions.create({
        ...request,
        tool_choice: { type: "function", function: { name: "get_weather" } },
        outrider: { strategy },
      } as typeof request);
      const [call] = answer.choices[0]!.message.tool_calls!;
      expect(answer.choices[0]!.finish_reason).toBe("tool_calls");
      expect(answer.choices[0]!.message.content).toBeNull();
      expect(call).toMatchObject({ type: "function", function: { name: "get_weather" } });
      const args = JSON.parse((call as { function: { arguments: string } }).function.arguments);
      expect(Object.keys(args).sort()).toEqual(["city", "unit"]);
      expect(["celsius", "fahrenheit"]).toContain(args.unit);
    },
  );

  test("streamed it is the same call", async () => {
    const required = { ...request, tool_choice: "required" as const };
    const whole = await client.chat.completions.create(required);
    const stream = client.chat.completions.stream(required);
    const { tool_calls, content } = (await stream.finalChatCompletion()).choices[0]!.message;
    const called = (call: object | undefined) =>
      (call as { function: { name: string; arguments: string } }).function;
    const { name, arguments: args } = called(whole.choices[0]!.message.tool_calls![0]);
    expect(called(tool_calls![0])).toMatchObject({ name, arguments: args });
    expect(content).toBeNull();
  });

  test("a conversation with calls and their results goes on", async () => {
    const answer = await client.chat.completions.create({
      ...request,
      messages: [
        ...request.messages,
        {
          role: "assistant",
          content: null,
          tool_calls: [
            {
              id: "call00001",
              type: "function",
              function: { name: "get_weather", arguments: '{"city":"Paris"}' },
            },
          ],
        },
        { role: "tool", tool_call_id: "call00001", content: "21" },
      ],
      max_tokens: 16,
    });
    expect(answer.usage!.completion_tokens).toBeGreaterThan(0);
  });

  test("JSON by a schema", async () => {
    const schema = {
      type: "object",
      properties: {
        colours: { type: "array", items: { enum: ["red", "green", "blue"] }, minItems: 2, maxItems: 3 },
      },
      required: ["colours"],
      additionalProperties: false,
    };
    const answer = await client.chat.completions.create({
      ...ask,
      max_tokens: 60,
      response_format: { type: "json_schema", json_schema: { name: "colours", schema, strict: true } },
    });
    const { colours } = JSON.parse(answer.choices[0]!.message.content!);
    expect(colours.length).toBeGreaterThanOrEqual(2);
    for (const colour of colours) expect(["red", "green", "blue"]).toContain(colour);
    const any = await client.chat.completions.create({
      ...ask,
      max_tokens: 200,
      response_format: { type: "json_object" },
    });
    if (any.choices[0]!.finish_reason === "stop")
      expect(JSON.parse(any.choices[0]!.message.content!)).toBeTypeOf("object");
  });

  const date = "(19|20)\\d\\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])";
  const sum = 'root ::= number (" " [-+*/] " " number)+\nnumber ::= [1-9] [0-9]{0,2}';
  const guided: [string, object, RegExp][] = [
    ["vLLM's structured_outputs", { structured_outputs: { regex: date } }, new RegExp(`^${date}$`)],
    ["its grammar", { structured_outputs: { grammar: sum } }, /^[1-9]\d{0,2}( [-+*/] [1-9]\d{0,2})+$/],
    ["its choice", { structured_outputs: { choice: ['"yes"\\\n', "no\t"] } }, /^("yes"\\\n|no\t)$/],
    ["its json", { structured_outputs: { json: { enum: ["red", "blue"] } } }, /^"(red|blue)"$/],
    ["vLLM's older fields", { guided_regex: date }, new RegExp(`^${date}$`)],
    ["guided_choice", { guided_choice: ["red", "blue"] }, /^(red|blue)$/],
    ["guided_json", { guided_json: { enum: [1, 2] } }, /^[12]$/],
    ["guided_grammar", { guided_grammar: 'root ::= "a" "b"*' }, /^ab*$/],
    ["llama.cpp's grammar", { grammar: 'root ::= [0-9]{3} "!"' }, /^\d{3}!$/],
    ["llama.cpp's json_schema", { json_schema: { type: "boolean" } }, /^(true|false)$/],
  ];

  test.each(guided)("%s: chats and completions, whatever the strategy", async (_, fields, expected) => {
    const texts = new Set<string>();
    for (const strategy of ["none", "auto"]) {
      const request = { ...ask, max_tokens: 60, outrider: { strategy }, ...fields };
      const { choices } = await client.chat.completions.create(request);
      if (choices[0]!.finish_reason === "stop") expect(choices[0]!.message.content).toMatch(expected);
      texts.add(choices[0]!.message.content!);
    }
    expect(texts.size).toBe(1);
    const completion = await client.completions.create({
      ...{ model, prompt: "The answer is", max_tokens: 60, temperature: 1, seed: 3 },
      ...fields,
    });
    if (completion.choices[0]!.finish_reason === "stop")
      expect(completion.choices[0]!.text).toMatch(expected);
  });

  test("a pattern guides responses, streams and several answers alike", async () => {
    const regex = "(red|green|blue)(, (red|green|blue)){2}";
    const answer = await client.responses.create({
      ...{ model, input: "Name three colours.", temperature: 0 },
      ...{ guided_regex: regex },
    });
    expect(answer.output_text).toMatch(new RegExp(`^${regex}$`));
    const request = { ...ask, temperature: 1, seed: 1, n: 3, structured_outputs: { regex } };
    const whole = await client.chat.completions.create(request);
    const texts = ["", "", ""];
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true }))
      for (const { index, delta } of chunk.choices) texts[index] += delta.content ?? "";
    expect(texts).toEqual(whole.choices.map(({ message }) => message.content));
    for (const text of texts) expect(text).toMatch(new RegExp(`^${regex}$`));
  });

  test("several calls where several are allowed, one where not; streamed the same ones", async () => {
    const city = (name: string) => ({
      type: "function" as const,
      function: { name, parameters: { type: "object", properties: { city: { enum: ["Paris", "Rome"] } } } },
    });
    const required = {
      ...request,
      messages: [
        { role: "user" as const, content: "How warm is it in Paris and in Rome, and what time is it there?" },
      ],
      tools: [city("get_weather"), city("get_time")],
      tool_choice: "required" as const,
      max_tokens: 800,
      temperature: 0,
    };
    const parsed = (calls: readonly object[] | undefined) =>
      (calls ?? []).map((call) => (call as { function: { name: string; arguments: string } }).function);
    // A list that the model would rather not end is the longest that is allowed.
    const closing = ["]", "}]", "}}]", '"}}]', '"}]'].map(async (content) => {
      const response = await server.post("/tokenize", { content });
      return ((await response.json()) as { tokens: number[] }).tokens.at(-1)!;
    });
    const logit_bias = Object.fromEntries((await Promise.all(closing)).map((id) => [String(id), -100]));
    for (const [fields, length] of [
      [{}, 1],
      [{ logit_bias }, 16],
      [{ logit_bias, parallel_tool_calls: false }, 1],
    ] as const) {
      const whole = await client.chat.completions.create({ ...required, ...fields });
      const { message, finish_reason } = whole.choices[0]!;
      expect([finish_reason, message.content]).toEqual(["tool_calls", null]);
      const calls = parsed(message.tool_calls);
      expect(calls).toHaveLength(length);
      for (const call of calls) {
        expect(call.name).toMatch(/^get_(weather|time)$/);
        expect(JSON.parse(call.arguments)).toBeTypeOf("object");
      }
      expect(new Set(message.tool_calls!.map(({ id }) => id)).size).toBe(length);
      const stream = client.chat.completions.stream({ ...required, ...fields });
      const streamed = (await stream.finalChatCompletion()).choices[0]!.message.tool_calls;
      expect(parsed(streamed)).toMatchObject(calls);
    }
    // Cut within the second call: the first is whole, and what is left of the second is text.
    const cut = await client.chat.completions.create({ ...required, logit_bias, max_tokens: 32 });
    const { message, finish_reason } = cut.choices[0]!;
    expect(finish_reason).toBe("length");
    expect(message.tool_calls).toHaveLength(1);
    expect(message.content).toMatch(/^\{"name"/);
  });

  test("in responses too", async () => {
    const answer = await client.responses.create({
      model,
      input: "How warm is it in Paris?",
      temperature: 0,
      max_output_tokens: 80,
      tools: [{ type: "function", name: "get_weather", parameters, strict: true }],
      tool_choice: "required",
    });
    expect(answer.output).toMatchObject([
      { type: "function_call", name: "get_weather", status: "completed" },
    ]);
  });

  test.each([
    [{ tools, tool_choice: { type: "function", function: { name: "other" } } }, "tool_choice"],
    [{ tool_choice: "required" }, "tool_choice"],
    [{ tools: [...tools, ...tools] }, "tools"],
    [{ tools, parallel_tool_calls: false }, "parallel_tool_calls"],
    [{ tools, response_format: { type: "json_object" } }, "response_format"],
    [{ tools, grammar: 'root ::= "a"' }, "grammar"],
    [{ guided_regex: "a", grammar: 'root ::= "a"' }, "grammar"],
    [
      { response_format: { type: "json_object" }, structured_outputs: { regex: "a" } },
      "structured_outputs.regex",
    ],
    [{ structured_outputs: { regex: "a", json_object: true } }, "structured_outputs.regex"],
    [{ structured_outputs: {} }, "structured_outputs"],
    [{ structured_outputs: { structural_tag: "x" } }, "structured_outputs.structural_tag"],
    [{ guided_choice: [] }, "guided_choice"],
    [{ guided_choice: ["a", ""] }, "guided_choice[1]"],
    [{ guided_regex: "a", ignore_eos: true }, "ignore_eos"],
  ])("what cannot be enforced is refused (%#)", async (fields, param) => {
    const failed = client.chat.completions.create({ ...ask, ...fields } as typeof ask);
    await expect(failed).rejects.toMatchObject({ status: 400, param });
  });
});

test("completions, tokens and their bytes", async () => {
  const answer = await client.completions.create({
    model,
    prompt: "Once upon a",
    max_tokens: 3,
    temperature: 0,
    logprobs: 1,
  });
  expect(answer.choices[0]!.text).toMatch(/^ time/);
  expect(answer.choices[0]!.logprobs!.tokens!.join("")).toBe(answer.choices[0]!.text);
  const said = "héllo 🦊 wörld";
  const { tokens } = (await (await server.post("/tokenize", { content: said })).json()) as {
    tokens: number[];
  };
  expect(await (await server.post("/detokenize", { tokens })).json()).toEqual({ content: said });
  // Forced byte by byte, the bytes in the answer are exact though no token is a character.
  const forced = await client.chat.completions.create({
    ...ask,
    messages: [{ role: "user", content: "Write a fox emoji: 🦊🦊🦊🦊🦊" }],
    logprobs: true,
    logit_bias: Object.fromEntries(tokens.map((id) => [String(id), 100])),
    max_tokens: 12,
  });
  const bytes = forced.choices[0]!.logprobs!.content!.flatMap((token) => token.bytes!);
  expect(Buffer.from(bytes).toString()).toBe(forced.choices[0]!.message.content);
});

test("an abort reaches the server", async () => {
  const stream = await client.chat.completions.create({ ...ask, max_tokens: 4000, stream: true });
  for await (const _ of stream) break;
  const running = async () =>
    ((await (await server.get("/outrider/info")).json()) as { load: { running: number } }).load.running;
  while ((await running()) > 0) await new Promise((resolve) => setTimeout(resolve, 10));
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
