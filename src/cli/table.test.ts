import { describe, expect, test, vi } from "vitest";
import { count, figures, megabytes, table, wrap } from "./table.js";

describe("table", () => {
  test("aligns numbers to the right, and leaves no blanks at the ends of lines", () => {
    expect(
      table(
        "lrl",
        ["name", "ms", "result"],
        [
          ["a", "1.00", "equal"],
          ["longer", "12.3", ""],
        ],
      ),
    ).toEqual(["name      ms  result", "a       1.00  equal", "longer  12.3"]);
  });

  test("wraps the widest text column, so that all is within the width and nothing is lost", () => {
    const words = "one two three four five six seven eight nine ten";
    expect(table("llr", ["key", "value", "n"], [["short", words, "1,000"]], 40)).toEqual([
      "key    value                           n",
      "short  one two three four five     1,000",
      "       six seven eight nine ten",
    ]);
  });

  test.each([
    [true, 40, 40],
    [true, 200, 80],
    [true, 0, 80],
    [false, 40, 80],
  ])("fits the terminal: terminal %s, %i columns", (isTTY, columns, width) => {
    vi.stubGlobal("process", { ...process, stdout: { isTTY, columns } });
    const text = "word ".repeat(40).trimEnd();
    const most = (lines: string[]) => Math.max(...lines.map((line) => line.length));
    expect(most(table("ll", ["key", "value"], [["k", text]]))).toBeGreaterThan(width - 6);
    expect(most(table("ll", ["key", "value"], [["k", text]]))).toBeLessThanOrEqual(width);
    expect(most(wrap(text))).toBe(width - 1);
    vi.unstubAllGlobals();
  });

  test("columns of words give way together, and stand closer where that is what is missing", () => {
    const rows = [["math reasoning", "layer-parallel", "123,456"]];
    expect(table("llr", ["category", "strategy", "n"], rows, 35)).toEqual([
      "category    strategy              n",
      "math        layer-parallel  123,456",
      "reasoning",
    ]);
    expect(table("llr", ["category", "strategy", "n"], rows, 32)).toEqual([
      "category  strategy             n",
      "math      layer-parallel 123,456",
      "reasoning",
    ]);
  });

  test("a word that is too long, a path for one, stays whole", () => {
    const path = "x".repeat(50);
    expect(table("lrl", ["size", "n", "path"], [["1 MB", "2", path]], 40)).toEqual([
      "size  n  path",
      `1 MB  2  ${path}`,
    ]);
  });
});

test("figures: three of them", () => {
  expect([0, 0.0123, 0.9996, 1.234, 9.996, 12.34, 99.96, 1234.5].map(figures)).toEqual([
    "0.00",
    "0.012",
    "1.00",
    "1.23",
    "10.0",
    "12.3",
    "100",
    "1,235",
  ]);
  expect(figures(Number.NaN)).toBe("–");
});

test("counts and bytes", () => {
  expect(count(1234567)).toBe("1,234,567");
  expect([2304, 390_000, 98_400_000, 12_300_000_000].map(megabytes)).toEqual([
    "2.30 KB",
    "0.390 MB",
    "98.4 MB",
    "12.3 GB",
  ]);
});
