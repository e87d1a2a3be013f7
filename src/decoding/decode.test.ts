import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Sampling } from "../engine/sampling.js";
import { type DecodedStep, type DecodeOptions, decode } from "./decode.js";
import { draftModel } from "./draft-model.js";
import { type Draft, type Drafter, noDrafter } from "./drafter.js";
import { fixedLength, type Planner } from "./plan.js";
import { acceptanceRate, newStats, tokensPerPass } from "./stats.js";
import { type FakeOptions, fakeSequence, GREEDY } from "./testing.js";

const PROMPT = [3, 1, 4, 1, 5, 9, 2, 6];
const SAMPLED: Sampling = { ...GREEDY, temperature: 0.8, seed: 7 };

interface Run extends Partial<DecodeOptions> {
  readonly fake?: FakeOptions;
}

/** Decodes to the end and checks after every step what must hold whatever is drafted. */
async function run({ fake, ...options }: Run = {}) {
  using sequence = fakeSequence(fake);
  await sequence.prefill(PROMPT.slice(0, -1));
  const stats = newStats();
  const steps: DecodedStep[] = [];
  const text = [...PROMPT];
  const all = {
    drafter: noDrafter(),
    planner: fixedLength(4),
    sampling: GREEDY,
    maxTokens: 40,
    endIds: new Set<number>(),
    stats,
    ...options,
  };
  for await (const step of decode(sequence, PROMPT.at(-1)!, all)) {
    steps.push(step);
    text.push(...step.tokens);
    expect(sequence.tokens).toEqual(text.slice(0, -1));
  }
  const tokens = steps.flatMap((step) => [...step.tokens]);
  expect(steps.findIndex((step) => step.finish !== undefined)).toBe(steps.length - 1);
  expect(stats.tokens).toBe(tokens.length);
  expect(stats.tokens).toBe(stats.passes + stats.accepted);
  expect(stats.drafted).toBe(stats.draftedByPosition.reduce((sum, n) => sum + n, 0));
  expect(stats.accepted).toBe(stats.acceptedByPosition.reduce((sum, n) => sum + n, 0));
  expect(stats.accepted).toBe(steps.reduce((sum, step) => sum + step.accepted, 0));
  return {
    tokens,
    logprobs: steps.flatMap((step) => [...step.logprobs]),
    topTokens: steps.flatMap((step) => [...step.topTokens]),
    topLogprobs: steps.flatMap((step) => [...step.topLogprobs]),
    finish: steps.at(-1)!.finish,
    stats,
    steps,
  };
}

function scripted(propose: Drafter["propose"], name = "scripted"): Drafter {
  return { ...noDrafter(), name, propose };
}

/** Proposes what plain decoding will say, as an oracle. */
function oracle(truth: readonly number[]): Drafter {
  let at = 0;
  return {
    ...noDrafter(),
    name: "oracle",
    accept(tokens) {
      at += tokens.length;
    },
    propose(limit) {
      const tokens = truth.slice(at, at + limit);
      return { tokens, probabilities: tokens.map(() => 0.9) };
    },
  };
}

const same = ({ tokens, logprobs, topTokens, topLogprobs, finish }: Awaited<ReturnType<typeof run>>) => ({
  tokens,
  logprobs,
  topTokens,
  topLogprobs,
  finish,
});

describe("decode", () => {
  test("emits maxTokens tokens, one a pass, without a drafter", async () => {
    const { tokens, finish, stats } = await run();
    expect(tokens).toHaveLength(40);
    expect(finish).toBe("length");
    expect(tokensPerPass(stats)).toBe(1);
    expect(acceptanceRate(stats)).toBe(0);
  });

  test("where nothing is drafted, the core makes the passes of 16 ms at a time, and all is as if one by one", async () => {
    const oneByOne = await run({ top: 2 });
    for (const passMs of [1, 3, 7.5, 20]) {
      const ended = await run({ planner: fixedLength(0), top: 2, fake: { cost: () => passMs } });
      expect(same(ended)).toEqual(same(oneByOne));
      expect(ended.stats).toMatchObject({
        passes: 40,
        tokens: 40,
        drafted: 0,
        accepted: 0,
        coreMs: 40 * passMs,
      });
      // The fake sequence takes 16 tokens a step.
      const together = Math.min(16, Math.ceil(16 / passMs));
      expect(ended.steps.map(({ tokens }) => tokens.length)).toEqual(
        Array.from({ length: Math.ceil(40 / together) }, (_, i) => Math.min(together, 40 - i * together)),
      );
    }
    const endIds = new Set([oneByOne.tokens[17]!]);
    const end = oneByOne.tokens.findIndex((token) => endIds.has(token));
    const ended = await run({ planner: fixedLength(0), top: 2, endIds });
    expect(ended.tokens).toEqual(oneByOne.tokens.slice(0, end + 1));
    expect(ended.finish).toBe("end");
    const traced = await run({ planner: fixedLength(0), trace: true, maxTokens: 12 });
    expect(traced.steps.map(({ pass }) => pass!.tokens)).toEqual(
      oneByOne.tokens.slice(0, 12).map((token) => [token]),
    );
  });

  test("a drafter that gave up for so many passes sees what they said, and is asked again behind them", async () => {
    const plain = await run();
    const seen: number[] = [];
    const asked: number[] = [];
    const observed: number[] = [];
    let idle = 0;
    const drafter: Drafter = {
      ...noDrafter(),
      name: "gave up",
      accept(tokens, pass) {
        seen.push(...tokens);
        expect(pass!.path.map((row) => pass!.result.picks[row])).toEqual(tokens);
      },
      propose() {
        asked.push(seen.length);
        return { tokens: [], probabilities: [] };
      },
    };
    const planner: Planner = {
      ...fixedLength(1),
      limit: (most) => (most > 0 && idle++ % 2 === 1 ? 1 : 0),
      rest: () => 5,
      observe: ({ emitted, length, coreMs }) => observed.push(emitted, length, coreMs),
    };
    const { tokens, stats } = await run({ drafter, planner, maxTokens: 20 });
    expect(tokens).toEqual(plain.tokens.slice(0, 20));
    expect(seen).toEqual(tokens);
    expect(asked).toEqual([6, 13]);
    expect(stats.passes).toBe(20);
    expect(observed).toEqual(Array.from({ length: 60 }, () => 1));
  });

  test("takes whole right drafts and says the same", async () => {
    const plain = await run();
    const drafted = await run({ drafter: oracle(plain.tokens) });
    expect(same(drafted)).toEqual(same(plain));
    expect(drafted.stats.passes).toBe(8);
    expect(acceptanceRate(drafted.stats)).toBe(1);
    expect(drafted.stats.acceptedByPosition).toEqual([8, 8, 8, 8]);
  });

  test("a trace says which drafts a pass verified and where they came from", async () => {
    const plain = await run();
    const [first, second] = plain.tokens as [number, number];
    const wrong = (second + 1) % 16;
    const tree = { tokens: [first, wrong, second], parents: [-1, 0, 0], probabilities: [1, 1, 1] };
    const drafter = scripted(() => ({ ...tree, sources: ["a", "b", "c"] }));
    const { steps } = await run({ drafter, maxTokens: 4, trace: true });
    expect(steps[0]!.pass).toEqual({
      tokens: plain.tokens.slice(0, 3),
      drafted: [first, wrong, second],
      parents: [-1, 0, 0],
      sources: ["a", "b", "c"],
      accepted: 2,
      ms: expect.any(Number),
    });
    const named = await run({
      drafter: scripted(() => ({ tokens: [1], probabilities: [1] }), "own"),
      trace: true,
    });
    expect(named.steps[0]!.pass!.sources).toEqual(["own"]);
    expect((await run()).steps[0]!.pass).toBeUndefined();
  });

  test("rejection leaves the texts' distribution as it is, whatever is drafted", async () => {
    const fake = { vocab: 6 };
    const text = async (seed: number, drafter: Drafter, verify: "coupled" | "rejection") => {
      using sequence = fakeSequence(fake);
      await sequence.prefill([3]);
      const tokens: number[] = [];
      const options = {
        drafter,
        verify,
        planner: fixedLength(3),
        sampling: { ...SAMPLED, seed },
        maxTokens: 3,
      };
      for await (const step of decode(sequence, 1, { ...options, endIds: new Set() })) {
        tokens.push(...step.tokens);
        for (const [i, token] of step.tokens.entries())
          if (verify === "rejection") expect(step.logprobs[i], String(token)).toBeLessThanOrEqual(1e-5);
      }
      return tokens.join();
    };
    const tree = scripted(() => ({
      tokens: [1, 4, 2, 5],
      parents: [-1, -1, 0, 1],
      probabilities: [1, 1, 1, 1],
    }));
    const runs = 4000;
    const counts = new Map<string, [number, number, number]>();
    for (let seed = 0; seed < runs; seed++) {
      using model = draftModel(fakeSequence({ ...fake, next: (all) => all.length % 6 }));
      const texts = [
        await text(seed, noDrafter(), "coupled"),
        await text(seed + runs, tree, "rejection"),
        await text(seed + 2 * runs, model, "rejection"),
      ];
      for (const [i, key] of texts.entries()) {
        const row = counts.get(key) ?? [0, 0, 0];
        row[i]!++;
        counts.set(key, row);
      }
    }
    for (const other of [1, 2]) {
      let statistic = 0;
      let cells = 0;
      for (const row of counts.values()) {
        const [a, b] = [row[0], row[other]!];
        if (a + b < 10) continue;
        cells++;
        statistic += (a - b) ** 2 / (a + b);
      }
      expect(cells).toBeGreaterThan(20);
      expect((statistic - cells) / Math.sqrt(2 * cells)).toBeLessThan(4);
    }
  });

  test("stops at an end token inside an accepted draft", async () => {
    const plain = await run();
    const endIds = new Set([plain.tokens[6]!]);
    const first = plain.tokens.findIndex((token) => endIds.has(token));
    const stopped = await run({ endIds });
    const drafted = await run({ endIds, drafter: oracle(plain.tokens) });
    expect(stopped.tokens).toEqual(plain.tokens.slice(0, first + 1));
    expect(stopped.finish).toBe("end");
    expect(same(drafted)).toEqual(same(stopped));
  });

  test.each([1, 2, 3, 5, 6])("emits exactly maxTokens = %i when drafts reach beyond", async (maxTokens) => {
    const plain = await run();
    const drafted = await run({ maxTokens, drafter: oracle(plain.tokens), planner: fixedLength(15) });
    expect(drafted.tokens).toEqual(plain.tokens.slice(0, maxTokens));
    expect(drafted.finish).toBe("length");
  });

  test.each([9, 10, 12, 15])("fills a context of %i tokens and no more", async (context) => {
    const plain = await run();
    const drafted = await run({ fake: { context }, drafter: oracle(plain.tokens) });
    expect(drafted.tokens).toEqual(plain.tokens.slice(0, context - PROMPT.length));
    expect(drafted.finish).toBe("context");
  });

  test.each([
    ["maxTokens 0", { maxTokens: 0 }, "length"],
    ["a prompt that fills the context", { fake: { context: PROMPT.length } }, "context"],
  ] as const)("emits nothing and says why: %s", async (_, options, finish) => {
    const { tokens, finish: reason, stats } = await run(options);
    expect(tokens).toEqual([]);
    expect(reason).toBe(finish);
    expect(stats.passes).toBe(0);
  });

  test("leaving early or aborting leaves a sequence that goes on", async () => {
    const plain = await run();
    using sequence = fakeSequence();
    await sequence.prefill(PROMPT.slice(0, -1));
    const emitted: number[] = [];
    const go = (signal?: AbortSignal) =>
      decode(sequence, emitted.at(-1) ?? PROMPT.at(-1)!, {
        drafter: oracle(plain.tokens.slice(emitted.length)),
        planner: fixedLength(2),
        sampling: GREEDY,
        maxTokens: 40 - emitted.length,
        endIds: new Set(),
        signal,
      });
    for await (const step of go()) {
      emitted.push(...step.tokens);
      if (emitted.length > 10) break;
    }
    const abort = new AbortController();
    const aborted = async () => {
      for await (const step of go(abort.signal)) {
        emitted.push(...step.tokens);
        if (emitted.length > 20) abort.abort();
      }
    };
    await expect(aborted()).rejects.toMatchObject({ code: "ERR_ABORTED" });
    for await (const step of go()) emitted.push(...step.tokens);
    expect(emitted).toEqual(plain.tokens);
  });

  test.each<[string, Draft]>([
    ["a missing probability", { tokens: [1, 2], probabilities: [1] }],
    ["a parent behind its child", { tokens: [1, 2], parents: [1, -1], probabilities: [1, 1] }],
    ["a token that is not an id", { tokens: [1, 0.5], probabilities: [1, 1] }],
    ["a missing source", { tokens: [1, 2], probabilities: [1, 1], sources: ["a"] }],
  ])("refuses %s", async (_, draft) => {
    await expect(run({ drafter: scripted(() => draft) })).rejects.toMatchObject({ param: "drafter" });
  });

  test("says and measures the same whatever is drafted (property)", async () => {
    const draft = fc.array(
      fc.record({ token: fc.nat(3), parent: fc.integer({ min: 0, max: 99 }), probability: fc.double() }),
      { maxLength: 20 },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(draft, { minLength: 1, maxLength: 12 }),
        fc.constantFrom("chain", "tree"),
        fc.array(fc.nat(16), { minLength: 1, maxLength: 5 }),
        fc.record({
          maxTokens: fc.integer({ min: 1, max: 50 }),
          sampling: fc.constantFrom(GREEDY, SAMPLED),
          top: fc.nat(3),
          endIds: fc.constantFrom(new Set<number>(), new Set([2])),
          context: fc.integer({ min: 9, max: 60 }),
          maxStep: fc.integer({ min: 1, max: 16 }),
        }),
        async (drafts, shape, lengths, { context, maxStep, ...options }) => {
          const fake = { vocab: 4, context, maxStep };
          let call = 0;
          const drafter = scripted(() => {
            const nodes = drafts[call++ % drafts.length]!;
            return {
              tokens: nodes.map((node) => node.token),
              probabilities: nodes.map((node) => node.probability),
              parents: shape === "tree" ? nodes.map(({ parent }, i) => (parent % (i + 1)) - 1) : undefined,
            };
          });
          const planner: Planner = {
            ...fixedLength(16),
            limit: (most) => Math.min(most, lengths[call % lengths.length]!),
            padTo: (length, most) => Math.min(most, length + (call % 3)),
          };
          const followed = await run({ fake: FAKE(fake), ...options, planner: fixedLength(0) });
          const plain = await run({ fake: FAKE(fake), ...options });
          const drafted = await run({ fake: FAKE(fake), ...options, drafter, planner });
          expect(same(drafted)).toEqual(same(plain));
          expect(same(followed)).toEqual(same(plain));
        },
      ),
      { numRuns: 300 },
    );
  });
});

/** The prompt's ids must exist, so the small vocabulary of drafts is the low end of a larger one. */
function FAKE(fake: FakeOptions): FakeOptions {
  return { ...fake, vocab: 10, next: (tokens) => (tokens.at(-1)! * 7 + tokens.length) % 4 };
}
