import { describe, expect, test } from "vitest";
import { instructionSetFrom, parseCount, parseNumber, parseWhole } from "./options.js";

describe("numbers are taken whole or not at all", () => {
  test.each([
    ["0.7", 0.7],
    ["-1", -1],
    ["+2", 2],
    [".5", 0.5],
    ["3.", 3],
    ["1e-3", 0.001],
  ])("%s is a number", (text, value) => expect(parseNumber(text)).toBe(value));

  test.each(["", " ", "0.7x", "NaN", "Infinity", "0x10", "1,5", " 1", "1 ", "--1", ".", "1e"])(
    "%j is none",
    (text) => expect(() => parseNumber(text)).toThrow("Expected a number."),
  );

  test.each(["", "4.2", "1e3", "NaN", "0x10", "12 ", "9007199254740993"])("%j is no whole number", (text) =>
    expect(() => parseWhole(text)).toThrow("Expected a whole number."),
  );

  test("a count begins at 1", () => {
    expect(parseCount("1")).toBe(1);
    for (const text of ["0", "-1"]) expect(() => parseCount(text)).toThrow("from 1");
  });
});

test("an instruction set that is misspelt is not passed over", () => {
  expect(instructionSetFrom({})).toBeUndefined();
  expect(instructionSetFrom({ OUTRIDER_INSTRUCTION_SET: "avx2" })).toBe("avx2");
  for (const value of ["", "AVX2", "avx"])
    expect(() => instructionSetFrom({ OUTRIDER_INSTRUCTION_SET: value })).toThrow(
      "expected one of avx512, avx2, neon-dotprod, neon, wasm-relaxed-simd, wasm-simd, scalar",
    );
});
