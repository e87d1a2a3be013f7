import { describe, expect, test } from "vitest";
import {
  instructionSetFrom,
  parseCount,
  parseMemoryLimit,
  parseNumber,
  parseSize,
  parseWhole,
} from "./options.js";

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

describe("sizes", () => {
  test.each([
    ["8GB", 8e9],
    ["512 MB", 512e6],
    ["1.5GiB", 1.5 * 2 ** 30],
    ["2k", 2000],
    ["100B", 100],
    ["1000000", 1e6],
  ])("%s", (text, bytes) => expect(parseSize(text)).toBe(bytes));

  test.each(["", "GB", "-1GB", "0", "1..5GB", "8 apples", "1e3", "NaN", "8GBGB"])("%j is none", (text) => {
    expect(() => parseSize(text)).toThrow("Expected a size such as 8GB or 512MB.");
  });

  test("a memory limit that is a bare number is so many GB", () => {
    expect(parseMemoryLimit("0.5")).toBe(5e8);
    expect(parseMemoryLimit("512MB")).toBe(512e6);
    expect(parseMemoryLimit("none")).toBe(Number.POSITIVE_INFINITY);
    expect(() => parseMemoryLimit("0")).toThrow("Expected a size");
  });
});
