import { describe, expect, test } from "vitest";
import { verify } from "./verify.js";

const NO_END = new Set<number>();

describe("verify", () => {
  test.each<[string, number[], number[], number[], { tokens: number[]; path: number[] }]>([
    ["no draft", [7], [-1], [8], { tokens: [8], path: [0] }],
    ["a chain, all right", [7, 8, 9], [-1, 0, 1], [8, 9, 1], { tokens: [8, 9, 1], path: [0, 1, 2] }],
    ["a chain, wrong at once", [7, 5, 9], [-1, 0, 1], [8, 9, 1], { tokens: [8], path: [0] }],
    [
      "a chain, right again after a wrong token",
      [7, 8, 5, 6],
      [-1, 0, 1, 2],
      [8, 9, 6, 1],
      { tokens: [8, 9], path: [0, 1] },
    ],
    [
      "a tree, second branch",
      [7, 5, 8, 6, 9],
      [-1, 0, 0, 1, 2],
      [8, 6, 9, 3, 1],
      { tokens: [8, 9, 1], path: [0, 2, 4] },
    ],
    [
      "a cousin with the right token",
      [7, 5, 8, 9],
      [-1, 0, 0, 1],
      [8, 9, 9, 1],
      { tokens: [8, 9], path: [0, 2] },
    ],
    [
      "twins: the first counts",
      [7, 8, 8, 9],
      [-1, 0, 0, 1],
      [8, 9, 9, 1],
      { tokens: [8, 9, 1], path: [0, 1, 3] },
    ],
  ])("%s", (_, tokens, parents, picks, expected) => {
    expect(verify(tokens, parents, picks, NO_END)).toEqual(expected);
  });

  test("stops after an end token, though the draft went on rightly", () => {
    expect(verify([7, 8, 2, 9], [-1, 0, 1, 2], [8, 2, 9, 1], new Set([2]))).toEqual({
      tokens: [8, 2],
      path: [0, 1],
    });
  });

  test("does not accept padding", () => {
    expect(verify([7, 8, 7], [-1, 0, 1], [8, 7, 1], NO_END, 1)).toEqual({ tokens: [8, 7], path: [0, 1] });
  });
});
