// What hostile, broken and impatient clients do, against the built server as a process.
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventsOf, type ServerProcess, startServer } from "./support/server.js";
import { tinyChatModel } from "./support/tiny-chat-model.js";

const tiny = tinyChatModel();
let server: ServerProcess;
beforeAll(async () => {
  server = await startServer(["--model", `tiny=${tiny}`, "--max-header-timeout", "1500"]);
});
afterAll(() => server?.[Symbol.asyncDispose]());

interface ErrorShape {
  error: { message: string; type: string; code: string; param: string | null; [detail: string]: unknown };
}

async function refusal(response: Response): Promise<{ status: number } & ErrorShape["error"]> {
  const { error } = (await response.json()) as ErrorShape;
  return { status: response.status, ...error };
}

/** A request as bytes; what came back until the server closed the connection, a character a byte. */
function raw(port: number, bytes: string | Buffer, waitMs = 30_000): Promise<string> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1", () => socket.write(bytes));
    let text = "";
    const timer = setTimeout(() => socket.destroy(), waitMs);
    socket.setEncoding("latin1").on("data", (chunk) => {
      text += chunk;
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(text);
    });
  });
}

interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Of a body in JSON. */
  readonly error?: ErrorShape["error"];
}

/** The answers among the bytes of a connection; throws where something else is between or behind them. */
function answersIn(text: string): RawAnswer[] {
  const answers: RawAnswer[] = [];
  for (let rest = text; rest !== ""; ) {
    const head = /^HTTP\/1\.1 (\d{3}) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n/.exec(rest);
    if (!head) throw new Error(`no answer: ${JSON.stringify(rest.slice(0, 200))}`);
    const lines = head[2]!.split("\r\n").slice(0, -1);
    const headers = Object.fromEntries(
      lines.map((line) => [line.replace(/:.*/, "").toLowerCase(), line.replace(/^[^:]*: /, "")]),
    );
    rest = rest.slice(head[0].length);
    let body = "";
    if (headers["transfer-encoding"] === "chunked")
      for (let size = -1; size !== 0; ) {
        size = Number.parseInt(rest, 16);
        if (Number.isNaN(size)) throw new Error(`a stream that was cut: ${JSON.stringify(text.slice(-200))}`);
        const start = rest.indexOf("\r\n") + 2;
        body += rest.slice(start, start + size);
        rest = rest.slice(start + size + 2);
      }
    else {
      const length = Number(headers["content-length"] ?? (head[1] === "100" ? 0 : rest.length));
      expect(rest.length).toBeGreaterThanOrEqual(length);
      body = rest.slice(0, length);
      rest = rest.slice(length);
    }
    const json = headers["content-type"] === "application/json" ? JSON.parse(body) : undefined;
    answers.push({ status: Number(head[1]), headers, body, error: json?.error });
  }
  return answers;
}

const chat = (fields: object = {}) => ({
  messages: [{ role: "user", content: "hi" }],
  max_tokens: 4,
  temperature: 0,
  ...fields,
});
const ask = (fields: object, to = server) => to.post("/v1/chat/completions", chat(fields));

describe("bodies that are none", () => {
  test.each([
    ["empty", "", 400],
    ["not JSON", "hello", 400],
    ["cut", '{"messages":[{"role":"us', 400],
    ["an array", "[]", 400],
    ["null", "null", 400],
    ["a key twice", '{"n":1,"n":2}', 400],
    ["a key twice, escaped", '{"n":1,"\\u006e":2}', 400],
    ["__proto__", '{"__proto__":{"n":1}}', 400],
    ["depth 100,000", "[".repeat(100_000), 400],
    ["5 MB", `{"prompt":"${"x".repeat(5 << 20)}"}`, 413],
  ])("%s", async (_, body, status) => {
    const response = await server.post("/v1/completions", undefined, { body });
    expect(await refusal(response)).toMatchObject({ status, type: "invalid_request_error" });
  });

  test("bytes that are not UTF-8", async () => {
    const body = Buffer.from([0x22, 0xff, 0xfe, 0x22]);
    expect(await refusal(await server.post("/v1/completions", undefined, { body }))).toMatchObject({
      status: 400,
    });
  });

  test("a body without a length is refused while it is read", async () => {
    const answer = await new Promise<{ status: number; sent: number }>((resolve, reject) => {
      let sent = 0;
      const request = http.request(`${server.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
      });
      const chunk = Buffer.alloc(64 << 10, 0x20);
      const timer = setInterval(() => {
        if (sent < 64 << 20) sent += Number(request.write(chunk)) && chunk.length;
      }, 1);
      request.on("response", (response) => {
        clearInterval(timer);
        resolve({ status: response.statusCode!, sent });
        request.destroy();
      });
      request.on("error", reject);
    });
    expect(answer.status).toBe(413);
    expect(answer.sent).toBeLessThan(8 << 20);
  });

  test("compressed bodies are not unpacked", async () => {
    const body = gzipSync(Buffer.alloc(64 << 20, 0x20));
    const response = await server.post("/v1/completions", undefined, {
      body,
      headers: { "content-encoding": "gzip" },
    });
    expect(await refusal(response)).toMatchObject({ status: 415, code: "ERR_MEDIA_TYPE" });
  });

  test.each(["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])(
    "Content-Type %j",
    async (type) => {
      const response = await server.post("/v1/completions", {}, { headers: { "content-type": type } });
      expect(await refusal(response)).toMatchObject({ status: 415, code: "ERR_MEDIA_TYPE" });
    },
  );

  test("wrong method, unknown path", async () => {
    const wrong = await server.get("/v1/chat/completions");
    expect(wrong.headers.get("allow")).toBe("POST");
    expect(await refusal(wrong)).toMatchObject({ status: 405, code: "ERR_METHOD" });
    for (const path of ["/v1/nothing", "/../../etc/passwd", "/%2e%2e/etc/passwd", "/v1"])
      expect(await refusal(await server.get(path))).toMatchObject({ status: 404, code: "ERR_NOT_FOUND" });
  });
});

describe("fields", () => {
  test.each<[string, object]>([
    ["temperature", { temperature: "NaN" }],
    ["temperature", { temperature: -1 }],
    ["temperature", { temperature: "0.7" }],
    ["temperature", { temperature: 1e308 }],
    ["temperature", { temperature: 0.0001 }],
    ["top_p", { top_p: 0 }],
    ["top_p", { top_p: 1.5 }],
    ["top_k", { top_k: -3 }],
    ["n", { n: 1e6 }],
    ["n", { n: 0 }],
    ["max_tokens", { max_tokens: -5 }],
    ["max_tokens", { max_tokens: 1e12 }],
    ["max_tokens", { max_tokens: 4, max_completion_tokens: 4 }],
    ["seed", { seed: 2 ** 70 }],
    ["logit_bias", { logit_bias: { 1000000000: 1 } }],
    ["logit_bias.5", { logit_bias: { 5: 1e9 } }],
    ["logit_bias.word", { logit_bias: { word: 1 } }],
    ["logit_bias", { logit_bias: Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [i, 1])) }],
    ["top_logprobs", { logprobs: true, top_logprobs: 50 }],
    ["top_logprobs", { top_logprobs: 2 }],
    ["stream", { stream: "yes" }],
    ["outrider.draft_length", { outrider: { draft_length: 1e6 } }],
    ["outrider.strategy", { outrider: { strategy: "magic" } }],
    ["outrider.strategy", { outrider: { strategy: "draft-model" } }],
    ["outrider.x", { outrider: { x: 1 } }],
    ["functions", { functions: [] }],
    ["store", { store: true }],
    ["model", { model: "../../etc/passwd" }],
    ["model", { model: "http://evil.example/m.gguf" }],
    ["stop[0]", { stop: [""] }],
    ["stop", { stop: "" }],
    ["stop", { stop: Array.from({ length: 10_000 }, (_, i) => `s${i}`) }],
    ["stop", { stop: "x".repeat(257) }],
    ["messages", { messages: [] }],
    ["messages", { messages: undefined }],
    ["messages[0].role", { messages: [{ role: "robot", content: "x" }] }],
    [
      "messages[1].content",
      {
        messages: [
          { role: "user", content: "x" },
          { role: "user", content: null },
        ],
      },
    ],
    ["messages[0].content", { messages: [{ role: "user", content: 5 }] }],
    [
      "messages[0].content[0].type",
      { messages: [{ role: "user", content: [{ type: "image_url", text: "x" }] }] },
    ],
    ["messages", { messages: Array.from({ length: 4097 }, () => ({ role: "user", content: "x" })) }],
  ])("%s (%#)", async (param, fields) => {
    const failed = await refusal(await ask(fields));
    expect(failed.param).toBe(param);
    expect(failed.status).toBe(param === "model" ? 404 : 400);
    expect(failed.message.length).toBeLessThan(400);
  });

  test("a message names value and range", async () => {
    const { message } = await refusal(await ask({ temperature: 3 }));
    expect(message).toBe("temperature is 3, expected a number from 0 to 2");
  });

  test("max_tokens 0: no text, and usage", async () => {
    const answer = await (await ask({ max_tokens: 0 })).json();
    expect(answer).toMatchObject({
      choices: [{ message: { content: "" }, finish_reason: "length" }],
      usage: { completion_tokens: 0 },
    });
  });

  test.each([-1, 1.5, 280, "12"])("token id %s", async (id) => {
    const failed = await refusal(await server.post("/v1/completions", { prompt: [1, 2, id], max_tokens: 1 }));
    expect(failed).toMatchObject({ status: 400, param: "prompt[2]" });
  });

  test("10^5 messages, and a million token ids", async () => {
    const messages = Array.from({ length: 100_000 }, () => ({ role: "user", content: "" }));
    expect(await refusal(await ask({ messages }))).toMatchObject({ status: 400, param: "messages" });
    const prompt = Array.from({ length: 1_000_000 }, () => 5);
    expect(await refusal(await server.post("/v1/completions", { prompt }))).toMatchObject({
      status: 400,
      code: "ERR_CONTEXT",
    });
  });

  test("lone surrogates, and control tokens typed by a user, are text", async () => {
    const response = await server.post("/v1/chat/completions", undefined, {
      body: String.raw`{"messages":[{"role":"user","content":"\ud800 <|im_end|> </s>"}],"max_tokens":1}`,
    });
    expect(response.status).toBe(200);
  });

  test.each<[string, unknown]>([
    ["remote $ref", { $ref: "https://evil.example/schema.json" }],
    ["$ref to itself", { $ref: "#" }],
    ["not a schema", { type: "thing" }],
    ["minItems 10^9", { type: "array", minItems: 1e9 }],
    ["contradictory", { type: "integer", minimum: 5, maximum: 3 }],
    ["look-behind", { type: "string", pattern: "(?<=a)b" }],
    ["^+[a-z]$", { type: "string", pattern: "^+[a-z]$" }],
    ["{2}a", { type: "string", pattern: "{2}a" }],
    ["a long pattern", { type: "string", pattern: "a".repeat(3000) }],
    ["a large schema", { enum: Array.from({ length: 100_000 }, (_, i) => i) }],
  ])("a schema that cannot be enforced: %s", async (_, schema) => {
    const format = { type: "json_schema", json_schema: { name: "x", schema } };
    const failed = await refusal(await ask({ response_format: format }));
    expect(failed).toMatchObject({ status: 400, code: "ERR_GRAMMAR", param: "response_format" });
    // Nothing of it stays: the next request is answered.
    expect((await ask({ response_format: { type: "json_object" } })).status).toBe(200);
  });
});

describe("patterns and grammars that cannot be enforced", () => {
  test.each<[string, string]>([
    ["structured_outputs.regex", "(?<=a)b"],
    ["structured_outputs.regex", "(a"],
    ["guided_regex", "\\bword"],
    ["guided_regex", "a".repeat(3000)],
    ["guided_regex", "((a{1000}){1000}){1000}"],
    ["structured_outputs.grammar", 'root ::= root "a"'],
    ["guided_grammar", "root ::= other"],
    ["grammar", 'answer ::= "a"'],
    ["grammar", `root ::= ${"(".repeat(60_000)}`],
    ["grammar", `root ::= "${"a".repeat(70_000)}"`],
    ["grammar", "\ud800\u0000"],
    ["grammar", ""],
  ])("%s (%#)", async (param, text) => {
    const [field, inner] = param.split(".") as [string, string | undefined];
    const fields = { [field]: inner === undefined ? text : { [inner]: text } };
    for (const route of ["/v1/chat/completions", "/v1/completions", "/v1/responses"]) {
      const asked = { messages: [{ role: "user", content: "hi" }] };
      const body = { ...fields, ...(route.endsWith("chat/completions") ? asked : { prompt: "hi" }) };
      const response = await server.post(
        route,
        route.endsWith("responses") ? { ...fields, input: "hi" } : body,
      );
      expect(await refusal(response)).toMatchObject({ status: 400, code: "ERR_GRAMMAR", param });
    }
    // Nothing of it stays.
    expect((await ask({ guided_regex: "[ab]{3}" })).status).toBe(200);
  });

  test("a parameters' schema that cannot be enforced is the tools' fault", async () => {
    const parameters = { type: "object", properties: { a: { type: "string", pattern: "(?=x)" } } };
    const tools = [{ type: "function", function: { name: "f", parameters } }];
    expect(await refusal(await ask({ tools, tool_choice: "required" }))).toMatchObject({
      ...{ status: 400, code: "ERR_GRAMMAR", param: "tools" },
    });
  });
});

describe("the context", () => {
  const complete = (prompt: unknown, fields: object = {}) =>
    server.post("/v1/completions", { prompt, temperature: 0, ...fields });

  test("a longer prompt is refused with both numbers", async () => {
    const failed = await refusal(await complete(Array.from({ length: 513 }, () => 5)));
    expect(failed).toMatchObject({
      status: 400,
      type: "exceed_context_size_error",
      code: "ERR_CONTEXT",
      n_prompt_tokens: 513,
      n_ctx: 512,
    });
  });

  test.each([
    [512, 0],
    [511, 1],
  ])("%i positions leave room for %i", async (length, room) => {
    const answer = await (
      await complete(
        Array.from({ length }, () => 5),
        { ignore_eos: true },
      )
    ).json();
    expect(answer).toMatchObject({
      choices: [{ finish_reason: "length" }],
      usage: { prompt_tokens: length, completion_tokens: room },
    });
  });

  test("an empty prompt", async () => {
    expect(await refusal(await complete(""))).toMatchObject({ status: 400, param: "prompt" });
  });

  test.each([
    ["4 MB without a space", "x".repeat(4_000_000)],
    ["10^5 emoji", "🦊".repeat(100_000)],
  ])("%s, with health answering meanwhile", async (_, prompt) => {
    const started = performance.now();
    const refused = complete(prompt).then(refusal);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect((await server.get("/health")).status).toBe(200);
    expect(await refused).toMatchObject({ code: "ERR_CONTEXT" });
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});

describe("who may ask", () => {
  test("another Host", async () => {
    const answer = await raw(
      server.port,
      "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    );
    expect(answer).toContain("403 Forbidden");
    expect(answer).toContain("ERR_HOST");
  });

  test.each(["https://evil.example", "null", "http://localhost.evil.example"])(
    "Origin %s",
    async (origin) => {
      const response = await server.get("/v1/models", { headers: { origin } });
      expect(response.headers.get("access-control-allow-origin")).toBeNull();
      expect(await refusal(response)).toMatchObject({ status: 403, code: "ERR_HOST" });
      const preflight = await server.get("/v1/chat/completions", { method: "OPTIONS", headers: { origin } });
      expect(preflight.status).toBe(403);
    },
  );

  test("its own pages, and those that are allowed", async () => {
    await using allowing = await startServer([
      "--model",
      `tiny=${tiny}`,
      "--allow-origin",
      "https://app.example",
    ]);
    const own = await allowing.get("/v1/models", { headers: { origin: allowing.url } });
    expect(own.status).toBe(200);
    const headers = { origin: "https://app.example" };
    const allowed = await allowing.get("/v1/models", { headers });
    expect(allowed.headers.get("access-control-allow-origin")).toBe("https://app.example");
    const preflight = await allowing.get("/v1/chat/completions", { method: "OPTIONS", headers });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get("access-control-allow-headers")).toContain("authorization");
  });

  test("keys: on every route but health", async () => {
    const file = path.join(tmpdir(), `outrider-keys-${process.pid}`);
    writeFileSync(file, `# team\n${createHash("sha256").update("hashed-key").digest("hex")}\n`);
    await using keyed = await startServer(["--model", `tiny=${tiny}`, "--api-keys", file], {
      OUTRIDER_API_KEY: "secret-key",
    });
    const { paths } = (await (
      await keyed.get("/openapi.json", { headers: { authorization: "Bearer secret-key" } })
    ).json()) as { paths: Record<string, Record<string, unknown>> };
    expect(Object.keys(paths)).toContain("/v1/chat/completions");
    for (const [route, methods] of Object.entries(paths))
      for (const method of Object.keys(methods)) {
        const bare = await keyed.get(route, { method: method.toUpperCase() });
        expect([route, bare.status]).toEqual([route, route === "/health" ? 200 : 401]);
      }
    const status = async (authorization: string, path = "/v1/models") =>
      (await keyed.get(path, { headers: { authorization } })).status;
    expect(await status("Bearer secret-key")).toBe(200);
    expect(await status("Bearer hashed-key")).toBe(200);
    for (const wrong of [
      "Bearer Secret-Key",
      "Bearer secret-key2",
      "Bearer ",
      "secret-key",
      "Bearer secret-key, Bearer secret-key",
      "Basic secret-key",
    ])
      expect([wrong, await status(wrong)]).toEqual([wrong, 401]);
    expect(await status("Bearer wrong", "/v1/models?api_key=secret-key")).toBe(401);
    const twice = await raw(
      keyed.port,
      "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\nAuthorization: Bearer secret-key\r\nConnection: close\r\n\r\n",
    );
    expect(twice).toContain("401 Unauthorized");
    expect(keyed.log()).not.toMatch(/secret-key|hashed-key|Secret-Key/);
  });

  test("listening elsewhere needs a key, or --insecure", async () => {
    const args = ["--model", `tiny=${tiny}`, "--host", "0.0.0.0"];
    await expect(startServer(args)).rejects.toThrow("--insecure");
    await using insecure = await startServer([...args, "--insecure"]);
    expect((await fetch(`http://127.0.0.1:${insecure.port}/health`)).status).toBe(200);
    const rebound = await raw(
      insecure.port,
      "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    );
    expect(rebound).toContain("403");
  });
});

test("what the server checks, its document describes", async () => {
  const { paths } = (await (await server.get("/openapi.json")).json()) as {
    paths: Record<
      string,
      { post: { requestBody: { content: Record<string, { schema: { properties: object } }> } } }
    >;
  };
  for (const route of ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
    expect(
      Object.keys(paths[route]!.post.requestBody.content["application/json"]!.schema.properties),
    ).toEqual(expect.arrayContaining(["structured_outputs", "guided_regex", "guided_grammar", "grammar"]));
});

describe("sockets", () => {
  test("headers that never end are closed, and good clients served meanwhile", async () => {
    const slow = raw(server.port, "GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ");
    expect((await ask({})).status).toBe(200);
    expect(await slow).toContain("408");
  });

  test("1,000 sockets that say nothing keep nobody out", async () => {
    const sockets = Array.from({ length: 1000 }, () => net.connect(server.port, "127.0.0.1"));
    for (const socket of sockets) socket.on("error", () => undefined);
    await Promise.all(
      sockets.map((s) => new Promise((resolve) => s.once("connect", resolve).once("close", resolve))),
    );
    expect((await ask({})).status).toBe(200);
    for (const socket of sockets) socket.destroy();
  });

  let strict: ServerProcess;
  beforeAll(async () => {
    const limits = ["--max-header-timeout", "1500", "--max-body-timeout", "500", "--max-sockets", "3"];
    strict = await startServer(["--model", `tiny=${tiny}`, ...limits]);
  });
  afterAll(() => strict?.[Symbol.asyncDispose]());

  const post = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const get = (path: string, headers = "", version = "1.1") =>
    `GET ${path} HTTP/${version}\r\nHost: localhost\r\n${headers}\r\n`;

  test.each([
    ["two lengths", `${post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`, 400, "ERR_BAD_REQUEST"],
    [
      "length and chunks",
      `${post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      400,
      "ERR_BAD_REQUEST",
    ],
    [
      "a chunk's length that is none",
      `${post}Transfer-Encoding: chunked\r\n\r\nzz\r\n`,
      400,
      "ERR_BAD_REQUEST",
    ],
    [
      "chunks with long extensions",
      `${post}Transfer-Encoding: chunked\r\n\r\n1;${"a".repeat(20_000)}\r\n`,
      413,
      "ERR_TOO_LARGE",
    ],
    ["a header of a megabyte", get("/health", `X-A: ${"a".repeat(1 << 20)}\r\n`), 431, "ERR_TOO_LARGE"],
    ["not HTTP", "\u0016\u0003\u0001\r\n\r\n", 400, "ERR_BAD_REQUEST"],
    ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "ERR_BAD_REQUEST"],
    ["no Host", "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "ERR_BAD_REQUEST"],
    ["no Host in HTTP/1.0", "GET /health HTTP/1.0\r\n\r\n", 400, "ERR_BAD_REQUEST"],
    ["a Host that is none", "GET /health HTTP/1.0\r\nHost: a b/c\r\n\r\n", 400, "ERR_BAD_REQUEST"],
    ["an absolute target that is none", get("http://%zz/", "", "1.0"), 400, "ERR_BAD_REQUEST"],
    ["another scheme", get("ftp://localhost/health", "", "1.0"), 400, "ERR_BAD_REQUEST"],
    ["the target *", `OPTIONS * HTTP/1.0\r\nHost: localhost\r\n\r\n`, 400, "ERR_BAD_REQUEST"],
    ["CONNECT", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "ERR_METHOD"],
    ["TRACE", `TRACE /health HTTP/1.0\r\nHost: localhost\r\n\r\n`, 405, "ERR_METHOD"],
    ["headers that do not come to their end", "GET /health HTTP/1.1\r\nHost: lo", 408, "ERR_TIMEOUT"],
    ["a body that does not come", `${post}Content-Length: 9\r\n\r\n{`, 408, "ERR_TIMEOUT"],
    ["nothing", "", 408, "ERR_TIMEOUT"],
  ])("%s", async (_, bytes, status, code) => {
    const count = async () => {
      const metrics = await (await strict.get("/metrics")).text();
      const series = new RegExp(`http_responses_total\\{route="[^"]*",status="${status}"\\} (\\d+)`, "g");
      return [...metrics.matchAll(series)].reduce((sum, match) => sum + Number(match[1]), 0);
    };
    const before = await count();
    const [answer, ...more] = answersIn(await raw(strict.port, bytes));
    expect(more).toEqual([]);
    expect(answer).toMatchObject({ status, error: { code, param: null } });
    expect(answer!.headers).toMatchObject({ connection: "close", "x-content-type-options": "nosniff" });
    // It is counted and logged as any other.
    expect(await count()).toBe(before + 1);
    expect(strict.log()).toContain(`"requestId":"${answer!.headers["x-request-id"]}"`);
  });

  test("a body that ends early", async () => {
    const answer = await new Promise<string>((resolve) => {
      const socket = net.connect({ port: strict.port, host: "127.0.0.1", allowHalfOpen: true }, () =>
        socket.end(`${post}Content-Length: 9\r\n\r\n{`),
      );
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk;
      });
      socket.on("close", () => resolve(text));
    });
    expect(answersIn(answer)).toMatchObject([{ status: 400, error: { code: "ERR_BAD_REQUEST" } }]);
  });

  test("a client that leaves while it sends is no fault of the server's", async () => {
    const socket = net.connect(strict.port, "127.0.0.1", () =>
      socket.write(`${post}Content-Length: 9\r\n\r\n{`),
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    const before = strict.log().length;
    socket.resetAndDestroy();
    const said = () => strict.log().slice(before);
    while (!said().includes("/v1/completions")) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(said()).toContain('"status":499');
    expect(said()).not.toContain("request failed");
  });

  test.each([
    [
      "a target with the server's name",
      () => get(`http://localhost:${strict.port}/health`, "Connection: close\r\n"),
    ],
    ["HTTP/1.0", () => get("/health", "", "1.0")],
    ["Upgrade to HTTP/2", () => get("/health", "Connection: Upgrade, close\r\nUpgrade: h2c\r\n")],
    ["Upgrade to WebSocket", () => get("/health", "Connection: Upgrade, close\r\nUpgrade: websocket\r\n")],
    ["an expectation that nobody knows", () => get("/health", "Expect: tea\r\nConnection: close\r\n")],
  ])("%s is answered", async (_, bytes) => {
    const answers = answersIn(await raw(strict.port, bytes()));
    expect(answers).toMatchObject([{ status: 200, body: '{"status":"ok"}' }]);
  });

  const json = (body: string, headers = "") =>
    `${post}${headers}Content-Length: ${body.length}\r\n\r\n${body}`;
  const short = '{"prompt":"a","max_tokens":2,"ignore_eos":true}';
  const streamed = '{"prompt":"a","max_tokens":300,"ignore_eos":true,"stream":true}';

  test("Expect: 100-continue", async () => {
    const answers = answersIn(
      await raw(strict.port, json(short, "Expect: 100-continue\r\nConnection: close\r\n")),
    );
    expect(answers.map(({ status }) => status)).toEqual([100, 200]);
  });

  test("a stream in HTTP/1.0 ends with the connection", async () => {
    const [answer] = answersIn(await raw(strict.port, json(streamed).replace("HTTP/1.1", "HTTP/1.0")));
    expect(answer).toMatchObject({ status: 200, headers: { connection: "close" } });
    expect(answer!.headers["transfer-encoding"]).toBeUndefined();
    expect(answer!.body).toMatch(/data: \[DONE\]\n\n$/);
  });

  test("requests on one line are answered in order", async () => {
    const closing = get("/health", "Connection: close\r\n");
    const answers = answersIn(await raw(strict.port, json(streamed) + json("{") + json(short) + closing));
    expect(answers.map(({ status }) => status)).toEqual([200, 400, 200, 200]);
    expect(answers[0]!.body).toMatch(/data: \[DONE\]\n\n$/);
  });

  test.each([
    ["an answer", short],
    ["a stream", streamed],
  ])("what follows %s and is no request is answered behind it", async (_, body) => {
    const answers = answersIn(await raw(strict.port, `${json(body)}nonsense\r\n\r\n`));
    expect(answers).toMatchObject([{ status: 200 }, { status: 400, error: { code: "ERR_BAD_REQUEST" } }]);
    expect(answers[0]!.body).toContain(body === short ? '"finish_reason":"length"' : "data: [DONE]");
  });

  test("a request that was answered before its body went wrong gets no second answer", async () => {
    const bytes = `${post.replace("application/json", "text/plain")}Transfer-Encoding: chunked\r\n\r\n`;
    const socket = net.connect(strict.port, "127.0.0.1", () => socket.write(bytes));
    let text = "";
    socket.on("data", (chunk) => {
      if (text === "") socket.write("zz\r\n");
      text += chunk;
    });
    await new Promise((resolve) => socket.on("close", resolve));
    expect(answersIn(text)).toMatchObject([{ status: 415 }]);
  });

  test("where all connections are busy, one more is told so", async () => {
    const busy: net.Socket[] = [];
    for (let i = 0; i < 3; i++) {
      const socket = net.connect(strict.port, "127.0.0.1", () =>
        socket.write(`${post}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n`),
      );
      busy.push(socket);
      await new Promise((resolve) => socket.once("data", resolve));
    }
    const answers = answersIn(await raw(strict.port, get("/health", "Connection: close\r\n")));
    expect(answers).toMatchObject([
      { status: 429, headers: { "retry-after": "1" }, error: { code: "ERR_BUSY", type: "rate_limit_error" } },
    ]);
    busy[0]!.destroy();
    const status = async () =>
      answersIn(await raw(strict.port, get("/health", "Connection: close\r\n")))[0]!.status;
    while ((await status()) !== 200) await new Promise((resolve) => setTimeout(resolve, 20));
    for (const socket of busy) socket.destroy();
  });
});

test("logs hold no prompt unless asked", async () => {
  await ask({ messages: [{ role: "user", content: "a-word-of-mine" }] });
  await refusal(await ask({ messages: [{ role: "user", content: "a-word-of-mine" }], temperature: 9 }));
  expect(server.log()).toContain('"status":200');
  expect(server.log()).not.toContain("a-word-of-mine");
  await using talkative = await startServer(["--model", `tiny=${tiny}`, "--log-prompts"]);
  await ask({ messages: [{ role: "user", content: "a-word-of-mine" }] }, talkative);
  expect(talkative.log()).toContain("a-word-of-mine");
});

test("afterwards the same answer as ever", async () => {
  const answer = async (to: ServerProcess) =>
    (
      (await (await ask({ max_tokens: 32, ignore_eos: true, logprobs: true }, to)).json()) as {
        choices: unknown[];
      }
    ).choices;
  await using fresh = await startServer(["--model", `tiny=${tiny}`]);
  expect(await answer(server)).toEqual(await answer(fresh));
});

test("an error inside a stream is an event", async () => {
  await using brief = await startServer([
    "--model",
    `tiny=${tiny}`,
    "--max-deadline",
    "100",
    "--max-parallel",
    "1",
  ]);
  // More tokens than the deadline leaves time for, on a machine of any speed: 8 texts of 400 tokens.
  const response = await ask(
    { stream: true, n: 8, max_tokens: 480, ignore_eos: true, logprobs: true, top_logprobs: 20 },
    brief,
  );
  const text = await response.text();
  const events = response.status === 200 ? eventsOf(text) : [JSON.parse(text)];
  expect(events.at(-1)).toMatchObject({ error: { code: "ERR_TIMEOUT" } });
});
