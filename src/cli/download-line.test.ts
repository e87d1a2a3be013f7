import { expect, test } from "vitest";
import { downloadLine, duration, size } from "./download-line.js";

test("the line tells how much, how fast, how long", () => {
  const line = downloadLine();
  const of = (done: number, now: number) => line({ file: "sub/m-Q4_K_M.gguf", done, total: 4e9 }, now);
  expect(of(0, 0)).toBe("m-Q4_K_M.gguf  0 %  0.00 kB of 4.00 GB");
  expect(of(5e7, 1000)).toBe("m-Q4_K_M.gguf  1 %  50.0 MB of 4.00 GB  50.0 MB/s  1:19 left");
  expect(of(1e9, 60_000)).toContain("25 %");
  // Only the last seconds count: here nothing has come for a while.
  expect(of(1e9, 75_000)).toBe("m-Q4_K_M.gguf  25 %  1.00 GB of 4.00 GB");
});

test("a name with control characters cannot write on the terminal", () => {
  expect(downloadLine()({ file: "\u001b[2Jx", done: 1, total: 2 }, 0)).toContain("\\u001b[2Jx  50 %");
});

test("sizes and durations", () => {
  expect([1, 1234, 45.6e6, 123e6, 7.5e9].map(size)).toEqual([
    "0.00 kB",
    "1.23 kB",
    "45.6 MB",
    "123 MB",
    "7.50 GB",
  ]);
  expect([0, 6.2, 754, 3723].map(duration)).toEqual(["0:00", "0:07", "12:34", "1:02:03"]);
});
