// Clients that leave, engines that die, signals, several models: against the built server as a process.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { eventsOf, type ServerProcess, startServer } from "./support/server.js";
import { tinyChatModel } from "./support/tiny-chat-model.js";

const tiny = tinyChatModel();
const main = path.resolve(import.meta.dirname, "../dist/cli/main.js");

// Long enough to be interrupted on any machine.
const long = {
  messages: [{ role: "user", content: "Tell me a very long story." }],
  max_tokens: 4000,
  ignore_eos: true,
  temperature: 0.8,
  seed: 5,
};

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

async function metric(server: ServerProcess, name: string): Promise<number> {
  const text = await (await server.get("/metrics")).text();
  const line = text.split("\n").find((l) => l.startsWith(`outrider:${name}`));
  return line === undefined ? 0 : Number(line.split(" ").at(-1));
}

/** The first event of a stream has come. */
async function begun(response: Response): Promise<ReadableStreamDefaultReader<Uint8Array>> {
  const reader = response.body!.getReader();
  await reader.read();
  return reader;
}

const enginePids = (server: ServerProcess): number[] =>
  [...server.log().matchAll(/"pid":(\d+).*"engine ready"/g)].map((match) => Number(match[1]));

async function killEngine(server: ServerProcess): Promise<void> {
  const count = enginePids(server).length;
  process.kill(enginePids(server).at(-1)!, "SIGKILL");
  await until(() => enginePids(server).length > count);
}

describe("a client that leaves", () => {
  test("while streaming, while waiting for a whole answer, while queued", async () => {
    await using server = await startServer(["--max-parallel", "1"]);
    const leave = new AbortController();
    const streaming = await server.post(
      "/v1/chat/completions",
      { ...long, stream: true },
      { signal: leave.signal },
    );
    await begun(streaming);
    const leaveQueue = new AbortController();
    const queued = server.post("/v1/chat/completions", long, { signal: leaveQueue.signal });
    await until(async () => (await metric(server, "num_requests_waiting")) === 1);
    leaveQueue.abort();
    await expect(queued).rejects.toThrow();
    await until(async () => (await metric(server, "num_requests_waiting")) === 0);
    expect(await metric(server, "num_requests_running")).toBe(1);
    leave.abort();
    await until(async () => (await metric(server, "num_requests_running")) === 0);

    const leaveWhole = new AbortController();
    const whole = server.post("/v1/chat/completions", long, { signal: leaveWhole.signal });
    await until(async () => (await metric(server, "num_requests_running")) === 1);
    leaveWhole.abort();
    await expect(whole).rejects.toThrow();
    await until(async () => (await metric(server, "num_requests_running")) === 0);
    expect(
      await metric(
        server,
        'request_success_total{model_name="smollm2-135m-instruct",finished_reason="abort"}',
      ),
    ).toBe(3);
    // The slot is free: another is answered at once.
    expect((await server.post("/v1/chat/completions", { ...long, max_tokens: 2 })).status).toBe(200);
  });

  test("one that does not read its stream holds up nobody, and little memory", async () => {
    await using server = await startServer();
    const leave = new AbortController();
    await server.post(
      "/v1/chat/completions",
      { ...long, stream: true, logprobs: true, top_logprobs: 20, n: 8 },
      { signal: leave.signal },
    );
    for (let i = 0; i < 3; i++)
      expect((await server.post("/v1/chat/completions", { ...long, max_tokens: 4 })).status).toBe(200);
    leave.abort();
    await until(async () => (await metric(server, "num_requests_running")) === 0);
  });
});

describe("an engine that dies", () => {
  test("what was under way goes on, streamed or not, with the very same answer", async () => {
    await using server = await startServer();
    const request = { ...long, max_tokens: 120, logprobs: true };
    const expected = (await (await server.post("/v1/chat/completions", request)).json()) as {
      choices: { message: { content: string }; logprobs: { content: unknown[] } }[];
    };
    const whole = server.post("/v1/chat/completions", request);
    const streaming = await server.post("/v1/chat/completions", { ...request, stream: true });
    const reader = streaming.body!.getReader();
    let text = Buffer.from((await reader.read()).value!).toString();
    await killEngine(server);
    for (let step = await reader.read(); !step.done; step = await reader.read())
      text += Buffer.from(step.value);
    const chunks = eventsOf(text) as unknown as {
      choices: { delta: { content?: string }; logprobs?: { content: unknown[] } }[];
    }[];
    const choices = chunks.map((chunk) => chunk.choices[0]!);
    expect(choices.map((c) => c.delta.content ?? "").join("")).toBe(expected.choices[0]!.message.content);
    expect(choices.flatMap((c) => c.logprobs?.content ?? [])).toEqual(expected.choices[0]!.logprobs.content);
    expect(((await (await whole).json()) as typeof expected).choices).toEqual(expected.choices);
    expect(await metric(server, "engine_restarts_total")).toBe(1);
  });

  test("again and again: a clear error, and the server lives", async () => {
    await using server = await startServer();
    const doomed = server.post("/v1/chat/completions", long);
    await until(async () => (await metric(server, "num_requests_running")) === 1);
    for (let i = 0; i < 3; i++) await killEngine(server);
    const response = await doomed;
    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({ error: { code: "ERR_RUNTIME", type: "server_error" } });
    expect((await server.post("/v1/chat/completions", { ...long, max_tokens: 2 })).status).toBe(200);
  });
});

describe("signals", () => {
  test("SIGTERM: a stream that is open comes to its end, nothing new is taken, exit code 0", async () => {
    const server = await startServer();
    const streaming = await server.post("/v1/chat/completions", { ...long, max_tokens: 60, stream: true });
    const reader = await begun(streaming);
    server.child.kill("SIGTERM");
    let text = "";
    for (let step = await reader.read(); !step.done; step = await reader.read())
      text += Buffer.from(step.value);
    expect(text).toContain("[DONE]");
    await expect(server.get("/health")).rejects.toThrow();
    expect(await server.exit).toEqual({ code: 0, signal: null });
  });

  test("what takes longer than the drain is cut, exit code 0", async () => {
    const server = await startServer(["--max-drain", "300"]);
    const streaming = await server.post("/v1/chat/completions", { ...long, stream: true });
    await begun(streaming);
    server.child.kill("SIGTERM");
    expect(await server.exit).toEqual({ code: 0, signal: null });
  });

  test("a second signal ends it at once", async () => {
    const server = await startServer();
    const streaming = await server.post("/v1/chat/completions", { ...long, stream: true });
    await begun(streaming);
    server.child.kill("SIGINT");
    await until(
      async () =>
        await server.get("/health").then(
          () => false,
          () => true,
        ),
    );
    server.child.kill("SIGINT");
    expect(await server.exit).toEqual({ code: 130, signal: null });
  });

  test("its engine ends with it, even when it is killed", async () => {
    const server = await startServer(["--model", `tiny=${tiny}`]);
    const [pid] = enginePids(server);
    server.child.kill("SIGKILL");
    await server.exit;
    await until(() => {
      try {
        process.kill(pid!, 0);
        return false;
      } catch {
        return true;
      }
    });
  });

  test("a closed pipe ends it quietly", async () => {
    const child = spawn(
      "bash",
      ["-c", `"${process.execPath}" "${main}" serve --port 0 --model tiny="${tiny}" | true`],
      {
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    await new Promise((resolve) => child.once("close", resolve));
    expect(stderr).not.toMatch(/EPIPE|Unhandled|at .*\.js/);
  });
});

describe("models", () => {
  test("loaded when asked for, the least recently used leaves under the budget", async () => {
    const sizes = ["--memory-budget", "3MB", "--context", "64"];
    await using server = await startServer([
      "--model",
      `a=${tiny}`,
      "--model",
      `b=${tiny}`,
      "--model",
      `c=${tiny}`,
      ...sizes,
    ]);
    const loaded = async () =>
      (
        (await (await server.get("/outrider/info")).json()) as { models: { id: string; loaded: boolean }[] }
      ).models
        .filter((m) => m.loaded)
        .map((m) => m.id);
    const ask = async (model: string) =>
      (
        (await (
          await server.post("/v1/completions", {
            model,
            prompt: "x",
            max_tokens: 8,
            temperature: 0,
            ignore_eos: true,
          })
        ).json()) as { choices: { text: string }[] }
      ).choices[0]!.text;
    const limit = (await (await server.get("/outrider/info")).json()) as {
      models: { memory_bytes: number }[];
    };
    const perModel = limit.models[0]!.memory_bytes;
    const fit = Math.floor((3 << 20) / perModel);
    expect(await loaded()).toEqual(["a"]);
    const text = await ask("a");
    expect(await ask("b")).toBe(text);
    expect(await ask("c")).toBe(text);
    expect((await loaded()).length).toBe(Math.min(3, fit));
    expect(await ask("a")).toBe(text);
    expect(await loaded()).toContain("a");
  });

  test("a file that is none: at the start exit code 3, later 422", async () => {
    const broken = path.join(tmpdir(), `outrider-broken-${process.pid}.gguf`);
    writeFileSync(broken, "no model");
    await expect(startServer(["--model", broken])).rejects.toThrow("ended with 3");
    await using server = await startServer(["--model", `tiny=${tiny}`, "--model", `broken=${broken}`]);
    const response = await server.post("/v1/completions", { model: "broken", prompt: "x" });
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({ error: { code: "ERR_MODEL_FORMAT" } });
    expect((await server.post("/v1/completions", { prompt: "x", max_tokens: 1 })).status).toBe(200);
    rmSync(broken);
  });

  test("are loaded as the command line says", async () => {
    const weights = async (...args: string[]) => {
      await using server = await startServer(["--model", `m=${tiny}`, "--context", "64", ...args]);
      const { models } = (await (await server.get("/outrider/info")).json()) as {
        models: { memory_bytes: number }[];
      };
      return models[0]!.memory_bytes;
    };
    const [whole, quantised, precise] = await Promise.all([
      weights(),
      weights("--quantize", "q4_1"),
      weights("--precise"),
    ]);
    expect(quantised).toBeLessThan(0.5 * whole);
    expect(precise).toBeGreaterThan(whole);
    const small = startServer(["--model", `m=${tiny}`, "--memory-limit", "0.0001"]);
    await expect(small).rejects.toThrow(/ended with 3.*ERR_MODEL_LIMIT/);
    const cache = mkdtempSync(path.join(tmpdir(), "outrider-hub-"));
    const absent = startServer(["--model", "hf:owner/absent", "--offline"], { HF_HOME: cache });
    await expect(absent).rejects.toThrow(/ended with 4.*not in the cache/s);
  });

  test("ready says whether it takes requests", async () => {
    await using server = await startServer(["--model", `tiny=${tiny}`]);
    expect((await server.get("/ready")).status).toBe(200);
  });
});

describe("an engine that dies while it loads", () => {
  // One that is killed each time `onExit` tells so.
  const engine = async (deaths: number) => {
    const built = path.resolve(import.meta.dirname, "../dist/server/engine-process.js");
    const { EngineProcess } = (await import(built)) as typeof import("../src/server/engine-process.js");
    const process = new EngineProcess({ file: tiny }, { onExit: () => setImmediate(kill) });
    let left = deaths;
    const kill = async () => {
      if (left-- <= 0) return;
      const { pid: before } = process;
      await until(() => process.pid !== undefined && process.pid !== before);
      globalThis.process.kill(process.pid!, "SIGKILL");
    };
    return { process, kill };
  };

  test("is started again, and whoever waits gets the next one", async () => {
    const { process, kill } = await engine(2);
    const killing = kill();
    await expect(process.start()).resolves.toMatchObject({ file: tiny });
    await killing;
    expect(process.restarts).toBe(2);
    await process.close();
  });

  test("is given up after the third time, until the next request", async () => {
    const { process, kill } = await engine(3);
    const killing = kill();
    await expect(process.start()).rejects.toMatchObject({
      code: "ERR_RUNTIME",
      message: expect.stringContaining("3 times while it loaded the model (SIGKILL)"),
    });
    await killing;
    await expect(process.start()).resolves.toMatchObject({ file: tiny });
    await process.close();
  });
});

test("files for browsers come with a strict policy, and need no key; others are not there", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "outrider-web-"));
  mkdirSync(path.join(folder, "assets"));
  writeFileSync(path.join(folder, "index.html"), "<!doctype html><title>x</title>");
  writeFileSync(path.join(folder, "assets/app.js"), "export {};");
  const models = [{ name: "tiny", source: { file: tiny } }];
  const built = path.resolve(import.meta.dirname, "../dist/server/index.js");
  const { serve } = (await import(built)) as typeof import("../src/server/index.js");
  const server = await serve({
    models,
    port: 0,
    apiKeys: ["k"],
    webFolder: folder,
    logLevel: "silent",
  });
  try {
    const page = await fetch(`${server.url}/`);
    expect(await page.text()).toContain("<title>x</title>");
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    const etag = page.headers.get("etag")!;
    expect((await fetch(`${server.url}/index.html`, { headers: { "if-none-match": etag } })).status).toBe(
      304,
    );
    const script = await fetch(`${server.url}/assets/app.js`);
    expect(script.headers.get("content-type")).toContain("text/javascript");
    for (const path of ["/assets/", "/assets/../../x", "/%2e%2e%2fpackage.json", "/v1/models"])
      expect([path, (await fetch(server.url + path)).status]).toEqual([path, 401]);
  } finally {
    await server.close();
  }
});
