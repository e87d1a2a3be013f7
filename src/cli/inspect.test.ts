import { expect, test } from "vitest";
import { groupTensors, shortValue } from "./inspect.js";

test("tensors that differ in their layer only share a line", () => {
  const tensor = (name: string, type: "F32" | "Q4_1") => ({
    name,
    type,
    shape: [32, 2],
    rows: 2,
    columns: 32,
    offset: 0,
    bytes: 40,
  });
  const groups = groupTensors([
    tensor("blk.0.ffn.weight", "Q4_1"),
    tensor("blk.1.ffn.weight", "Q4_1"),
    tensor("blk.10.ffn.weight", "F32"),
    tensor("output.weight", "Q4_1"),
  ]);
  expect(groups.map((g) => [g.name, g.type, g.number, g.bytes])).toEqual([
    ["blk.N.ffn.weight", "Q4_1", 2, 80],
    ["blk.N.ffn.weight", "F32", 1, 40],
    ["output.weight", "Q4_1", 1, 40],
  ]);
});

test("values of metadata on one line, control characters escaped", () => {
  expect(shortValue("a\nb\x1b[2J\u202e")).toBe("a\\nb\\u001b[2J\\u202e");
  expect(shortValue(Math.fround(1e-5))).toBe("0.00001");
  expect(shortValue(2n ** 60n)).toBe("1152921504606846976");
  expect(shortValue(["en", "fr"])).toBe("[en, fr]");
  expect(shortValue(["1", "2", "3", "4", "5"])).toBe("[5 texts]");
  expect(shortValue(new Float32Array(1000))).toBe("[1,000 numbers]");
});
