import fc from "fast-check";
import { expect, test } from "vitest";
import { blockSize } from "../runtime/kv-cache.js";
import { BlockPool } from "./block-table.js";
import { PrefixTree } from "./prefix-tree.js";

const blocksOf = (length: number) => Math.ceil(length / blockSize);
const numbers = (length: number, seed = 0) => Array.from({ length }, (_, i) => (i * 7 + seed * 13) % 50);

function filled(texts: readonly (readonly number[])[], blocks = 100, most = 100) {
  const pool = new BlockPool(blocks);
  const tree = new PrefixTree(pool, most);
  for (const text of texts) tree.insert(text, pool.take(blocksOf(text.length)));
  return { pool, tree };
}

test("finds the longest prefix of any text, to the token (property)", () => {
  // Two tokens only, and whole blocks of one of them, so that texts share much.
  const piece = fc.oneof(
    fc.constant(new Array<number>(blockSize).fill(0)),
    fc.array(fc.integer({ min: 0, max: 1 }), { maxLength: 20 }),
  );
  const text = fc.array(piece, { minLength: 1, maxLength: 5 }).map((pieces) => pieces.flat());
  fc.assert(
    fc.property(fc.array(text, { maxLength: 12 }), text, fc.nat(100), (texts, wanted, most) => {
      const { pool, tree } = filled(texts);
      const shared = (other: readonly number[]) => {
        const different = wanted.findIndex((token, i) => token !== other[i]);
        return different < 0 ? wanted.length : different;
      };
      const limit = Math.min(most, wanted.length);
      const { length, table } = tree.find(wanted, limit);
      expect(length).toBe(Math.min(limit, Math.max(0, ...texts.map(shared))));
      expect(table).toHaveLength(blocksOf(length));
      expect(tree.evictable).toBe(tree.size - table.length);
      for (const block of table) pool.release(block);
      tree.evict(tree.size);
      expect(pool.free).toBe(100);
    }),
    { numRuns: 500 },
  );
});

test("a block that several texts begin with is kept once", () => {
  const beginning = numbers(2 * blockSize);
  const { pool, tree } = filled([1, 2, 3].map((n) => [...beginning, ...numbers(blockSize, n)]));
  expect(tree.size).toBe(2 + 3);
  expect(pool.free).toBe(100 - 5);
});

test("a longer text takes the place of its own beginning", () => {
  const { tree } = filled([numbers(20), numbers(40), numbers(25)]);
  expect(tree.size).toBe(3);
  expect(tree.find(numbers(60), 60).length).toBe(40);
});

test("eviction spares blocks in use and those before them", () => {
  const { pool, tree } = filled([numbers(64), numbers(64, 1)]);
  const { table } = tree.find(numbers(40), 40);
  tree.evict(100);
  expect(tree.size).toBe(3);
  expect(table.every((block) => pool.isShared(block))).toBe(true);
  expect(tree.find(numbers(64), 64).length).toBe(48);
});

test("what is used again and again outlives what came once, and old fame fades", () => {
  const often = numbers(32, 1);
  const { pool, tree } = filled([often], 1000, 20);
  const again = () => {
    const { length, table } = tree.find(often, often.length);
    for (const block of table) pool.release(block);
    return length;
  };
  for (let n = 0; n < 20; n++) again();
  for (let n = 0; n < 15; n++) tree.insert(numbers(32, 100 + n), pool.take(2));
  expect(again()).toBe(32);
  expect(tree.evictable).toBe(20);
  for (let n = 0; n < 400; n++) tree.insert([200 + n, ...numbers(31, n)], pool.take(2));
  expect(again()).toBe(0);
});

test("what costs more to compute again outlives what costs less", () => {
  const { pool, tree } = filled([numbers(5000)], 1000, 1000);
  tree.insert([99, 98, 97], pool.take(1));
  tree.evict(1);
  expect(tree.find([99, 98, 97], 3).length).toBe(0);
});

test("a text that just ended is found, however famous those that fill the tree", () => {
  const { pool, tree } = filled([numbers(32, 1), numbers(32, 2)], 100, 4);
  for (let n = 0; n < 20; n++)
    for (const seed of [1, 2])
      for (const block of tree.find(numbers(32, seed), 32).table) pool.release(block);
  const ended = [99, ...numbers(30, 3)];
  tree.insert(ended, pool.take(2));
  expect(tree.find(ended, 31).length).toBe(31);
  expect(tree.size).toBe(4);
});

test("a text longer than the tree may hold is kept as far as it may", () => {
  const { tree } = filled([numbers(100)], 100, 3);
  expect(tree.find(numbers(100), 100).length).toBe(48);
});
