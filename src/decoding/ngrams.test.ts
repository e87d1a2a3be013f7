import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { contextTag, NgramTable, ngrams } from "./ngrams.js";
import { CONTEXT, DraftTree, Guesses, MOST_GUESSES } from "./predictor.js";

/** The table's tokens and counts behind a context, most frequent first. */
function counts(table: NgramTable, tag: number): [number, number][] {
  const slot = table.find(tag);
  const found: [number, number][] = [];
  for (let rank = 0; slot >= 0 && rank < MOST_GUESSES && table.countAt(slot, rank) > 0; rank++)
    found.push([table.tokenAt(slot, rank), table.countAt(slot, rank)]);
  return found;
}

describe("NgramTable", () => {
  test("counts as a map does, for as many tokens as it keeps (property)", () => {
    const added = fc.array(fc.tuple(fc.nat(20), fc.nat(MOST_GUESSES - 1)), { maxLength: 200 });
    fc.assert(
      fc.property(added, (pairs) => {
        const table = new NgramTable(1 << 12);
        const expected = new Map<number, Map<number, number>>();
        for (const [context, token] of pairs) {
          const tag = contextTag([context], 0, 1);
          table.add(tag, token);
          const tokens = expected.get(tag) ?? new Map<number, number>();
          expected.set(tag, tokens.set(token, (tokens.get(token) ?? 0) + 1));
        }
        for (const [tag, tokens] of expected) {
          const found = counts(table, tag);
          expect(new Map(found)).toEqual(tokens);
          expect(found.map(([, count]) => count)).toEqual(
            found.map(([, count]) => count).sort((a, b) => b - a),
          );
        }
      }),
    );
  });

  test("forgets the rarest token, halves counts that are full, and lets old contexts go", () => {
    const table = new NgramTable(8);
    const tag = contextTag([1], 0, 1);
    for (let token = 0; token < 9; token++) for (let i = 0; i <= token; i++) table.add(tag, token);
    expect(counts(table, tag)[0]).toEqual([8, 9]);
    for (let i = 0; i < 1000; i++) table.add(tag, 8);
    expect(counts(table, tag)[0]![1]).toBeGreaterThan(100);
    expect(counts(table, tag)[0]![1]).toBeLessThan(256);
    for (let context = 2; context < 3000; context++) table.add(contextTag([context], 0, 1), 0);
    expect(table.find(tag)).toBe(-1);
  });

  test("comes back as it was saved, without what was rare", () => {
    const table = new NgramTable(1 << 10);
    const often = contextTag([1, 2], 0, 2);
    const once = contextTag([3, 4], 0, 2);
    for (const token of [5, 6, 5, 7]) table.add(often, token);
    table.add(once, 9);
    const loaded = new NgramTable(1 << 8);
    expect(loaded.load(table.save(2), 10)).toBe(true);
    expect(counts(loaded, often)).toEqual(counts(table, often));
    expect(loaded.find(once)).toBe(-1);
  });

  test("loads nothing from damaged bytes (property)", () => {
    const table = new NgramTable(64);
    for (let token = 0; token < 30; token++) table.add(contextTag([token], 0, 1), token);
    const saved = table.save();
    const guess = new Guesses();
    fc.assert(
      fc.property(fc.nat(saved.length - 1), fc.nat(255), fc.nat(40), (at, byte, cut) => {
        const bytes = Buffer.from(saved.subarray(0, saved.length - (cut < 20 ? cut : 0)));
        bytes[at % bytes.length] = byte;
        const loaded = new NgramTable(64);
        const whole = loaded.load(bytes, 30);
        if (bytes.length !== saved.length && bytes.length % 24 !== 0) expect(whole).toBe(false);
        // Whatever was taken, its guesses are token ids.
        const predictor = ngrams(loaded);
        const tree = new DraftTree(2);
        for (let token = 0; token < 30; token++) {
          tree.begin([token, ...new Array<number>(CONTEXT - 1).fill(-1)]);
          guess.count = 0;
          predictor.guess(tree, 0, guess);
          for (let i = 0; i < guess.count; i++) {
            expect(guess.tokens[i]).toBeGreaterThanOrEqual(0);
            expect(guess.tokens[i]).toBeLessThan(30);
            expect(guess.kinds[i]).toBeLessThan(predictor.priors.length);
          }
        }
      }),
    );
  });
});

test("the longest known context guesses, in the order of its counts", () => {
  const table = new NgramTable(1 << 12);
  const predictor = ngrams(table);
  predictor.reset([1, 2]);
  predictor.accept([3, 4, 1, 2, 3, 5, 1, 2, 3, 5, 9, 3, 6]);
  const guesses = new Guesses();
  const ask = (...last: number[]) => {
    const tree = new DraftTree(2);
    tree.begin([...last.reverse(), -1, -1, -1, -1].slice(0, CONTEXT));
    guesses.count = 0;
    predictor.guess(tree, 0, guesses);
    return Array.from(guesses.tokens.subarray(0, guesses.count));
  };
  expect(ask(1, 2, 3)).toEqual([5, 4]);
  expect(ask(9, 3)).toEqual([6]);
  expect(ask(0, 3)).toEqual([5, 6, 4]);
  expect(ask(77)).toEqual([]);
});
