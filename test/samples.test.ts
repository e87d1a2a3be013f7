// Several samples of one prompt: each is the text drawn alone, and codes cover what the model may say evenly.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sampleSeeds } from "../src/api/samples.js";
import type { Engine } from "../src/engine/engine.js";
import { firstCode, nextCode, resolveSampling, type SamplingOptions } from "../src/engine/sampling.js";
import {
  bestOf,
  type GenerationResult,
  load,
  type Model,
  majorityVote,
  type SampleOptions,
} from "../src/index.js";
import { goldenModel, loadEngine } from "./support/engines.js";

const bits = (logprobs: readonly number[]) => [...new Uint32Array(Float32Array.from(logprobs).buffer)];
const prompt = "Name a colour and say why you like it.";

let model: Model;
beforeAll(async () => {
  model = await load();
});
afterAll(() => model.close());

describe("a sample", () => {
  test.each<SampleOptions>([
    { n: 1, temperature: 0.8 },
    { n: 3, temperature: 0.8, strategy: "none", seed: 11 },
    { n: 5, temperature: 1, topP: 0.9, strategy: "lookup", seed: 2 },
    { n: 8, temperature: 0.7, topK: 40, seed: 3, repetitionPenalty: 1.1 },
    { n: 2, temperature: 1, strategy: "recycle", spread: "arithmetic" },
    { n: 8, temperature: 0.9, minP: 0.02, draftLength: 3, spread: "arithmetic", seed: 5 },
    { n: 8, temperature: 0.6, spread: "arithmetic", seed: 6 },
  ])("of %o is the text drawn alone, to the bit", async (options) => {
    const samples = model.samples(prompt, { ...options, maxTokens: 24 });
    const results = await Promise.all(samples.map((sample) => sample.result));
    expect(results).toHaveLength(options.n);
    for (const { tokens, logprobs, seed, code, text } of results) {
      const { n: _, spread: __, ...rest } = options;
      const alone = await model.generate(prompt, {
        ...rest,
        strategy: "none",
        draftLength: undefined,
        seed,
        code,
        maxTokens: 24,
      }).result;
      expect(tokens).toEqual(alone.tokens);
      expect(bits(logprobs)).toEqual(bits(alone.logprobs));
      expect(text).toBe(alone.text);
    }
  });

  test("is its own whichever of the others are taken, left or aborted", async () => {
    const options = { n: 4, temperature: 0.9, seed: 9, maxTokens: 20 };
    const all = await Promise.all(model.samples(prompt, options).map((sample) => sample.result));
    const [, left, taken, never] = model.samples(prompt, options);
    let passes = 0;
    for await (const _ of left!) if (++passes === 2) break;
    expect((await taken!.result).tokens).toEqual(all[2]!.tokens);
    expect(never!.partial.tokens).toEqual([]);
  });

  test("shares the prompt: it is computed once", async () => {
    const long = `${"The quick brown fox jumps over the lazy dog. ".repeat(20)} ${Math.PI}`;
    const results = await Promise.all(
      model.samples(long, { n: 3, temperature: 1, maxTokens: 2 }).map((sample) => sample.result),
    );
    for (const { cachedTokens, promptTokens } of results) expect(cachedTokens).toBe(promptTokens.length - 1);
  });

  test.each<[string, SampleOptions]>([
    ["n", { n: 0, temperature: 1 }],
    ["n", { n: 65, temperature: 1 }],
    ["n", { n: 1.5, temperature: 1 }],
    ["temperature", { n: 2 }],
    ["spread", { n: 2, temperature: 1, spread: "even" as never }],
    ["code", { n: 2, temperature: 1, code: 0.5 } as never],
  ])("of a wrong %s is refused", (param, options) => {
    expect(() => model.samples(prompt, options)).toThrow(
      expect.objectContaining({ code: "ERR_BAD_REQUEST", param }),
    );
  });

  test.each([-0.1, 1, Number.NaN])("of the code %d is refused", (code) => {
    expect(() => model.generate(prompt, { temperature: 1, code })).toThrow(
      expect.objectContaining({ code: "ERR_BAD_REQUEST", param: "code" }),
    );
  });
});

describe("codes", () => {
  let engine: Engine;
  const start = Array.from({ length: 20 }, (_, i) => (i * 37) % 280);
  beforeAll(async () => {
    engine = await loadEngine(goldenModel("quant-q8_0"), { context: 64 });
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  /** The tokens that a code draws. */
  async function draw(options: SamplingOptions, code: number, count: number): Promise<number[]> {
    using sequence = engine.open(start);
    await sequence.prefill(start.slice(sequence.tokens.length, -1));
    const tokens: number[] = [];
    const sampling = resolveSampling({ ...options, code }, 280, 20);
    let at = firstCode(sampling);
    for (let last = start.at(-1)!; tokens.length < count; last = tokens.at(-1)!) {
      const { picks, codes } = await sequence.step([last], {
        sampling,
        code: at,
      });
      sequence.keep([0]);
      at = nextCode(codes, 0);
      tokens.push(picks[0]!);
    }
    return tokens;
  }

  /** What the options leave of a row's probabilities, by token. */
  function probabilities(
    logits: Float32Array,
    { temperature = 1, topK = 280, minP = 0 }: SamplingOptions,
  ): number[] {
    const most = Math.max(...logits);
    const sorted = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]!);
    const weights = Array.from(logits, (l) => Math.exp((l - most) / temperature));
    const kept = new Set(sorted.slice(0, topK).filter((token) => weights[token]! >= minP));
    const total = [...kept].reduce((sum, token) => sum + weights[token]!, 0);
    return weights.map((weight, token) => (kept.has(token) ? weight / total : 0));
  }

  // A token's, or a text's, part of the interval holds n times its width of n evenly spread points, give or take one.
  test.each<SamplingOptions>([
    { temperature: 1 },
    { temperature: 0.5, topK: 12 },
    { temperature: 1.5, minP: 0.1 },
  ])("evenly spread with %o draw every text as often as it is probable, to one", async (options) => {
    const count = 400;
    const seen = new Map<string, number>();
    for (let i = 0; i < count; i++) {
      const text = (await draw(options, (i + 0.37) / count, 2)).join();
      seen.set(text, (seen.get(text) ?? 0) + 1);
    }
    using sequence = engine.open(start);
    await sequence.prefill(start.slice(sequence.tokens.length, -1));
    const sampling = resolveSampling({}, 280, 20);
    const first = await sequence.step([start.at(-1)!], { sampling, logits: true });
    sequence.keep([0]);
    const firsts = probabilities(first.logits!, options);
    let drawn = 0;
    for (const [token, probability] of firsts.entries()) {
      const ofFirst = [...seen].filter(([text]) => text.startsWith(`${token},`));
      const times = ofFirst.reduce((sum, [, n]) => sum + n, 0);
      expect(Math.abs(times - count * probability), `token ${token}`).toBeLessThan(1.01);
      if (probability * count < 20) continue;
      const second = await sequence.step([token], { sampling, logits: true });
      sequence.keep([]);
      for (const [next, chance] of probabilities(second.logits!, options).entries()) {
        const both = seen.get(`${token},${next}`) ?? 0;
        expect(Math.abs(both - count * probability * chance), `${token}, ${next}`).toBeLessThan(1.01);
        drawn += both;
      }
    }
    expect(drawn).toBeGreaterThan(0);
  });

  test("go on drawing when the digits that they began with are used up", async () => {
    // 40 tokens of a nearly flat distribution take some 300 binary digits, a double has 53.
    const texts = await Promise.all(
      [0.1, 0.1 + 2 ** -40, 0.9].map((code) => draw({ temperature: 5 }, code, 40)),
    );
    const shared = texts[0]!.findIndex((token, i) => token !== texts[1]![i]);
    expect(shared).toBeGreaterThan(2);
    expect(shared).toBeLessThan(10);
    for (const text of texts) expect(new Set(text.slice(10)).size).toBeGreaterThan(15);
    expect(await draw({ temperature: 5 }, 0.1, 40)).toEqual(texts[0]);
  });
});

test("seeds of samples follow each other, from the last one to 0", () => {
  const last = Number.MAX_SAFE_INTEGER;
  const seeds = (first: number) => sampleSeeds(3, "independent", first).map(({ seed }) => seed);
  expect(seeds(5)).toEqual([5, 6, 7]);
  expect(seeds(last)).toEqual([last, 0, 1]);
  expect(seeds(last - 1)).toEqual([last - 1, last, 0]);
});

test("codes of samples stand 1 / n apart, each of them anywhere", () => {
  for (const n of [1, 2, 7, 64]) {
    const firsts = Array.from({ length: 200 }, (_, seed) => {
      const codes = sampleSeeds(n, "arithmetic", seed).map(({ code }) => code!);
      for (const [i, code] of codes.entries()) expect(code).toBeCloseTo(codes[0]! + i / n, 12);
      expect(codes.at(-1)).toBeLessThan(1);
      return codes[0]! * n;
    });
    expect(Math.min(...firsts)).toBeGreaterThan(0);
    const quarters = [0, 1, 2, 3].map((q) => firsts.filter((first) => Math.floor(4 * first) === q).length);
    for (const count of quarters) expect(count).toBeGreaterThan(25);
  }
});

describe("a choice among answers", () => {
  const answer = (text: string, logprobs: number[] = []) =>
    ({ text, logprobs }) as unknown as GenerationResult;

  test("by mean log-probability", () => {
    const answers = [
      answer("a", [-1, -1]),
      answer("b", [-0.5, -0.9, -0.6]),
      answer("c", [-0.8]),
      answer("d"),
    ];
    expect(bestOf(answers).text).toBe("b");
    expect(bestOf([answer("a", [-1]), answer("b", [-1])]).text).toBe("a");
    expect(() => bestOf([])).toThrow(expect.objectContaining({ code: "ERR_BAD_REQUEST" }));
  });

  test("by vote, on the text or on what is extracted from it", () => {
    const answers = ["Red.", "blue", " red!", "It is red", "Blue", "RED"].map((text) => answer(text));
    expect(majorityVote(answers)).toMatchObject({ answer: "red", votes: 3, result: { text: "Red." } });
    const colour = ({ text }: GenerationResult) => /blue/i.exec(text)?.[0].toLowerCase();
    expect(majorityVote(answers, colour)).toMatchObject({ answer: "blue", votes: 2 });
    expect(majorityVote(answers, () => undefined)).toBeUndefined();
  });
});
