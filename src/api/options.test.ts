import { describe, expect, test } from "vitest";
import { checkTokens, rejectUnknownKeys, wholeNumber } from "./options.js";

describe("rejectUnknownKeys", () => {
  const known = ["temperature", "topK", "stop"];

  test("known keys pass, undefined ones too", () => {
    rejectUnknownKeys("generate", { topK: 1, stop: undefined }, known);
    rejectUnknownKeys("generate", {}, known);
  });

  test.each([
    ["temprature", 'did you mean "temperature"?'],
    ["topk", 'did you mean "topK"?'],
    ["stops", 'did you mean "stop"?'],
    ["presence_penalty", "Known: temperature, topK, stop"],
  ])("%s", (key, words) => {
    expect(() => rejectUnknownKeys("generate", { topK: 1, [key]: 1 }, known)).toThrow(
      expect.objectContaining({
        code: "ERR_BAD_REQUEST",
        param: key,
        message: expect.stringContaining(`generate: there is no option "${key}"`),
      }),
    );
    expect(() => rejectUnknownKeys("generate", { [key]: 1 }, known)).toThrow(words);
  });

  test("a key of a megabyte makes a short message in no time", () => {
    const started = performance.now();
    expect(() => rejectUnknownKeys("generate", { ["x".repeat(1 << 20)]: 1 }, known)).toThrow(
      expect.objectContaining({ message: expect.stringMatching(/^.{1,200}$/) }),
    );
    expect(performance.now() - started).toBeLessThan(50);
  });
});

describe("wholeNumber", () => {
  test.each([0, 5, 64])("%s is in range", (value) => expect(wholeNumber("top", value, 0, 64)).toBe(value));

  test.each([-1, 65, 1.5, Number.NaN, Number.POSITIVE_INFINITY, "5", null])("%s is refused", (value) => {
    expect(() => wholeNumber("top", value as number, 0, 64)).toThrow(
      expect.objectContaining({
        code: "ERR_BAD_REQUEST",
        param: "top",
        message: `top is ${value}, expected a whole number from 0 to 64`,
      }),
    );
  });
});

describe("checkTokens", () => {
  test("ids of the vocabulary pass unchanged", () => {
    const ids = [0, 9, 3];
    expect(checkTokens("prompt", ids, 10)).toBe(ids);
    expect(checkTokens("prompt", [], 10)).toEqual([]);
  });

  test.each([-1, 10, 0.5, Number.NaN, "1", undefined, null])("%s is refused at its index", (id) => {
    expect(() => checkTokens("prompt", [1, id], 10)).toThrow(
      expect.objectContaining({
        code: "ERR_BAD_REQUEST",
        param: "prompt[1]",
        message: `prompt[1] is ${id}, expected a token id from 0 to 9`,
      }),
    );
  });

  test("a hole in the list is no token", () => {
    expect(() => checkTokens("prompt", new Array(2), 10)).toThrow(
      expect.objectContaining({ param: "prompt[0]" }),
    );
  });
});
