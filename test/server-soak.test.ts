// Engines killed at random under load: no hang, no wrong or mixed answer, memory flat.
// OUTRIDER_SOAK_MINUTES: how long (npm run soak: 30).
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Seeded } from "./support/seeded.js";
import { startServer } from "./support/server.js";
import { type Answer, ask, cases, manner, plainly } from "./support/workload.js";

const minutes = Number(process.env.OUTRIDER_SOAK_MINUTES ?? 0.5);
const kills = Number(process.env.OUTRIDER_SOAK_KILLS ?? Math.max(5, Math.min(50, Math.round(25 * minutes))));
const clients = 8;
/** A request may meet so many dying engines and a full queue, but not take longer. */
const hangMs = 60_000;

const rss = (pid: number) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1024;

test(`${kills} engines die in ${minutes} minutes of ${clients} clients`, {
  timeout: minutes * 60_000 + 240_000,
}, async () => {
  const known = cases(24, 3);
  const alone: Answer[] = [];
  await using server = await startServer([], { NODE_OPTIONS: "--max-semi-space-size=2" });
  for (const one of known) {
    const outcome = await ask(server, one, plainly);
    if (!("answer" in outcome)) throw new Error(JSON.stringify(outcome));
    alone.push(outcome.answer);
  }
  const pids = () =>
    [...server.log().matchAll(/"pid":(\d+).*"engine ready"/g)].map((match) => Number(match[1]));

  const end = performance.now() + minutes * 60_000;
  const counts = { answered: 0, left: 0, failed: {} as Record<string, number>, killed: 0 };
  const memory: number[] = [];
  const random = new Seeded(4);
  let killing = true;
  /** Goes on until no engine dies any more, and until it was answered. */
  const client = async (number: number) => {
    const own = new Seeded(100 + number);
    for (let answered = 0; killing || answered === 0; ) {
      const index = own.integer(0, known.length - 1);
      const how = manner(own);
      const outcome = await ask(server, known[index]!, how, hangMs);
      if ("answer" in outcome) {
        answered++;
        counts.answered++;
        expect(outcome.answer, JSON.stringify({ how, ...known[index] })).toEqual(alone[index]);
      } else if ("left" in outcome) counts.left++;
      else counts.failed[outcome.error.code] = (counts.failed[outcome.error.code] ?? 0) + 1;
    }
  };
  const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  /** At random, but each engine has begun before it dies: on a busy machine that takes longer than planned. */
  const killer = async () => {
    const pause = (minutes * 60_000) / kills;
    while (counts.killed < kills || performance.now() < end) {
      await sleep(pause * (0.5 + random.integer(0, 1000) / 1000));
      memory.push(rss(server.child.pid!));
      while (pids().length <= counts.killed) await sleep(20);
      process.kill(pids().at(-1)!, "SIGKILL");
      counts.killed++;
    }
    killing = false;
  };
  await Promise.all([killer(), ...Array.from({ length: clients }, (_, i) => client(i))]);

  console.log(JSON.stringify({ ...counts, engines: pids().length, rssMb: memory.map(Math.round) }));
  expect(counts.killed).toBeGreaterThanOrEqual(kills);
  expect(counts.answered).toBeGreaterThanOrEqual(clients);
  // Nothing but what it says on the tin: the engine died too often, or there was no room to wait.
  expect(Object.keys(counts.failed).filter((code) => code !== "ERR_RUNTIME" && code !== "ERR_BUSY")).toEqual(
    [],
  );
  const median = (list: number[]) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)]!;
  const half = Math.floor(memory.length / 2);
  expect(median(memory.slice(half)) - median(memory.slice(Math.floor(half / 2), half))).toBeLessThan(24);
  // And the same answers as ever.
  for (const [i, one] of known.entries())
    expect(await ask(server, one, plainly)).toEqual({ answer: alone[i] });
  const info = (await (await server.get("/outrider/info")).json()) as { load: unknown };
  expect(info.load).toEqual({ running: 0, waiting: 0 });
});
