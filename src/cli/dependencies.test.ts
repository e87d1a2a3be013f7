import { expect, test } from "vitest";
import { dependencyHtml, dependencyMatrix, dependencySvg, type TracedText } from "./dependencies.js";

const text: TracedText = {
  title: 'a <b> & "c"',
  passes: [
    // A tree: 11 and its rival 99 behind the text, 12 behind the rival, so right only by chance.
    {
      tokens: [10, 11],
      drafted: [10, 99, 12],
      parents: [-1, 0, 1],
      sources: ["x", "x", "x"],
      accepted: 1,
      ms: 1,
    },
    { tokens: [12], drafted: [], parents: [], sources: [], accepted: 0, ms: 1 },
  ],
  tokens: [
    { id: 10, text: "<s>" },
    { id: 11, text: " a\n" },
    { id: 12, text: "averyveryveryverylongtoken" },
  ],
};

test("says in which pass each token was known, guessed too early or wrong", () => {
  expect(dependencyMatrix(text).map((row) => Object.fromEntries(row))).toEqual([
    { 0: "accepted", 1: "own", 2: "early" },
    { 2: "own" },
  ]);
});

test("draws one cell for each, and escapes what tokens hold", () => {
  const svg = dependencySvg(text);
  expect(svg.match(/<title>/g)).toHaveLength(4);
  expect(svg).toContain("a &lt;b&gt; &amp; &quot;c&quot;");
  expect(svg).toContain("␣a⏎");
  expect(svg).not.toContain("<s>");
  expect(dependencyHtml(text)).toContain(svg);
});
