import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { continuePlainly, goldenModel, loadEngine } from "../../test/support/engines.js";
import { parallelLayers } from "./draft-layers.js";
import type { Engine, EngineOptions } from "./engine.js";
import { resolveSampling } from "./sampling.js";
import type { Sequence } from "./sequence.js";

const vocab = 280;
const context = 64;
const sampling = resolveSampling({}, vocab, 0);
const tokens = (count: number, seed = 0) =>
  Array.from({ length: count }, (_, i) => (i * 37 + seed * 101 + 3) % vocab);
const failure = (code: string) => expect.objectContaining({ code });

let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine(goldenModel("quant-q4_0"), { context, threads: 2, prefillChunk: 8 });
});
beforeEach(() => engine.forget());
afterAll(() => engine[Symbol.asyncDispose]());

async function filled(cached: readonly number[]): Promise<Sequence> {
  const sequence = engine.open();
  await sequence.prefill(cached);
  return sequence;
}

/** What a fresh sequence says after these tokens and then `last`. */
async function fresh(cached: readonly number[], last: number) {
  const sequence = await filled(cached);
  const said = await continuePlainly(sequence, last, sampling, 5);
  sequence[Symbol.dispose]();
  engine.forget();
  return said;
}

describe("layers side by side", () => {
  test.each([1, 2, 3, 4, 5, 8, 30])("of %i are all layers, in order", (layers) => {
    const groups = parallelLayers(layers);
    expect(groups.flat()).toEqual(Array.from({ length: layers }, (_, i) => i));
    expect(groups.some((group) => group.length > 1)).toBe(layers > 2);
  });
});

describe("a draft step", () => {
  test("leaves nothing behind that an exact one, a fork or a later text could take for the model's", async () => {
    const cached = tokens(20);
    const said = await fresh(cached, 5);
    const sequence = await filled(cached);
    const { picks } = await sequence.step([5], { sampling, draft: "fewer" });
    sequence.keep([0]);
    await sequence.step([picks[0]!, 1], { sampling, draft: "fewer" });
    sequence.keep([0]);
    await expect(sequence.step([6], { sampling })).rejects.toEqual(failure("ERR_BAD_REQUEST"));
    await expect(sequence.prefill([6])).rejects.toEqual(failure("ERR_BAD_REQUEST"));
    expect(() => sequence.fork()).toThrow("2 drafted tokens");
    sequence.truncate(21);
    expect(() => sequence.fork(21)).toThrow("1 drafted tokens");
    sequence.fork(20)[Symbol.dispose]();
    sequence[Symbol.dispose]();
    using later = engine.open([...cached, 5, 6]);
    expect(later.tokens).toEqual(cached);
    expect(await continuePlainly(later, 5, sampling, 5)).toEqual(said);
  });

  test("may be in the queue beside exact ones", async () => {
    const texts = [1, 2, 3, 4].map((seed) => tokens(20, seed));
    const alone = [];
    for (const text of texts) alone.push(await fresh(text, 5));
    const together = await Promise.all(
      texts.map(async (text) => {
        using sequence = await filled(text);
        const said = { tokens: [] as number[], logprobs: [] as number[] };
        for (let last = 5; said.tokens.length < 5; last = said.tokens.at(-1)!) {
          await sequence.step([last], { sampling, draft: "fewer" });
          sequence.keep([0]);
          sequence.truncate(text.length + said.tokens.length);
          const one = await continuePlainly(sequence, last, sampling, 1);
          said.tokens.push(...one.tokens);
          said.logprobs.push(...one.logprobs);
        }
        return said;
      }),
    );
    expect(together).toEqual(alone);
  });
});

describe("a step", () => {
  test("gives a pick, its log-probability and the best tokens for every row, logits and scores where asked for", async () => {
    using sequence = await filled(tokens(10));
    const result = await sequence.step([1, 2, 3], { sampling, top: 4, logits: true, score: [7, 8, 9] });
    sequence.keep([0, 1, 2]);
    expect(result.picks).toHaveLength(3);
    expect(result.topTokens).toHaveLength(12);
    expect(result.logits).toHaveLength(3 * vocab);
    for (let row = 0; row < 3; row++) {
      const logits = result.logits!.subarray(row * vocab, (row + 1) * vocab);
      const most = Math.max(...logits);
      const logZ = most + Math.log(logits.reduce((sum, l) => sum + Math.exp(l - most), 0));
      expect(result.picks[row]).toBe(logits.indexOf(most));
      expect(result.logprobs[row]).toBeCloseTo(most - logZ, 4);
      expect(result.topTokens[row * 4]).toBe(result.picks[row]);
      expect(result.topLogprobs[row * 4]).toBe(result.logprobs[row]);
      expect(result.topLogprobs[row * 4 + 3]).toBeLessThanOrEqual(result.topLogprobs[row * 4 + 2]!);
      expect(result.scores![row]).toBeCloseTo(logits[7 + row]! - logZ, 4);
    }
    expect(sequence.tokens).toEqual([...tokens(10), 1, 2, 3]);
  });

  const ends = new Set<number>();
  test("over one token is followed by passes over what was drawn, kept as far as wanted", async () => {
    const drawn = resolveSampling({ temperature: 1, seed: 3 }, vocab, 0);
    const said = await (async () => {
      using sequence = await filled(tokens(10));
      return await continuePlainly(sequence, 5, drawn, 30);
    })();
    engine.forget();
    using sequence = await engine.admit(tokens(11), 60);
    await sequence.prefill(tokens(10));
    const first = await sequence.step([5], {
      sampling: drawn,
      top: 2,
      follow: { passes: 20, ms: Number.POSITIVE_INFINITY, ends },
    });
    expect([...first.picks]).toEqual(said.tokens.slice(0, 21));
    expect([...first.logprobs]).toEqual(said.logprobs.slice(0, 21));
    expect(first.topTokens).toHaveLength(42);
    sequence.keep([0, 1, 2]);
    expect(sequence.tokens).toEqual([...tokens(10), 5, ...said.tokens.slice(0, 2)]);
    const end = new Set([said.tokens[9]!]);
    const second = await sequence.step([said.tokens[2]!], {
      sampling: drawn,
      follow: { passes: 20, ms: Number.POSITIVE_INFINITY, ends: end },
    });
    const until = said.tokens.findIndex((token, i) => i >= 3 && end.has(token)) + 1;
    expect([...second.picks]).toEqual(said.tokens.slice(3, until));
    sequence.keep(second.picks.length > 1 ? [0, 1] : [0]);
    const rest = await continuePlainly(sequence, said.tokens[4]!, drawn, 6);
    expect(rest.tokens).toEqual(said.tokens.slice(5, 11));
    expect(rest.logprobs).toEqual(said.logprobs.slice(5, 11));
  });

  test.each([
    ["penalties", { sampling: resolveSampling({ presencePenalty: 1 }, vocab, 0) }, 1],
    ["a mask", { masks: [new Int32Array(Math.ceil(vocab / 32)).fill(-1)] }, 1],
    ["scores", { score: [1] }, 1],
    ["logits", { logits: true }, 1],
    ["nothing reserved: as far as its block goes", {}, 6],
  ])("with %s is followed as far as may be", async (_, options, count) => {
    using sequence = await filled(tokens(10));
    const { picks } = await sequence.step([5], {
      sampling,
      follow: { passes: 20, ms: Number.POSITIVE_INFINITY, ends },
      ...options,
    });
    expect(picks).toHaveLength(count);
    sequence.keep([0]);
    using whole = await filled(tokens(context - 3));
    const last = await whole.step([5], {
      sampling,
      follow: { passes: 20, ms: Number.POSITIVE_INFINITY, ends },
    });
    expect(last.picks).toHaveLength(3);
    whole.keep([0, 1, 2]);
  });

  test("is followed no more once its time is over", async () => {
    using sequence = await filled(tokens(16));
    for (const [ms, count] of [
      [0, 1],
      [1e-6, 1],
      [Number.POSITIVE_INFINITY, 3],
    ] as const) {
      const { picks } = await sequence.step([5], { sampling, follow: { passes: 2, ms, ends } });
      expect(picks).toHaveLength(count);
      sequence.keep([]);
    }
  });

  test("of a fork is followed in cells of its own, and beside other texts is not", async () => {
    const said = await fresh(tokens(10), 5);
    using sequence = await filled(tokens(10));
    using fork = sequence.fork();
    const follow = { passes: 3, ms: Number.POSITIVE_INFINITY, ends };
    // The text that was written last may be about to ask.
    expect((await fork.step([5], { sampling, follow })).picks).toHaveLength(1);
    fork.keep([]);
    const { picks } = await fork.step([5], { sampling, follow });
    expect([...picks]).toEqual(said.tokens.slice(0, 4));
    fork.keep([0, 1, 2, 3]);
    const both = await Promise.all([
      sequence.step([5], { sampling, follow }),
      fork.step([picks[3]!], { sampling, follow }),
    ]);
    expect(both.map((result) => [...result.picks])).toEqual([[said.tokens[0]], [said.tokens[4]]]);
    for (const each of [sequence, fork]) each.keep([0]);
    const busy = sequence.prefill(tokens(8, 2));
    const [one, other] = [fork.step([1], { sampling, follow }), filled(tokens(3))];
    await busy;
    expect((await one).picks).toHaveLength(1);
    fork.keep([0]);
    (await other)[Symbol.dispose]();
    expect((await continuePlainly(sequence, 5, sampling, 1)).tokens).toHaveLength(1);
  });

  test("stops to follow when it is aborted", { timeout: 60_000 }, async () => {
    using sequence = await engine.admit(tokens(11), context);
    await sequence.prefill(tokens(10));
    const said = await sequence.step([5], {
      sampling,
      follow: { passes: 50, ms: Number.POSITIVE_INFINITY, ends },
    });
    sequence.keep([]);
    // Until one was stopped in the middle.
    for (let i = 0, stopped = false; !stopped; i++) {
      const abort = new AbortController();
      const step = sequence.step([5], {
        sampling,
        follow: { passes: 50, ms: Number.POSITIVE_INFINITY, ends },
        signal: abort.signal,
      });
      for (let turn = i % 10; turn > 0; turn--) await new Promise(setImmediate);
      abort.abort();
      const result = await step.catch((error: unknown) => {
        expect(error).toEqual(failure("ERR_ABORTED"));
      });
      if (!result) continue;
      expect(result.picks).toEqual(said.picks.subarray(0, result.picks.length));
      stopped = result.picks.length < said.picks.length;
      sequence.keep([]);
    }
  });

  test("penalties reach each row by its own path", async () => {
    using sequence = await filled(tokens(10));
    const forbid = resolveSampling({ frequencyPenalty: 100 }, vocab, 10);
    const plain = await sequence.step([1], { sampling: forbid });
    const next = plain.picks[0]!;
    sequence.keep([]);
    // Row 1 has the pick on its path and may not draw it again; row 2 has not.
    const tree = await sequence.step([1, next, 5], { sampling: forbid, parents: [-1, 0, 0], top: 1 });
    sequence.keep([]);
    expect(tree.picks[0]).toBe(next);
    expect(tree.picks[1]).not.toBe(next);
    expect(tree.picks[2]).not.toBe(5);
  });

  test.each([
    ["no tokens", [], undefined],
    ["too many tokens", tokens(65), undefined],
    ["a parent too few", [1, 2], [-1]],
    ["a parent of itself", [1, 2], [-1, 1]],
    ["a parent below -1", [1], [-2]],
    ["half a parent", [1, 2, 3], [-1, 0, 0.5]],
  ])("of %s is refused", async (_, pass, parents) => {
    using sequence = engine.open();
    await expect(sequence.step(pass, { sampling, parents })).rejects.toMatchObject({
      code: pass.length > context ? "ERR_CONTEXT" : "ERR_BAD_REQUEST",
    });
    await expect(continuePlainly(sequence, 1, sampling, 2)).resolves.toBeDefined();
  });

  test("over a token beyond the vocabulary is refused, and the sequence goes on", async () => {
    const expected = await fresh(tokens(10), 1);
    using sequence = await filled(tokens(10));
    await expect(sequence.step([vocab], { sampling })).rejects.toMatchObject({ code: "ERR_PROGRAM" });
    await expect(sequence.prefill([-1])).rejects.toMatchObject({ code: "ERR_PROGRAM" });
    expect(sequence.tokens).toEqual(tokens(10));
    expect(await continuePlainly(sequence, 1, sampling, 5)).toEqual(expected);
  });
});

describe("keep", () => {
  // 1 → (2 → 3, 6 → (8, 9)), 7 → 5: siblings at three depths, over the end of a block, under two roots.
  const tree = { tokens: [1, 2, 3, 6, 8, 9, 7, 5], parents: [-1, 0, 1, 0, 3, 3, -1, 6] };
  const paths = [[], [0], [0, 1, 2], [0, 3, 4], [0, 3, 5], [6], [6, 7]];

  test.each(paths.map((path) => [path]))("of path %o leaves what a chain would have left", async (path) => {
    const kept = path.map((row) => tree.tokens[row]!);
    const expected = await fresh([...tokens(14), ...kept], 4);
    using sequence = await filled(tokens(14));
    await sequence.step(tree.tokens, { sampling, parents: tree.parents });
    sequence.keep(path);
    expect(sequence.tokens).toEqual([...tokens(14), ...kept]);
    expect(await continuePlainly(sequence, 4, sampling, 5)).toEqual(expected);
  });

  test("every row of a tree says what a chain along its path says", async () => {
    using sequence = await filled(tokens(14));
    const rows = await sequence.step(tree.tokens, { sampling, parents: tree.parents });
    sequence.keep([]);
    for (const path of paths.slice(1)) {
      const chain = await sequence.step(
        path.map((row) => tree.tokens[row]!),
        { sampling },
      );
      sequence.keep([]);
      expect(path.map((row) => rows.picks[row])).toEqual([...chain.picks]);
      expect(path.map((row) => rows.logprobs[row])).toEqual([...chain.logprobs]);
    }
  });

  test.each([[[1]], [[0, 2]], [[0, 1, 3]], [[2]], [[0, 0]], [[7]], [[-1]], [[0.5]]])(
    "%o, which is no path, is refused and the right path is still there",
    async (path) => {
      const expected = await fresh([...tokens(10), 1, 2], 4);
      using sequence = await filled(tokens(10));
      await sequence.step([1, 2, 3, 5], { sampling, parents: [-1, 0, 1, 0] });
      expect(() => sequence.keep(path)).toThrow(failure("ERR_BAD_REQUEST"));
      sequence.keep([0, 1]);
      expect(await continuePlainly(sequence, 4, sampling, 5)).toEqual(expected);
    },
  );

  test("must follow a step, once", async () => {
    using sequence = await filled(tokens(4));
    expect(() => sequence.keep([])).toThrow(failure("ERR_BAD_REQUEST"));
    await sequence.step([1], { sampling });
    await expect(sequence.step([2], { sampling })).rejects.toMatchObject({ code: "ERR_BAD_REQUEST" });
    await expect(sequence.prefill([2])).rejects.toMatchObject({ code: "ERR_BAD_REQUEST" });
    expect(() => sequence.truncate(0)).toThrow(failure("ERR_BAD_REQUEST"));
    expect(() => sequence.fork()).toThrow(failure("ERR_BAD_REQUEST"));
    sequence.keep([0]);
    expect(() => sequence.keep([0])).toThrow(failure("ERR_BAD_REQUEST"));
  });
});

describe("truncate and fork", () => {
  test.each([0, 1, 15, 16, 17, 30])("cut at %i, each goes on as if it were alone", async (length) => {
    const expected = await fresh(tokens(30).slice(0, length), 4);
    const whole = await fresh(tokens(30), 4);
    using sequence = await filled(tokens(30));
    using fork = sequence.fork(length);
    expect(fork.tokens).toEqual(tokens(30).slice(0, length));
    const both = await Promise.all([
      continuePlainly(fork, 4, sampling, 5),
      continuePlainly(sequence, 4, sampling, 5),
    ]);
    expect(both).toEqual([expected, whole]);
    sequence.truncate(length);
    expect(await continuePlainly(sequence, 4, sampling, 5)).toEqual(expected);
  });

  test("a fork outlives its source, and the source's blocks", async () => {
    const expected = await fresh(tokens(20), 4);
    const sequence = await filled(tokens(24));
    using fork = sequence.fork(20);
    sequence[Symbol.dispose]();
    engine.forget();
    using other = await filled(tokens(60, 1));
    expect(await continuePlainly(fork, 4, sampling, 5)).toEqual(expected);
    expect(other.tokens).toHaveLength(60);
  });

  test.each([-1, 11, 0.5, Number.NaN])("at %d is refused", async (length) => {
    using sequence = await filled(tokens(10));
    expect(() => sequence.truncate(length)).toThrow(failure("ERR_BAD_REQUEST"));
    expect(() => sequence.fork(length)).toThrow(failure("ERR_BAD_REQUEST"));
    expect(sequence.tokens).toHaveLength(10);
  });
});

describe("misuse", () => {
  test("overlapping calls are refused, the first one is not disturbed", async () => {
    const expected = await fresh(tokens(40), 4);
    using sequence = engine.open();
    // Five chunks: between two of them the sequence is as busy as within one.
    const filling = sequence.prefill(tokens(40));
    let refusals = 0;
    let over = false;
    const finished = filling.then(() => {
      over = true;
    });
    while (!over) {
      await Promise.resolve();
      await new Promise((resolve) => setImmediate(resolve));
      if (over) break;
      await expect(sequence.step([1], { sampling })).rejects.toMatchObject({ code: "ERR_BAD_REQUEST" });
      expect(() => sequence.truncate(0)).toThrow(failure("ERR_BAD_REQUEST"));
      expect(() => sequence[Symbol.dispose]()).toThrow(failure("ERR_BAD_REQUEST"));
      refusals++;
    }
    await finished;
    expect(refusals).toBeGreaterThan(0);
    expect(await continuePlainly(sequence, 4, sampling, 5)).toEqual(expected);
  });

  test("a disposed sequence is ERR_DISPOSED, a second disposal is harmless", async () => {
    const sequence = await filled(tokens(4));
    sequence[Symbol.dispose]();
    sequence[Symbol.dispose]();
    await expect(sequence.step([1], { sampling })).rejects.toMatchObject({ code: "ERR_DISPOSED" });
    await expect(sequence.prefill([1])).rejects.toMatchObject({ code: "ERR_DISPOSED" });
    expect(() => sequence.truncate(0)).toThrow(failure("ERR_DISPOSED"));
    expect(() => sequence.fork()).toThrow(failure("ERR_DISPOSED"));
  });

  test("a sequence disposed of with a pending step leaves only what was kept", async () => {
    {
      using sequence = await filled(tokens(10));
      await sequence.step([1, 2], { sampling, parents: [-1, -1] });
    }
    expect(engine.open([...tokens(10), 1, 2]).tokens).toEqual(tokens(10));
  });

  test.each<[EngineOptions, string]>([
    [{ threads: 0 }, "threads"],
    [{ threads: 65 }, "threads"],
    [{ threads: 1.5 }, "threads"],
    [{ context: 7 }, "context"],
    [{ context: 513 }, "context"],
    [{ prefillChunk: 0 }, "prefillChunk"],
    [{ prefillChunk: 2049 }, "prefillChunk"],
    [{ prefillChunk: Number.NaN }, "prefillChunk"],
  ])("options %o are refused", async (options, param) => {
    await expect(loadEngine(goldenModel("quant-q4_0"), options)).rejects.toMatchObject({
      code: "ERR_BAD_REQUEST",
      param,
    });
  });
});

describe("a full context", () => {
  test("takes its last position and no more", async () => {
    using sequence = await filled(tokens(context - 2));
    await expect(sequence.prefill([1, 2, 3])).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    await expect(sequence.step([1, 2, 3], { sampling })).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    await sequence.step([1, 2], { sampling });
    sequence.keep([0, 1]);
    expect(sequence.tokens).toHaveLength(context);
    await expect(sequence.step([1], { sampling })).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    sequence.truncate(10);
    await expect(continuePlainly(sequence, 1, sampling, 3)).resolves.toBeDefined();
  });

  test("of the whole cache refuses new positions, and others still go on", async () => {
    const expected = await fresh(tokens(20), 4);
    using steady = await filled(tokens(20));
    const crowd: Sequence[] = [];
    const crowded = async () => {
      for (;;) {
        const sequence = engine.open();
        crowd.push(sequence);
        await sequence.prefill(tokens(context, crowd.length));
      }
    };
    await expect(crowded()).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    expect(crowd.length).toBeGreaterThanOrEqual(4);
    // A tree that needs more than there is takes nothing.
    const wide = tokens(40);
    await expect(
      steady.step(wide, { sampling, parents: wide.map(() => -1) }).then(() => {
        steady.keep([]);
        throw failure("no refusal");
      }),
    ).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    // The closed ones' positions are kept for a later turn until somebody needs the place.
    for (const sequence of crowd) sequence[Symbol.dispose]();
    expect(await continuePlainly(steady, 4, sampling, 5)).toEqual(expected);
    using another = await filled(tokens(context, 99));
    expect(another.tokens).toHaveLength(context);
  });

  test("trees, forks and refusals lose no block", async () => {
    for (let round = 0; round < 40; round++) {
      using sequence = await filled(tokens(20, round));
      using fork = sequence.fork(18);
      const wide = tokens(30);
      await fork.step(wide, { sampling, parents: wide.map(() => -1) });
      fork.keep([round % 30]);
      await sequence.step([1, 2, 3], { sampling, parents: [-1, 0, 0] });
      sequence.keep([0, 2]);
      await expect(fork.step([vocab, 1, 2], { sampling, parents: [-1, -1, -1] })).rejects.toBeDefined();
      expect(() => fork.keep([])).toThrow();
    }
    engine.forget();
    const four = await Promise.all([1, 2, 3, 4].map((seed) => filled(tokens(context, seed))));
    for (const sequence of four) sequence[Symbol.dispose]();
  });
});

describe("the prefix of an earlier text", () => {
  test("is there again, at most all but the last token", async () => {
    (await filled(tokens(40)))[Symbol.dispose]();
    const whole = engine.open(tokens(40));
    expect(whole.tokens).toEqual(tokens(39));
    whole[Symbol.dispose]();
    using part = engine.open([...tokens(25), 1, 2, 3]);
    expect(part.tokens).toEqual(tokens(25));
    expect(engine.open([9, 9, 9]).tokens).toEqual([]);
  });

  test("gives the same bits as a fresh one", async () => {
    const expected = await fresh([...tokens(25), 1, 2], 3);
    (await filled(tokens(40)))[Symbol.dispose]();
    using sequence = engine.open([...tokens(25), 1, 2, 3]);
    await sequence.prefill([1, 2]);
    expect(await continuePlainly(sequence, 3, sampling, 5)).toEqual(expected);
  });

  test("the longest one is taken", async () => {
    const texts = [10, 30, 20].map((length) => [...tokens(length), 250, 251]);
    // Open at the same time, or each would take the place of the one before.
    const sequences = await Promise.all(texts.map(filled));
    for (const sequence of sequences) sequence[Symbol.dispose]();
    expect(engine.open(tokens(40)).tokens).toEqual(tokens(30));
  });

  test("two conversations with one beginning both keep their own", async () => {
    const beginning = tokens(10);
    const conversations = [1, 2].map((n) => [...beginning, ...tokens(40, n)]);
    for (const conversation of [...conversations, ...conversations]) {
      using sequence = engine.open(conversation);
      await sequence.prefill(conversation.slice(sequence.tokens.length));
    }
    for (const conversation of conversations)
      expect(engine.open([...conversation, 5]).tokens).toEqual(conversation);
  });

  test("is gone after forget", async () => {
    (await filled(tokens(40)))[Symbol.dispose]();
    engine.forget();
    expect(engine.open(tokens(40)).tokens).toEqual([]);
  });
});

describe("memory for what a text may need", () => {
  const roomy = () => loadEngine(goldenModel("quant-q4_0"), { context, sequences: 4 });

  test("is refused where open texts may need it, and free again when they close", async () => {
    await using engine = await roomy();
    const texts = [1, 2, 3, 4].map(() => engine.open([], context));
    expect(() => engine.open([], 1)).toThrow(failure("ERR_BUSY"));
    // One that reserves nothing gets nothing of what others count on.
    using guest = engine.open();
    await expect(guest.prefill(tokens(20, 9))).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    await Promise.all(texts.map((text, i) => text.prefill(tokens(context, i))));
    for (const text of texts) text[Symbol.dispose]();
    await guest.prefill(tokens(20, 9));
    using another = engine.open([], context);
    await another.prefill(tokens(context, 7));
  });

  test("is waited for, in order", async () => {
    await using engine = await roomy();
    const texts = [1, 2, 3, 4].map(() => engine.open([], context));
    const entered: number[] = [];
    const abort = new AbortController();
    const enter = async (n: number, positions: number, signal?: AbortSignal) => {
      const sequence = await engine.admit(tokens(10, n), positions, signal);
      entered.push(n);
      return sequence;
    };
    const waiting = [enter(1, context), enter(2, 1, abort.signal), enter(3, 1)];
    await new Promise(setImmediate);
    expect(entered).toEqual([]);
    abort.abort();
    await expect(waiting[1]).rejects.toMatchObject({ code: "ERR_ABORTED" });
    texts[0]![Symbol.dispose]();
    const [first] = await Promise.all([waiting[0]!]);
    expect(entered).toEqual([1]);
    texts[1]![Symbol.dispose]();
    (await waiting[2]!)[Symbol.dispose]();
    first[Symbol.dispose]();
    for (const text of texts) text[Symbol.dispose]();
  });

  test("is told", async () => {
    await using engine = await roomy();
    const all = engine.usage.positions;
    using sequence = engine.open();
    await sequence.prefill(tokens(20));
    using fork = sequence.fork(16);
    expect(engine.usage).toEqual({ positions: all, used: 32, kept: 0 });
    fork[Symbol.dispose]();
    sequence[Symbol.dispose]();
    expect(engine.usage).toEqual({ positions: all, used: 0, kept: 32 });
  });
});

describe("passes take turns", () => {
  test("many texts at once are each the text alone", async () => {
    const starts = Array.from({ length: 6 }, (_, i) => tokens(5 + i, i));
    const alone = [];
    for (const start of starts) alone.push(await fresh(start, 4));
    const together = await Promise.all(
      starts.map(async (start) => {
        using sequence = await filled(start);
        return await continuePlainly(sequence, 4, sampling, 5);
      }),
    );
    expect(together).toEqual(alone);
  });

  test("one that is given up while it waits leaves the others their turn", async () => {
    const expected = await fresh(tokens(20), 4);
    using first = await filled(tokens(20));
    using second = engine.open();
    const abort = new AbortController();
    const running = continuePlainly(first, 4, sampling, 5);
    const waiting = second.prefill(tokens(20, 1), abort.signal);
    abort.abort(new Error("enough"));
    await expect(waiting).rejects.toMatchObject({ code: "ERR_ABORTED", cause: new Error("enough") });
    expect(await running).toEqual(expected);
    second.truncate(0);
    await second.prefill(tokens(20));
    expect(await continuePlainly(second, 4, sampling, 5)).toEqual(expected);
  });
});
