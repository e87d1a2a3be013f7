import { expect, test } from "vitest";
import { acceptedPath, firstDifference, hashIds, rejectedDrafts } from "./passes.js";

// text → 7 → 8 → 9
//          ↘ 5
//      ↘ 4
const trace = {
  tokens: [7, 8, 3],
  drafted: [7, 4, 8, 5, 9],
  parents: [-1, -1, 0, 0, 2],
  sources: ["lookup", "ngram", "lookup", "recycle", "lookup"],
  accepted: 2,
  ms: 4,
};

test("accepted drafts are found in the tree by what was emitted", () => {
  expect(acceptedPath(trace)).toEqual([0, 2]);
  expect(acceptedPath({ ...trace, tokens: [1], accepted: 0 })).toEqual([]);
});

test("each way that did not come true is told with what of it was right", () => {
  expect(rejectedDrafts(trace)).toEqual([
    { ids: [4], right: 0, source: "ngram" },
    { ids: [7, 5], right: 1, source: "recycle" },
    { ids: [7, 8, 9], right: 2, source: "lookup" },
  ]);
});

test("a chain that came true whole leaves nothing", () => {
  const chain = { ...trace, drafted: [7, 8], parents: [-1, 0], sources: ["lookup", "lookup"] };
  expect(rejectedDrafts(chain)).toEqual([]);
});

test("the hash is FNV-1a of the ids' bytes, lowest first", () => {
  expect(hashIds([])).toBe("cbf29ce484222325");
  // "foob" and "ar\0\0" as FNV-1a's authors define it
  const bytes = [...new TextEncoder().encode("foob")];
  const id = bytes.reduce((sum, byte, i) => sum + byte * 2 ** (8 * i), 0);
  let wanted = 0xcbf29ce484222325n;
  for (const byte of bytes) wanted = BigInt.asUintN(64, (wanted ^ BigInt(byte)) * 0x100000001b3n);
  expect(hashIds([id])).toBe(wanted.toString(16));
  expect(hashIds([1, 2])).not.toBe(hashIds([2, 1]));
});

test("texts differ where an id does, or where one ends", () => {
  expect(firstDifference([1, 2, 3], [1, 2, 3])).toBe(-1);
  expect(firstDifference([1, 2, 3], [1, 9, 3])).toBe(1);
  expect(firstDifference([1, 2], [1, 2, 3])).toBe(2);
  expect(firstDifference([1, 2, 3], [1, 2])).toBe(2);
});
