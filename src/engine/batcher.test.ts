import { expect, test } from "vitest";
import { OutriderError } from "../errors.js";
import type { NativePass, NativeResult } from "../runtime/native.js";
import { Batcher, type Job, sharePrefill } from "./batcher.js";
import type { DraftRun } from "./draft-layers.js";
import type { Part } from "./pass.js";
import { resolveSampling } from "./sampling.js";
import type { SharedPass } from "./sequence.js";

const sampling = resolveSampling({}, 100, 0);
const limits = { maxRows: 512, maxOutputs: 10, prefillChunk: 512 };

/** Passes that wait to be let through; [rows that want a pick, rows that do not] of each that started. */
function machine(options: Partial<typeof limits> = {}) {
  const passes: [number, number][] = [];
  const gates: ((error?: Error) => void)[] = [];
  const signals: (AbortSignal | undefined)[] = [];
  const drafts: (DraftRun | undefined)[] = [];
  const run = (pass: NativePass, signal?: AbortSignal, draft?: DraftRun): Promise<NativeResult> => {
    const rows = pass.rows.length / 6;
    const outputs = pass.settings.length / 5;
    passes.push([outputs, rows - outputs]);
    signals.push(signal);
    drafts.push(draft);
    return new Promise((resolve, reject) => {
      gates.push((error) => {
        if (error) return reject(error);
        const tokens = Int32Array.from({ length: rows }, (_, i) => pass.rows[i * 6]!).filter(
          (_, i) => pass.rows[i * 6 + 5],
        );
        resolve({ finished: true, milliseconds: 1, tokens, logprobs: new Float32Array(outputs) });
      });
    });
  };
  return {
    batcher: new Batcher({ ...limits, ...options }, run),
    passes,
    signals,
    drafts,
    /** Ends the running pass, and waits until the next one may have started. */
    async pass(error?: Error) {
      gates.shift()!(error);
      await new Promise(setImmediate);
      await new Promise(setImmediate);
    },
  };
}

interface Told {
  picks?: readonly number[];
  shared?: SharedPass | undefined;
  error?: unknown;
}

function ask(
  batcher: Batcher,
  tokens: readonly number[],
  options: {
    kind?: Job["kind"];
    draft?: DraftRun;
    owner?: object;
    signal?: AbortSignal;
    next?: () => void;
    refuse?: Error;
    alone?: boolean[];
  } = {},
): Told {
  const told: Told = {};
  const kind = options.kind ?? "step";
  batcher.submit(options.owner ?? told, {
    kind,
    draft: options.draft,
    rows: tokens.length,
    signal: options.signal,
    place(count, alone): Part {
      options.alone?.push(alone);
      if (options.refuse) throw options.refuse;
      const placed = tokens.slice(0, count);
      const step = kind === "step" ? { sampling } : undefined;
      return {
        tokens: placed,
        parents: placed.map((_, i) => i - 1),
        cells: placed,
        history: [],
        table: [0],
        step,
      };
    },
    computed(_, result) {
      if (result) Object.assign(told, { picks: [...result.picks], shared: result.shared });
      if (this.rows === 0) options.next?.();
    },
    failed(error) {
      told.error = error;
    },
  });
  return told;
}

test("steps that wait go into one pass, each with its own rows' results", async () => {
  const { batcher, passes, pass } = machine();
  const first = ask(batcher, [1]);
  const [second, third] = [ask(batcher, [2, 3]), ask(batcher, [4])];
  await pass();
  await pass();
  expect(passes).toEqual([
    [1, 0],
    [3, 0],
  ]);
  expect([first, second, third].map((told) => told.picks)).toEqual([[1], [2, 3], [4]]);
  expect(first.shared).toBeUndefined();
  expect(second.shared).toEqual({ steps: 2, rows: 3, filled: 0, coreMs: 1 });
  expect(second.shared).toBe(third.shared);
});

test("a job hears whether it is alone: nothing else waits, nobody may be about to ask", async () => {
  const { batcher, pass } = machine();
  const alone: boolean[] = [];
  const [slow, owner] = [{}, {}];
  ask(batcher, [1], { alone });
  ask(batcher, [2], { alone, owner });
  ask(batcher, [3], { alone, owner: slow });
  await pass();
  await pass();
  ask(batcher, [4], { alone, owner });
  await new Promise(setImmediate);
  await pass();
  ask(batcher, [5], { alone, owner });
  await pass();
  expect(alone).toEqual([true, false, false, false, true]);
});

test("passes of the model and of each of its drafts are apart, by the oldest step", async () => {
  const { batcher, passes, drafts, pass } = machine();
  ask(batcher, [1]);
  const kinds = ["parallel", undefined, "fewer", "parallel", "fewer"] as const;
  const told = kinds.map((draft, i) => ask(batcher, [i], draft && { draft }));
  await pass();
  await pass(new Error("both"));
  await pass();
  await pass();
  await pass();
  await pass();
  expect(drafts).toEqual([undefined, "parallel", "parallel", "parallel", undefined, "fewer"]);
  expect(passes.map(([rows]) => rows)).toEqual([1, 2, 1, 1, 1, 2]);
  expect(told.map(({ picks }) => picks)).toEqual([[0], [1], [2], [3], [4]]);
});

test("the next pass starts once all sequences of the last one have asked again, in the same turn", async () => {
  const { batcher, passes, pass } = machine();
  const owners = [{}, {}, {}];
  ask(batcher, [9]);
  const again = (owner: object) => () => queueMicrotask(() => ask(batcher, [1], { owner }));
  for (const owner of owners) ask(batcher, [1], { owner, next: again(owner) });
  await pass();
  await pass();
  expect(passes).toEqual([
    [1, 0],
    [3, 0],
    [3, 0],
  ]);
});

test("a sequence that takes its time misses a pass and holds nobody up", async () => {
  const { batcher, passes, pass } = machine();
  const [prompt, slow] = [{}, {}];
  ask(batcher, [9]);
  ask(batcher, [1], { owner: prompt, next: () => ask(batcher, [1], { owner: prompt }) });
  ask(batcher, [1], { owner: slow, next: () => setTimeout(() => ask(batcher, [1], { owner: slow }), 20) });
  await pass();
  await pass();
  expect(passes.at(-1)).toEqual([1, 0]);
});

test("a sequence that leaves is not waited for", async () => {
  const { batcher, passes, pass } = machine();
  const [staying, leaving] = [{}, {}];
  ask(batcher, [9]);
  ask(batcher, [1], { owner: leaving });
  let started = 0;
  ask(batcher, [1], {
    owner: staying,
    next() {
      ask(batcher, [1], { owner: staying });
      started = passes.length;
      queueMicrotask(() => {
        batcher.leave(leaving);
        expect(passes.length).toBe(started + 1);
      });
    },
  });
  await pass();
  await pass();
  expect(started).toBe(2);
});

test("more rows of steps than a pass may have wait their turn, in order", async () => {
  const { batcher, passes, pass } = machine();
  ask(batcher, [0]);
  for (const length of [6, 6, 2]) ask(batcher, new Array<number>(length).fill(1));
  await pass();
  await pass();
  await pass();
  expect(passes).toEqual([
    [1, 0],
    [6, 0],
    [8, 0],
  ]);
});

test("a prompt beside steps takes small chunks, alone large ones", async () => {
  const { batcher, passes, pass } = machine();
  const owner = {};
  let steps = 2;
  const again = () => {
    if (steps-- > 0) ask(batcher, [1], { owner, next: again });
    else batcher.leave(owner);
  };
  ask(batcher, [1], { owner, next: again });
  ask(batcher, new Array<number>(1000).fill(2), { kind: "prefill" });
  for (let i = 0; i < 5; i++) await pass();
  expect(passes).toEqual([
    [1, 0],
    [1, 64],
    [1, 64],
    [0, 512],
    [0, 360],
  ]);
});

test("short prompts first, and the oldest always goes on", () => {
  const share = (prompts: number[], chunk: number) => {
    const named = prompts.map((rows, i) => ({ rows, i }));
    const shares = sharePrefill(named, ({ rows }) => rows, chunk);
    return named.map((prompt) => shares.get(prompt) ?? 0);
  };
  expect(share([4000, 20], 64)).toEqual([44, 20]);
  expect(share([4000, 100, 20], 64)).toEqual([16, 28, 20]);
  expect(share([4000, 100, 20, 30], 32)).toEqual([8, 0, 20, 4]);
  expect(share([5, 3], 64)).toEqual([5, 3]);
  expect(share([5, 3], 0)).toEqual([0, 0]);
  expect(share([], 64)).toEqual([]);
});

test("one that is aborted gets nothing, the others of its pass their results", async () => {
  const { batcher, pass, signals } = machine();
  const abort = new AbortController();
  const other = new AbortController();
  ask(batcher, [0]);
  const given = ask(batcher, [1], { signal: abort.signal });
  const kept = ask(batcher, [2], { signal: other.signal });
  await pass();
  abort.abort();
  expect(signals[1]!.aborted).toBe(false);
  await pass();
  expect(given).toMatchObject({ error: { code: "ERR_ABORTED" } });
  expect(given.picks).toBeUndefined();
  expect(kept.picks).toEqual([2]);
});

test("a pass that nobody wants any more is stopped", async () => {
  const { batcher, pass, signals } = machine();
  const aborts = [new AbortController(), new AbortController()];
  ask(batcher, [0]);
  const told = aborts.map(({ signal }) => ask(batcher, [1], { signal }));
  await pass();
  for (const abort of aborts) abort.abort();
  expect(signals[1]!.aborted).toBe(true);
  await pass(new OutriderError("ERR_ABORTED", "stopped"));
  for (const { error } of told) expect(error).toMatchObject({ code: "ERR_ABORTED" });
});

test("a pass that fails is run once more for each alone: the fault is its own", async () => {
  const { batcher, passes, pass } = machine();
  ask(batcher, [0]);
  const told = [ask(batcher, [1]), ask(batcher, [2])];
  const refused = ask(batcher, [3], { refuse: new Error("no room") });
  await pass();
  await pass(new Error("one of you"));
  await pass();
  await pass(new Error("you"));
  expect(passes.map(([steps]) => steps)).toEqual([1, 2, 1, 1]);
  expect(told[0]!.picks).toEqual([1]);
  expect(told[1]!.error).toMatchObject({ message: "you" });
  expect(refused.error).toMatchObject({ message: "no room" });
});

test("closing fails what waits and ends with the running pass", async () => {
  const { batcher, pass } = machine();
  const running = ask(batcher, [1]);
  const waiting = ask(batcher, [2]);
  const closing = batcher.close(new OutriderError("ERR_DISPOSED", "closed"));
  expect(waiting.error).toMatchObject({ code: "ERR_DISPOSED" });
  await pass();
  await closing;
  expect(running.picks).toEqual([1]);
});

test("closing ends a long prompt with the running pass", async () => {
  const { batcher, pass, passes } = machine({ prefillChunk: 2 });
  const prompt = ask(batcher, [1, 2, 3, 4, 5], { kind: "prefill" });
  const closing = batcher.close(new OutriderError("ERR_DISPOSED", "closed"));
  await pass();
  await closing;
  expect(prompt.error).toMatchObject({ code: "ERR_DISPOSED", message: "closed" });
  expect(passes).toHaveLength(1);
});
