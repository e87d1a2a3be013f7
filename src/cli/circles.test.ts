import { expect, test } from "vitest";
import { goesInCircles } from "./circles.js";

const times = (n: number, run: readonly number[]) => Array.from({ length: n }, () => run).flat();
const run = (length: number) => Array.from({ length }, (_, i) => i);

test.each([
  ["a token", times(120, [7]), true],
  ["a token, not often enough", times(119, [7]), false],
  ["a phrase behind a text", [...run(300), ...times(24, run(5))], true],
  ["a phrase, cut in its middle", [...times(24, run(5)), 0, 1, 2], true],
  ["a phrase that has just ended", [...times(24, run(5)), 9], false],
  ["a paragraph", times(6, run(128)), true],
  ["a paragraph five times", times(5, run(128)), false],
  ["more than a paragraph", times(8, run(129)), false],
  ["a list that counts", run(60).flatMap((i) => [500, i, 501]), false],
  ["nothing", [], false],
])("%s", (_, tokens, circles) => expect(goesInCircles(tokens)).toBe(circles));
