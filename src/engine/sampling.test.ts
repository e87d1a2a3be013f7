import { describe, expect, test } from "vitest";
import { adjustments, adjusts, resolveSampling, type SamplingOptions } from "./sampling.js";

const vocab = 100;
const resolve = (options: SamplingOptions, promptLength = 0) => resolveSampling(options, vocab, promptLength);

describe("resolveSampling", () => {
  test("everything has a default, for what is undefined too", () => {
    const defaults = {
      temperature: 0,
      topK: 0,
      topP: 1,
      minP: 0,
      repetitionPenalty: 1,
      presencePenalty: 0,
      frequencyPenalty: 0,
      logitBias: new Map(),
      seed: 0,
      promptLength: 7,
    };
    expect(resolve({}, 7)).toEqual(defaults);
    const undefineds = Object.fromEntries(Object.keys(defaults).map((key) => [key, undefined]));
    expect(resolve(undefineds as SamplingOptions, 7)).toEqual(defaults);
  });

  test("the ends of every range are allowed", () => {
    const least = { temperature: 0.001, topK: 0, topP: Number.MIN_VALUE, minP: 0, seed: 0 };
    const most = { temperature: 100, topK: 2 ** 31 - 1, topP: 1, minP: 1, seed: Number.MAX_SAFE_INTEGER };
    expect(resolve(least)).toMatchObject(least);
    expect(resolve(most)).toMatchObject(most);
    for (const presencePenalty of [-100, 100])
      expect(resolve({ presencePenalty })).toMatchObject({ presencePenalty });
    for (const repetitionPenalty of [0.01, 100])
      expect(resolve({ repetitionPenalty })).toMatchObject({ repetitionPenalty });
    for (const bias of [-100, 100]) expect(resolve({ logitBias: { 99: bias } }).logitBias.get(99)).toBe(bias);
  });

  const refused: [keyof SamplingOptions, unknown[]][] = [
    ["temperature", [-0.1, 0.0009, 100.1, Number.NaN, Number.POSITIVE_INFINITY, "1", null]],
    ["topK", [-1, 1.5, 2 ** 31, Number.NaN, "40"]],
    ["topP", [0, -0.1, 1.1, Number.NaN, "0.9"]],
    ["minP", [-0.1, 1.1, Number.NaN]],
    ["repetitionPenalty", [0, 0.009, 100.1, Number.NaN, Number.POSITIVE_INFINITY]],
    ["presencePenalty", [-100.1, 100.1, Number.NaN]],
    ["frequencyPenalty", [-100.1, 100.1, Number.NEGATIVE_INFINITY]],
    ["seed", [-1, 0.5, 2 ** 53, Number.NaN, "1", 1n]],
  ];
  test.each(
    refused.flatMap(([key, values]) => (key === undefined ? [] : values.map((v) => [key, v] as const))),
  )("%s %s is refused by its name", (key, value) => {
    // null stands for "not given", as undefined does.
    if (value === null) return expect(resolve({ [key]: value } as SamplingOptions)).toEqual(resolve({}));
    expect(() => resolve({ [key]: value } as SamplingOptions)).toThrow(
      expect.objectContaining({ code: "ERR_BAD_REQUEST", param: key, message: expect.stringContaining(key) }),
    );
  });

  test.each([
    [{ 100: 1 }],
    [{ [-1]: 1 }],
    [{ 1.5: 1 }],
    [{ five: 1 }],
    [{ 5: 100.1 }],
    [{ 5: Number.NaN }],
    [{ 5: "1" as unknown as number }],
    [new Map([[100, 1]])],
  ])("a bias of %o is refused", (logitBias) => {
    expect(() => resolve({ logitBias: logitBias as Record<number, number> })).toThrow(
      expect.objectContaining({ code: "ERR_BAD_REQUEST" }),
    );
  });

  test("at most 1,024 biases, as a record or as a map", () => {
    const biases = (n: number) => new Map(Array.from({ length: n }, (_, i) => [i, 1]));
    expect(resolveSampling({ logitBias: biases(1024) }, 2000, 0).logitBias.size).toBe(1024);
    expect(resolveSampling({ logitBias: Object.fromEntries(biases(1024)) }, 2000, 0).logitBias).toEqual(
      biases(1024),
    );
    expect(() => resolveSampling({ logitBias: biases(1025) }, 2000, 0)).toThrow(/at most 1024/);
  });
});

describe("adjustments", () => {
  const history = [5, 6, 5, /* prompt ends */ 7, 8, 7];

  test("none without penalties and biases", () => {
    expect(adjusts(resolve({ temperature: 1 }))).toBe(false);
    expect(adjustments(resolve({}, 3), history)).toEqual(new Map());
  });

  test.each([
    [{ repetitionPenalty: 1.1 }],
    [{ presencePenalty: -1 }],
    [{ frequencyPenalty: 1 }],
    [{ logitBias: { 1: 1 } }],
  ])("%o changes draws", (options) => {
    expect(adjusts(resolve(options))).toBe(true);
  });

  test("repetition counts the prompt, once a token", () => {
    const once = { repetition: 1.5, add: 0 };
    expect(adjustments(resolve({ repetitionPenalty: 1.5 }, 3), history)).toEqual(
      new Map([5, 6, 7, 8].map((token) => [token, once])),
    );
  });

  test("presence and frequency count the output alone", () => {
    const penalties = { presencePenalty: 1, frequencyPenalty: 0.25 };
    expect(adjustments(resolve(penalties, 3), history)).toEqual(
      new Map([
        [7, { repetition: 1, add: -1.5 }],
        [8, { repetition: 1, add: -1.25 }],
      ]),
    );
    expect(adjustments(resolve(penalties, 6), history)).toEqual(new Map());
  });

  test("biases add to penalties", () => {
    const options = { logitBias: { 7: 3, 9: -2 }, presencePenalty: 1, repetitionPenalty: 2 };
    const changes = adjustments(resolve(options, 3), history);
    expect(changes.get(7)).toEqual({ repetition: 2, add: 2 });
    expect(changes.get(9)).toEqual({ repetition: 1, add: -2 });
  });
});
