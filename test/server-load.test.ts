// Under load every answer is the one given alone: text, tokens, bits of the log-probabilities.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Seeded } from "./support/seeded.js";
import { type ServerProcess, startServer } from "./support/server.js";
import { type Answer, ask, cases, manner, type Outcome, plainly, sideBySide } from "./support/workload.js";

const requests = Number(process.env.OUTRIDER_LOAD_REQUESTS ?? 200);
const known = cases(30, 1);
const alone: Answer[] = [];
let server: ServerProcess;

beforeAll(async () => {
  await using plain = await startServer();
  for (const one of known) {
    const outcome = await ask(plain, one, plainly);
    if (!("answer" in outcome)) throw new Error(JSON.stringify(outcome));
    alone.push(outcome.answer);
  }
  server = await startServer();
});
afterAll(() => server?.[Symbol.asyncDispose]());

test(`${requests} requests, 1 to 16 at once, of mixed lengths, seeds and strategies, some of which leave`, async () => {
  const random = new Seeded(2);
  const jobs = Array.from({ length: requests }, () => ({
    index: random.integer(0, known.length - 1),
    how: manner(random),
  }));
  const outcomes: Outcome[] = [];
  for (let at = 0; at < jobs.length; ) {
    const most = random.integer(1, 16);
    const wave = jobs.slice(at, at + 2 * most);
    at += wave.length;
    await sideBySide(wave, most, async ({ index, how }) => {
      const outcome = await ask(server, known[index]!, how);
      outcomes.push(outcome);
      if ("answer" in outcome)
        expect(outcome.answer, JSON.stringify({ how, ...known[index] })).toEqual(alone[index]);
      else expect(outcome).toEqual({ left: true });
    });
  }
  // The test would prove nothing if all had left.
  expect(outcomes.filter((o) => "answer" in o).length).toBeGreaterThan(requests / 2);
  expect(outcomes.some((o) => "left" in o)).toBe(true);
});

test("the same prompt 50 times at once", async () => {
  await sideBySide(
    Array.from({ length: 50 }, () => 0),
    16,
    async () => {
      expect(await ask(server, known[3]!, { ...plainly, strategy: "auto" })).toEqual({ answer: alone[3] });
    },
  );
});

test("answers to one request are those of their seeds", async () => {
  const body = { prompt: "Once upon a time", max_tokens: 12, temperature: 1, logprobs: 0 };
  const { choices } = (await (await server.post("/v1/completions", { ...body, seed: 40, n: 4 })).json()) as {
    choices: { text: string }[];
  };
  expect(new Set(choices.map(({ text }) => text)).size).toBeGreaterThan(1);
  for (const [i, choice] of choices.entries()) {
    const single = await server.post("/v1/completions", { ...body, seed: 40 + i });
    expect(await single.json()).toMatchObject({ choices: [{ ...choice, index: 0 }] });
  }
});

test("more than the queue holds is refused with Retry-After, the rest answered", async () => {
  await using narrow = await startServer(["--max-parallel", "2", "--max-queue", "6"]);
  const load = async () =>
    ((await (await narrow.get("/outrider/info")).json()) as { load: { running: number; waiting: number } })
      .load;
  const until = async (running: number, waiting: number) => {
    for (let now = await load(); now.running !== running || now.waiting !== waiting; now = await load())
      await new Promise((resolve) => setTimeout(resolve, 20));
  };
  const { route, body } = known[4]!;
  const leave = new AbortController();
  const endless = { ...body, max_tokens: 8000, ignore_eos: true, stop: undefined, stream: true };
  for (let i = 1; i <= 2; i++) {
    await narrow.post(route, endless, { signal: leave.signal });
    await until(i, 0);
  }
  const waiting = Array.from({ length: 6 }, () => ask(narrow, known[4]!, plainly));
  await until(2, 6);
  await Promise.all(
    Array.from({ length: 32 }, async () => {
      const response = await narrow.post(route, body);
      expect(response.status).toBe(429);
      expect(response.headers.get("retry-after")).toMatch(/^\d+$/);
      expect(((await response.json()) as { error: { code: string } }).error.code).toBe("ERR_BUSY");
    }),
  );
  leave.abort();
  expect(await Promise.all(waiting)).toEqual(waiting.map(() => ({ answer: alone[4] })));
});
