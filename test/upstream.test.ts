// Samples, votes and plans over an engine elsewhere: the real server, and one that misbehaves.
import { spawn } from "node:child_process";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { text as readAll } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { load, type Model } from "../src/index.js";
import { connect, type Upstream } from "../src/upstream/index.js";
import { type ServerProcess, startServer } from "./support/server.js";

interface Asked {
  readonly n?: number;
  readonly seed: number;
  readonly messages: { role: string; content: string }[];
  readonly [field: string]: unknown;
}

/** An engine that answers as it is told; `asked` are the bodies that it got. */
async function fakeEngine(
  respond: (body: Asked, response: ServerResponse, request: IncomingMessage) => void,
) {
  const asked: Asked[] = [];
  const server = createServer(async (request, response) => {
    if (request.url === "/v1/models") return void response.end(JSON.stringify({ data: [{ id: "fake" }] }));
    const body = JSON.parse(await readAll(request)) as Asked;
    asked.push(body);
    respond(body, response, request);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    asked,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const event = (data: object) => `data: ${JSON.stringify(data)}\n\n`;
const choice = (index: number, content: string, rest: object = {}) =>
  event({ choices: [{ index, delta: { content }, finish_reason: null, ...rest }] });
const usage = event({ choices: [], usage: { prompt_tokens: 10, completion_tokens: 3 } });
const done = "data: [DONE]\n\n";

/** Whole answers, one text for each choice. */
function answerWith(response: ServerResponse, texts: readonly string[], rest: object = {}) {
  const events = texts.map((text, i) => choice(i, text, { finish_reason: "stop", ...rest }));
  response.writeHead(200, { "content-type": "text/event-stream" }).end([...events, usage, done].join(""));
}

function refuse(
  response: ServerResponse,
  status: number,
  error: unknown,
  headers: Record<string, string> = {},
) {
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(error));
}

describe("outrider serve", () => {
  let model: Model;
  let server: ServerProcess;
  let engine: Upstream;
  beforeAll(async () => {
    model = await load();
    server = await startServer(["--api-key", "secret"]);
    engine = connect({ baseURL: `${server.url}/v1`, apiKey: "secret" });
  }, 60_000);
  afterAll(async () => {
    await model.close();
    await server[Symbol.asyncDispose]();
  });

  test("generate gives what the library gives, in pieces", async () => {
    const options = { maxTokens: 24, temperature: 0.8, seed: 5, system: "Be brief." };
    const expected = await model.generate("Name three colours.", options).result;
    const run = engine.generate("Name three colours.", { ...options, logprobs: true });
    const pieces: string[] = [];
    for await (const { text } of run) pieces.push(text);
    expect(pieces.join("")).toBe(expected.text);
    expect(pieces.length).toBeGreaterThan(3);
    const result = await run.result;
    expect(result).toMatchObject({ text: expected.text, finishReason: expected.finishReason, seed: 5 });
    expect(result.logprobs).toEqual(expected.logprobs);
    expect(result.usage).toMatchObject({
      promptTokens: expected.promptTokens.length,
      completionTokens: expected.tokens.length,
    });
  });

  // The server gives at most 8 answers to one request.
  test.each([1, 4, 10])("%d samples are those of the seeds one after another", async (n) => {
    const options = { n, maxTokens: 8, temperature: 1, seed: 3 };
    const expected = await Promise.all(model.samples("Name a colour.", options).map(({ result }) => result));
    const { results, usage } = await engine.samples("Name a colour.", options);
    expect(results.map(({ text, seed }) => ({ text, seed }))).toEqual(
      expected.map(({ text, seed }) => ({ text, seed })),
    );
    expect(usage.completionTokens).toBe(expected.reduce((sum, { tokens }) => sum + tokens.length, 0));
  });

  test("bestOf and majorityVote choose as the library does", async () => {
    const options = { n: 4, maxTokens: 6, temperature: 1, seed: 1 };
    const { best, results } = await engine.bestOf("Say yes or no.", options);
    const mean = (logprobs: readonly number[]) => logprobs.reduce((a, b) => a + b, 0) / logprobs.length;
    expect(mean(best.logprobs)).toBe(Math.max(...results.map(({ logprobs }) => mean(logprobs))));
    const { vote } = await engine.majorityVote("Say yes or no.", { ...options, extract: () => "same" });
    expect(vote).toMatchObject({ answer: "same", votes: 4, result: { seed: 1 } });
  });

  test("a plan has a text for every point, and all requests in its usage", async () => {
    const { text, points, usage } = await engine.plan("How do I make tea?", { maxTokens: 40, mostPoints: 3 });
    expect(text).not.toBe("");
    expect(points.length).toBeLessThanOrEqual(3);
    for (const { point } of points) expect(text).toContain(point);
    expect(usage.completionTokens).toBeGreaterThan(40);
  });

  test("an abort ends the work", async () => {
    const stop = new AbortController();
    const run = engine.generate("Count to a thousand.", { signal: stop.signal });
    let pieces = 0;
    await expect(async () => {
      for await (const _ of run) if (++pieces === 3) stop.abort();
    }).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(await run.result).toMatchObject({ finishReason: "abort" });
    await expect(engine.samples("Hi.", { n: 4, temperature: 1, signal: stop.signal })).rejects.toMatchObject({
      code: "ERR_ABORTED",
    });
  });

  test("the server's errors keep their codes", async () => {
    const long = "one two three ".repeat(4000);
    await expect(engine.generate(long).result).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    await expect(engine.generate("Hi.", { topP: 2 }).result).rejects.toMatchObject({
      code: "ERR_BAD_REQUEST",
      param: "top_p",
    });
    // n is not what was wrong.
    await expect(engine.samples("Hi.", { n: 2, temperature: 1, topP: 2 })).rejects.toMatchObject({
      param: "top_p",
    });
    const stranger = connect({ baseURL: server.url, apiKey: "wrong" });
    await expect(stranger.generate("Hi.").result).rejects.toMatchObject({ code: "ERR_AUTH" });
    const lost = connect({ baseURL: server.url, apiKey: "secret", model: "lost" });
    await expect(lost.generate("Hi.").result).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
  });

  const main = path.resolve(import.meta.dirname, "../dist/cli/main.js");
  const outrider = async (...args: string[]) => {
    const child = spawn(process.execPath, [main, "generate", "--upstream", server.url, ...args], {
      env: { ...process.env, OUTRIDER_API_KEY: "secret" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const [stdout, stderr, code] = await Promise.all([
      readAll(child.stdout),
      readAll(child.stderr),
      new Promise((resolve) => child.once("close", resolve)),
    ]);
    return { stdout, stderr, code };
  };

  test("the command line answers by it, and votes", async () => {
    const { text } = await model.generate("Name a colour.", { maxTokens: 8 }).result;
    expect(await outrider("--max-tokens", "8", "Name a colour.")).toEqual({
      stdout: `${text}\n`,
      stderr: "",
      code: 0,
    });
    const options = { n: 3, maxTokens: 4, temperature: 1 };
    const { vote } = await engine.majorityVote("Yes or no?", options);
    const flags = ["--samples", "3", "--vote", "--max-tokens", "4", "--temperature", "1"];
    expect(await outrider(...flags, "Yes or no?")).toMatchObject({
      stdout: `${vote!.result.text}\n`,
      code: 0,
    });
    const { stdout } = await outrider(...flags, "--json", "Yes or no?");
    const lines = stdout.trim().split("\n");
    expect(lines).toHaveLength(4);
    expect(JSON.parse(lines[3]!)).toMatchObject({ vote: { text: vote!.result.text, of: 3 } });
  });

  test("the command line refuses what is not for it", async () => {
    const { stderr, code } = await outrider("--strategy", "none", "Hi.");
    expect(stderr).toMatch(/--strategy.*--upstream/);
    expect(code).toBe(2);
  });
});

describe("samples of an engine", () => {
  const options = { n: 3, temperature: 1, seed: 7 };

  test("that gives n come by one request", async () => {
    await using fake = await fakeEngine((_, response) => answerWith(response, ["a", "b", "c"]));
    const { results, usage } = await connect({ baseURL: fake.url }).samples("Hi.", options);
    expect(results.map(({ text, seed }) => [text, seed])).toEqual([
      ["a", 7],
      ["b", 8],
      ["c", 9],
    ]);
    expect(usage).toEqual({ promptTokens: 10, cachedTokens: 0, completionTokens: 3 });
    expect(fake.asked).toHaveLength(1);
    expect(fake.asked[0]).toMatchObject({ model: "fake", n: 3, seed: 7, temperature: 1, stream: true });
  });

  test.each([
    [
      "refuses n",
      [3, 7, 8, 9],
      (body: Asked, response: ServerResponse) =>
        body.n
          ? refuse(response, 400, { error: { message: "only one choice", code: 400 } })
          : answerWith(response, [`of ${body.seed}`]),
    ],
    [
      "ignores n",
      [3, 8, 9],
      (body: Asked, response: ServerResponse) => answerWith(response, [`of ${body.seed}`]),
    ],
  ] as const)("that %s come one by one, with their seeds", async (_, asked, respond) => {
    await using fake = await fakeEngine(respond);
    const engine = connect({ baseURL: fake.url });
    const { results, usage } = await engine.samples("Hi.", options);
    expect(results.map(({ text }) => text)).toEqual(["of 7", "of 8", "of 9"]);
    expect(usage.promptTokens).toBe(30);
    expect(fake.asked.map(({ n, seed }) => n ?? seed)).toEqual(asked);
    // From now on it is known.
    fake.asked.length = 0;
    await engine.samples("Hi.", options);
    expect(fake.asked.map(({ n, seed }) => n ?? seed)).toEqual([7, 8, 9]);
  });

  test("are never more at a time than allowed", async () => {
    let open = 0;
    let most = 0;
    await using fake = await fakeEngine((body, response) => {
      if (body.n) return refuse(response, 400, { error: { message: "n" } });
      most = Math.max(most, ++open);
      setTimeout(() => {
        open--;
        answerWith(response, [String(body.seed)]);
      }, 20);
    });
    const engine = connect({ baseURL: fake.url, parallel: 2 });
    const { results } = await engine.samples("Hi.", { ...options, n: 9 });
    expect(results.map(({ text }) => Number(text))).toEqual([7, 8, 9, 10, 11, 12, 13, 14, 15]);
    expect(most).toBe(2);
  });

  test("end together where one fails", async () => {
    let left = 0;
    await using fake = await fakeEngine((body, response) => {
      if (body.n) return answerWith(response, ["a"]);
      if (body.seed === 9) return refuse(response, 500, { error: { message: "out of\u001b[31m memory" } });
      response.on("close", () => left++); // and never answers
    });
    await expect(connect({ baseURL: fake.url }).samples("Hi.", options)).rejects.toMatchObject({
      code: "ERR_UPSTREAM",
      message: "chat/completions: the server answered 500: out of [31m memory",
    });
    await expect.poll(() => left).toBe(1);
  });

  test("cannot be ranked without log-probabilities", async () => {
    await using fake = await fakeEngine((_, response) => answerWith(response, ["a", "b", "c"]));
    await expect(connect({ baseURL: fake.url }).bestOf("Hi.", options)).rejects.toMatchObject({
      code: "ERR_UPSTREAM",
      message: expect.stringMatching(/majorityVote/),
    });
    expect(fake.asked[0]).toMatchObject({ logprobs: true });
  });
});

test("a plan asks for the points, then for all of them at a time", async () => {
  const waiting: (() => void)[] = [];
  await using fake = await fakeEngine(({ messages }, response) => {
    const content = messages.at(-1)!.content;
    const point = /Write point (\d)/.exec(content)?.[1];
    if (!point) return answerWith(response, ["1. Boil water\n2. Add tea\n3. Wait"]);
    // Each is answered only when all have been asked.
    waiting.push(() => answerWith(response, [`text ${point}`]));
    if (waiting.length === 3) for (const answer of waiting.reverse()) answer();
  });
  const plan = await connect({ baseURL: fake.url }).plan("How is tea made?", { system: "Be brief." });
  expect(plan.text).toBe("1. Boil water\ntext 1\n\n2. Add tea\ntext 2\n\n3. Wait\ntext 3");
  expect(plan.usage).toEqual({ promptTokens: 40, cachedTokens: 0, completionTokens: 12 });
  for (const { messages } of fake.asked)
    expect(messages[0]).toEqual({ role: "system", content: "Be brief." });
});

test("a plan without points is the plain answer", async () => {
  await using fake = await fakeEngine(({ messages }, response) =>
    answerWith(response, [messages[0]!.content === "Hi." ? "Hello." : "No list."]),
  );
  expect(await connect({ baseURL: fake.url }).plan("Hi.")).toMatchObject({ text: "Hello.", points: [] });
});

describe("an engine that", () => {
  test.each([429, 503])("answers %d is asked again, as often as allowed", async (status) => {
    let refusals = 2;
    await using fake = await fakeEngine((_, response) =>
      refusals-- > 0
        ? refuse(response, status, { error: { message: "later" } }, { "retry-after": "0" })
        : answerWith(response, ["at last"]),
    );
    expect(await connect({ baseURL: fake.url }).generate("Hi.").text()).toBe("at last");
    expect(fake.asked).toHaveLength(3);
    refusals = 2;
    await expect(connect({ baseURL: fake.url, retries: 1 }).generate("Hi.").result).rejects.toMatchObject({
      code: status === 429 ? "ERR_BUSY" : "ERR_LOADING",
    });
    expect(fake.asked).toHaveLength(5);
  });

  test("asks for patience can be left meanwhile", async () => {
    await using fake = await fakeEngine((_, response) =>
      refuse(response, 429, { error: {} }, { "retry-after": "59" }),
    );
    const stop = new AbortController();
    const run = connect({ baseURL: fake.url }).generate("Hi.", { signal: stop.signal });
    const thrown = (async () => {
      for await (const _ of run);
    })();
    await expect.poll(() => fake.asked.length).toBe(1);
    stop.abort();
    await expect(thrown).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });

  test("is full can be left while waiting for a place", async () => {
    await using fake = await fakeEngine((_, response) => void response.writeHead(200).write(choice(0, "a")));
    const engine = connect({ baseURL: fake.url, parallel: 1 });
    const first = engine.generate("Hi.")[Symbol.asyncIterator]();
    expect((await first.next()).value?.text).toBe("a");
    const signal = AbortSignal.timeout(50);
    await expect(engine.samples("Hi.", { n: 1, signal })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await first.return();
    const second = engine.generate("Hi.")[Symbol.asyncIterator]();
    expect((await second.next()).value?.text).toBe("a");
    await second.return();
    expect(fake.asked).toHaveLength(2);
  });

  test.each<[string, (response: ServerResponse) => void]>([
    ["breaks off", (response) => void response.write(choice(0, "a"), () => response.destroy())],
    ["ends before [DONE]", (response) => void response.end(choice(0, "a"))],
    ["does not end its answer", (response) => void response.end(choice(0, "a") + done)],
    ["sends no JSON", (response) => void response.end("data: {\n\n")],
    ["sends other JSON", (response) => void response.end(event({ choices: 5 }))],
    ["sends null", (response) => void response.end("data: null\n\n")],
    ["answers a choice that nobody asked for", (response) => void response.end(choice(1, "a"))],
    ["does not stream", (response) => void response.end('{"choices":[]}')],
    ["fails in its stream", (response) => void response.end(event({ error: { message: "no" } }))],
    ["answers a page", (response) => void response.writeHead(502).end("<html>")],
  ])("%s gives ERR_UPSTREAM", async (_, respond) => {
    await using fake = await fakeEngine((_body, response) => respond(response));
    await expect(connect({ baseURL: fake.url }).generate("Hi.").result).rejects.toMatchObject({
      code: "ERR_UPSTREAM",
    });
  });

  test.each([
    [400, { error: { message: "too long", code: "context_length_exceeded" } }, "ERR_CONTEXT"],
    [400, { object: "error", message: "bad", code: 400, param: "stop" }, "ERR_BAD_REQUEST"],
    [401, { error: { message: "who", code: "invalid_api_key" } }, "ERR_AUTH"],
    [404, { detail: "Not Found" }, "ERR_NOT_FOUND"],
    [500, { error: { message: "x", code: "ERR_NO_SUCH_CODE" } }, "ERR_UPSTREAM"],
  ])("answers %d with %j gives %s", async (status, answer, code) => {
    await using fake = await fakeEngine((_, response) => refuse(response, status, answer));
    await expect(connect({ baseURL: fake.url }).generate("Hi.").result).rejects.toMatchObject({ code });
  });

  test("is not there gives ERR_UPSTREAM", async () => {
    const { url, ...fake } = await fakeEngine(() => undefined);
    await fake[Symbol.asyncDispose]();
    await expect(connect({ baseURL: url }).generate("Hi.").result).rejects.toMatchObject({
      code: "ERR_UPSTREAM",
      message: expect.stringMatching(/cannot be reached.*ECONNREFUSED/),
    });
  });
});

test("one signal ends many requests, those that wait too, without a warning", async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on("warning", onWarning);
  let open = 0;
  await using fake = await fakeEngine((_, response) => {
    open++;
    response.on("close", () => open--);
  });
  const engine = connect({ baseURL: fake.url, parallel: 20 });
  const stop = new AbortController();
  const codes = Array.from({ length: 40 }, () =>
    engine.samples("Hi.", { n: 1, signal: stop.signal }).catch(({ code }) => code),
  );
  await expect.poll(() => open).toBe(20);
  stop.abort();
  expect(new Set(await Promise.all(codes))).toEqual(new Set(["ERR_ABORTED"]));
  await expect.poll(() => open).toBe(0);
  process.off("warning", onWarning);
  expect(warnings).toEqual([]);
});

test.each<[string, () => unknown, string]>([
  ["no address", () => connect({ baseURL: "localhost:8080" }), "baseURL"],
  ["a key in the address", () => connect({ baseURL: "http://me:key@localhost" }), "baseURL"],
  ["an unknown option", () => connect({ baseURL: "http://localhost", apikey: "" } as never), "apikey"],
  ["no places", () => connect({ baseURL: "http://localhost", parallel: 0 }), "parallel"],
  ["token ids", () => connect({ baseURL: "http://localhost" }).generate([1, 2] as never), "messages[0]"],
  [
    "a misspelt option",
    () => connect({ baseURL: "http://localhost" }).generate("Hi.", { maxToken: 1 } as never),
    "maxToken",
  ],
])("%s is refused at once", (_, call, param) => {
  expect(call).toThrow(expect.objectContaining({ code: "ERR_BAD_REQUEST", param }));
});

test.each<[string, object]>([
  ["n", { n: 65, temperature: 1 }],
  ["temperature", { n: 2 }],
])("samples with a wrong %s are refused", async (param, options) => {
  await expect(
    connect({ baseURL: "http://localhost" }).samples("Hi.", options as never),
  ).rejects.toMatchObject({ code: "ERR_BAD_REQUEST", param });
});
