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
  const statuses: Record<number, number> = {};
  await Promise.all(
    Array.from({ length: 40 }, async () => {
      const response = await narrow.post(known[4]!.route, known[4]!.body);
      statuses[response.status] = (statuses[response.status] ?? 0) + 1;
      const answer = (await response.json()) as {
        choices: { finish_reason: string }[];
        error: { code: string };
      };
      if (response.status === 200) expect(answer.choices[0]!.finish_reason).toBe(alone[4]!.finish);
      else {
        expect(response.headers.get("retry-after")).toMatch(/^\d+$/);
        expect(answer.error.code).toBe("ERR_BUSY");
      }
    }),
  );
  expect(Object.keys(statuses)).toEqual(["200", "429"]);
  expect(statuses[200]).toBeGreaterThanOrEqual(8);
});
