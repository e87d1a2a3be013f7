import { expect, test } from "vitest";
import { accepts } from "./testing.js";

const arithmetic = `
# sums and products
root  ::= term ([-+] term)*
term  ::= factor ("*" factor)*
factor ::= [0-9]+ | "(" root ")"   # nested as deep as one likes
`;

test.each([
  ["1", true],
  ["1+2*3", true],
  ["(1+(2))*3", true],
  [`${"(".repeat(3000)}7${")".repeat(3000)}`, true],
  ["1+", false],
  ["(1", false],
  ["1)", false],
  ["", false],
])("%.20s: %s", (text, expected) => {
  expect(accepts({ grammar: arithmetic }, text)).toBe(expected);
});

test("escapes, counts and characters beyond ASCII", () => {
  const grammar = String.raw`root ::= "\"\\\n" [\x41-\x43]{2,3} [^\]a]? "é" [\U0001F600]*`;
  expect(accepts({ grammar }, '"\\\nABé😀😀')).toBe(true);
  expect(accepts({ grammar }, '"\\\nABCbé')).toBe(true);
  expect(accepts({ grammar }, '"\\\nABCDé')).toBe(true);
  expect(accepts({ grammar }, '"\\\nABCaé')).toBe(false);
});

test.each([
  ["item ::= root\n", /no rule "root"/],
  ["root ::= other", /"other" is not defined/],
  ['root ::= root "a" | "b"', /left recursion/],
  ['root ::= a "x"\na ::= b?\nb ::= [c]* root', /left recursion/],
  ['root ::= "a" root', /no text satisfies it/],
  ['root ::= "a', /line 1, column 12: a text that is not closed/],
  ["root ::= [a", /class that is not closed/],
  ["root ::= (", /group that is not closed/],
  ["root ::= )", /closing parenthesis/],
  ["root ::= =", /not expected here/],
  ['root ::= "a"\nroot ::= "b"', /defined twice/],
  [`root ::= ${"(".repeat(30_000)}"a"${")".repeat(30_000)}`, /nested more than 100/],
  ["x".repeat(70_000), /at most 65536/],
  ["root ::= [a-z]{2,1}", /count must be/],
] as const)("%.30s is refused", (grammar, message) => {
  expect(() => accepts({ grammar }, "")).toThrow(
    expect.objectContaining({ code: "ERR_GRAMMAR", message: expect.stringMatching(message) }),
  );
});
