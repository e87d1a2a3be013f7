import { expect, test } from "vitest";
import { BlockPool } from "./block-table.js";

test("blocks come back when their last user releases them", () => {
  const pool = new BlockPool(3);
  const [a, b] = pool.take(2) as [number, number];
  expect(pool.free).toBe(1);
  expect(pool.isShared(a)).toBe(false);
  pool.share(a);
  expect(pool.isShared(a)).toBe(true);
  pool.release(a);
  expect(pool.isShared(a)).toBe(false);
  expect(pool.free).toBe(1);
  pool.release(a);
  pool.release(b);
  expect(pool.free).toBe(3);
  expect(pool.take(3).toSorted()).toEqual([0, 1, 2]);
});

test("more blocks than there are: none is taken", () => {
  const pool = new BlockPool(3);
  pool.take(1);
  expect(() => pool.take(3)).toThrow(expect.objectContaining({ code: "ERR_CONTEXT" }));
  expect(pool.free).toBe(2);
  expect(pool.take(0)).toEqual([]);
  expect(pool.take(2)).toHaveLength(2);
});

test("a second release is an error, not a block with two owners", () => {
  const pool = new BlockPool(2);
  const [block] = pool.take(1) as [number];
  pool.release(block);
  expect(() => pool.release(block)).toThrow(expect.objectContaining({ code: "ERR_RUNTIME" }));
  expect(pool.free).toBe(2);
});
