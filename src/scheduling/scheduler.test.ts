import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { LengthPredictor } from "./length-predictor.js";
import { createScheduler, type Request, type Scheduler, type SchedulerOptions } from "./scheduler.js";

// Timers and the date are the test's own; `sleep` is work. What a prediction takes is measured by the real clock.
beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] }));
afterEach(() => void vi.useRealTimers());
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

const request = (more: Partial<Request> = {}): Request => ({
  key: "someone",
  promptLength: 8,
  maxTokens: 1000,
  deadlineMs: 1e6,
  ...more,
});

/** Work that takes a millisecond a token. */
function answering(
  scheduler: Scheduler,
  tokens: number,
  more: Partial<Request> = {},
  done?: () => void,
): Promise<void> {
  return scheduler.run(request(more), async (_, emitted) => {
    await sleep(tokens);
    emitted(tokens);
    done?.();
  });
}

/** The order in which these end, once a first one has kept the others waiting. */
async function order(
  options: Partial<SchedulerOptions>,
  requests: readonly [string, number, Partial<Request>?][],
) {
  const scheduler = createScheduler({ now: Date.now, parallel: 1, queue: 100, ...options });
  const ended: string[] = [];
  const first = answering(scheduler, 10);
  const others = requests.map(([name, tokens, more]) =>
    answering(scheduler, tokens, { maxTokens: tokens, ...more }, () => ended.push(name)),
  );
  await vi.runAllTimersAsync();
  await Promise.all([first, ...others]);
  return ended.join("");
}

describe("the order", () => {
  test("is that of arrival without a predictor", async () => {
    expect(
      await order({}, [
        ["a", 300],
        ["b", 10],
        ["c", 100],
      ]),
    ).toBe("abc");
  });

  test("is that of predicted length with one, higher priority first", async () => {
    const predictor = new LengthPredictor();
    expect(
      await order({ predictor }, [
        ["a", 300],
        ["b", 10],
        ["c", 100],
        ["d", 400, { priority: 1 }],
      ]),
    ).toBe("dbca");
  });

  test("lets nobody starve: a long one is overtaken for a bounded time", async () => {
    const scheduler = createScheduler({
      now: Date.now,
      parallel: 1,
      queue: 100,
      predictor: new LengthPredictor(),
    });
    let ended = Number.POSITIVE_INFINITY;
    const blocking = answering(scheduler, 10, { maxTokens: 10 });
    const long = answering(scheduler, 100, { maxTokens: 100 }, () => {
      ended = Date.now();
    });
    const short: Promise<void>[] = [];
    const began = Date.now();
    // Twice as many short ones as can be served.
    for (let i = 0; i < 2000; i++) {
      if (scheduler.waiting < 50) short.push(answering(scheduler, 10, { maxTokens: 10 }));
      await vi.advanceTimersByTimeAsync(5);
    }
    await vi.runAllTimersAsync();
    await Promise.all([blocking, long, ...short]);
    expect(ended - began).toBeLessThan(5000);
  });

  test("is fair between keys: one with many requests does not keep another's waiting", async () => {
    const scheduler = createScheduler({
      now: Date.now,
      parallel: 1,
      queue: 1000,
      predictor: new LengthPredictor(),
    });
    const ended: string[] = [];
    const crowd = Array.from({ length: 200 }, () =>
      answering(scheduler, 100, { key: "crowd", maxTokens: 100 }, () => ended.push("crowd")),
    );
    await vi.advanceTimersByTimeAsync(250);
    const other = answering(scheduler, 400, { key: "other", maxTokens: 400 }, () => ended.push("other"));
    await vi.runAllTimersAsync();
    await Promise.all([...crowd, other]);
    expect(ended.indexOf("other")).toBeLessThan(20);
  });
});

describe("limits", () => {
  test("a full queue refuses, and says when to come back", async () => {
    const scheduler = createScheduler({ now: Date.now, parallel: 2, queue: 3 });
    const taken = [1, 2, 3, 4, 5].map(() => answering(scheduler, 100));
    await expect(answering(scheduler, 100)).rejects.toMatchObject({
      code: "ERR_BUSY",
      details: { retryAfter: expect.any(Number) },
    });
    await vi.runAllTimersAsync();
    await Promise.all(taken);
    expect(scheduler).toMatchObject({ running: 0, waiting: 0, counts: { started: 5, refused: 1 } });
  });

  test("a deadline ends waiting and working", async () => {
    const scheduler = createScheduler({ now: Date.now, parallel: 1, queue: 3 });
    const working = scheduler.run(request({ deadlineMs: 50 }), (signal) =>
      Promise.race([
        sleep(1000),
        new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
      ]),
    );
    const waiting = answering(scheduler, 10, { deadlineMs: 20 });
    const patient = answering(scheduler, 10);
    const late = [working, waiting].map((run) => expect(run).rejects.toMatchObject({ code: "ERR_TIMEOUT" }));
    await vi.runAllTimersAsync();
    await Promise.all([...late, patient]);
    expect(scheduler).toMatchObject({ running: 0, waiting: 0, counts: { gaveUp: 1 } });
  });

  test("one that is aborted while it waits leaves the queue at once, and never begins", async () => {
    const scheduler = createScheduler({ now: Date.now, parallel: 1, queue: 1 });
    const first = answering(scheduler, 10);
    const abort = new AbortController();
    let began = false;
    const second = scheduler.run(request({ signal: abort.signal }), async () => {
      began = true;
    });
    abort.abort(new Error("gone"));
    await expect(second).rejects.toMatchObject({ code: "ERR_ABORTED", cause: new Error("gone") });
    expect(scheduler.waiting).toBe(0);
    const third = answering(scheduler, 10);
    await vi.runAllTimersAsync();
    await Promise.all([first, third]);
    expect(began).toBe(false);
    await expect(answering(scheduler, 10, { signal: abort.signal })).rejects.toMatchObject({
      code: "ERR_ABORTED",
    });
  });

  test("work that fails gives its place to the next", async () => {
    const scheduler = createScheduler({ now: Date.now, parallel: 1, queue: 1 });
    const failing = scheduler.run(request(), () => Promise.reject(new Error("broken")));
    const next = answering(scheduler, 10);
    await expect(failing).rejects.toThrow("broken");
    await vi.runAllTimersAsync();
    await next;
  });
});

describe("a heavy-tailed mix", () => {
  // What is asked says something about how long the answer becomes, not all. Lengths: Pareto, mean about 120 tokens.
  const short = ["Answer yes or no:", "What is the capital of", "Translate the word", "In one word, name"];
  const long = [
    "Write a long story about",
    "Explain in detail how",
    "Write an essay on",
    "List fifty facts about",
  ];
  const subjects = ["rivers", "trains", "bees", "Rome", "glass", "tea", "chess", "the moon"];

  function requestsOf(seed: number, count: number, load: number) {
    let state = seed;
    const random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state + 0.5) / 2 ** 32;
    };
    let at = 0;
    return Array.from({ length: count }, () => {
      const isLong = random() < 0.15;
      const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)]!;
      const tokens = Math.min(2000, Math.ceil((isLong ? 300 : 10) * random() ** (-1 / 1.7)));
      at += (-Math.log(random()) * 95) / (4 * load);
      return {
        at,
        tokens,
        text: `${pick(isLong ? long : short)} ${pick(subjects)}`,
        key: pick(["a", "b", "c"]),
      };
    });
  }

  async function meanLatency(seed: number, predictor: LengthPredictor | undefined) {
    const scheduler = createScheduler({ now: Date.now, parallel: 4, queue: 10_000, predictor });
    const latencies: number[] = [];
    const runs = requestsOf(seed, 1000, 0.9).map(async ({ at, tokens, text, key }) => {
      await sleep(at);
      const before = scheduler.counts.predictionMs;
      await scheduler.run(
        request({ text, key, promptLength: text.length / 4, maxTokens: 2048 }),
        async (_, emitted) => {
          await sleep(tokens);
          emitted(tokens);
        },
      );
      // A prediction is real work on the thread that everything waits for.
      latencies.push(Date.now() - began - at + scheduler.counts.predictionMs - before);
    });
    const began = Date.now();
    await vi.runAllTimersAsync();
    await Promise.all(runs);
    return { mean: latencies.reduce((sum, ms) => sum + ms, 0) / latencies.length, counts: scheduler.counts };
  }

  test("waits at least 30 % less than first come first served", { timeout: 60_000 }, async () => {
    for (const seed of [1, 2, 3]) {
      const plain = await meanLatency(seed, undefined);
      const predicted = await meanLatency(seed, new LengthPredictor());
      expect(
        predicted.mean / plain.mean,
        `seed ${seed}: ${predicted.mean} and ${plain.mean} ms`,
      ).toBeLessThan(0.7);
      expect(predicted.counts.predictions).toBeGreaterThan(0);
      expect(predicted.counts.predictions).toBeLessThan(predicted.counts.started);
    }
  });
});

describe("the predictor", () => {
  test("learns lengths from those who ask and from the words, and knows its own doubt", () => {
    const predictor = new LengthPredictor();
    const brief = request({ key: "brief" });
    const doubt = predictor.spread(brief);
    for (let i = 0; i < 30; i++) predictor.observe(brief, 10);
    expect(predictor.quick(brief)).toBeLessThan(15);
    expect(predictor.isShort(brief)).toBe(true);
    expect(predictor.spread(brief)).toBeLessThan(doubt);
    const story = { ...request(), text: "Write a long story about bees" };
    const word = { ...request(), text: "Say one word about bees" };
    for (let i = 0; i < 60; i++) {
      predictor.observe(story, 600);
      predictor.observe(word, 5);
    }
    const about = (text: string) => predictor.careful(request({ text }));
    expect(about("Write a long story about trains")).toBeGreaterThan(5 * about("Say one word about trains"));
    expect(predictor.quick(story)).toBe(predictor.quick(word));
  });

  test("never says more than is allowed, whatever text comes", () => {
    const predictor = new LengthPredictor();
    for (const text of ["", "\u0000", "a".repeat(1e6), "\ud800 🦊".repeat(1000)]) {
      const asked = request({ text, maxTokens: 7 });
      expect(predictor.careful(asked)).toBeLessThanOrEqual(7);
      predictor.observe(asked, 0);
      expect(predictor.quick(asked)).toBeLessThanOrEqual(7);
    }
  });
});
