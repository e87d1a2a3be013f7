import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { accepts, randomText } from "./testing.js";

const patterns = [
  "a",
  "abc|ab",
  "(ab)*",
  "a{2,3}b?",
  "[a-c]+[^a-c]",
  "\\d{1,3}(\\.\\d+)?",
  "(a|b)*abb",
  "[\\w.]+@[a-z]+",
  ".{3}",
  "(a+)+",
  "(a*)*b",
  "x(?:y|z){2}",
  "[é-ü]+",
  "[^\\u0000-\\u007f]",
  "\\u00e9|😀",
  "[\\]\\-a]+",
  "a??b",
  "\\s\\S",
  "",
  "a|",
  "(?<year>\\d{4})-\\d\\d",
  '[^"\\\\]*',
  "€{2}",
  "[\\d-]+",
  "\\.\\*\\?",
];

describe.each(patterns)("/%s/", (pattern) => {
  const reference = new RegExp(`^(?:${pattern})$`, "u");
  // Characters that the patterns speak of, so that texts match now and then.
  const text = fc.string({ unit: fc.constantFrom(...'abcxyz019.-@_*? éü€😀]"\\\n'), maxLength: 7 });
  test("matches the texts that the language's own expressions match", () => {
    fc.assert(
      fc.property(text, (s) => accepts({ regex: pattern }, s) === reference.test(s)),
      { numRuns: 400, seed: 1 },
    );
  });
  test("makes only texts that match", () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(1_000_000)), (numbers) => {
        const made = randomText({ regex: pattern }, (n) => (numbers.next().value as number) % n, 60);
        // The walk picks bytes one by one, so it also meets characters far from those above.
        return made === undefined || reference.test(made);
      }),
      { numRuns: 60, seed: 2 },
    );
  });
});

test.each([
  ["^+[a-z]$", /position 1: nothing to repeat/],
  ["{2}a", /position 0: nothing to repeat/],
  ["(?=a)b", /look-around/],
  ["(?<!a)b", /look-around/],
  ["(a)\\1", /back-references/],
  ["\\bword", /word boundaries/],
  ["\\p{L}", /property classes/],
  ["a^b", /start of the pattern only/],
  ["a{5,2}", /least is more than the most/],
  ["a{99999}", /more than 10000/],
  ["a**", /two quantifiers/],
  ["[z-a]", /ends before it begins/],
  ["[]", /matches nothing/],
  ["[a", /class that is not closed/],
  ["(a", /group that is not closed/],
  ["a)", /without an opening one/],
  ["a\\", /backslash at the end/],
  [`${"(".repeat(20_000)}a${")".repeat(20_000)}`, /at most 2048/],
  ["((((a{100}){100}){100}){100})", /more than 100000 states/],
  [`${"(".repeat(500)}a${")".repeat(500)}`, /nested more than 100/],
] as const)("%.40s is refused with its place", (pattern, message) => {
  expect(() => accepts({ regex: pattern }, "")).toThrow(
    expect.objectContaining({ code: "ERR_GRAMMAR", message: expect.stringMatching(message) }),
  );
});

test("a pattern that makes backtracking matchers hang is followed in linear time", () => {
  expect(accepts({ regex: "(a+)+b" }, `${"a".repeat(20_000)}c`)).toBe(false);
});
