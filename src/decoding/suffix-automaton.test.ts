import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ROOT, SuffixAutomaton } from "./suffix-automaton.js";

/** The longest suffix that also ends earlier, and the latest place where it does: the definition, cubic. */
function longestMatch(text: readonly number[]): { length: number; end: number } {
  for (let length = text.length - 1; length > 0; length--) {
    for (let end = text.length - 1; end >= length; end--) {
      const same = (_: unknown, i: number) => text[end - length + i] === text[text.length - length + i];
      if (Array.from({ length }).every(same)) return { length, end };
    }
  }
  return { length: 0, end: 0 };
}

function automatonOf(text: readonly number[]): SuffixAutomaton {
  const automaton = new SuffixAutomaton();
  for (const token of text) automaton.append(token);
  return automaton;
}

const texts = fc.oneof(
  fc.array(fc.nat(1), { maxLength: 40 }),
  fc.array(fc.nat(3), { maxLength: 40 }),
  fc.array(fc.constantFrom(0, 49_151, 2 ** 31 - 1), { maxLength: 40 }),
);

describe("SuffixAutomaton", () => {
  test("finds the longest earlier occurrence, the latest one, after every token", () => {
    fc.assert(
      fc.property(texts, (text) => {
        const automaton = new SuffixAutomaton();
        text.forEach((token, i) => {
          automaton.append(token);
          const { length, end } = longestMatch(text.slice(0, i + 1));
          expect(automaton.lengthOf(automaton.match)).toBe(length);
          if (length > 0) expect(automaton.matchEnd).toBe(end);
        });
      }),
      { numRuns: 200 },
    );
  });

  // Whether the arrays are replaced in the middle of an append depends on the text, hence many of them. Every match is
  // one that stands there, and none longer would by one token: cheap enough for long texts.
  test("stays right while its arrays grow", () => {
    for (let seed = 1; seed <= 60; seed++) {
      let random = seed;
      const automaton = new SuffixAutomaton();
      const text: number[] = [];
      for (let i = 0; i < 700; i++) {
        random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
        text.push((random >>> 16) % (2 + (seed % 40)));
        automaton.append(text[i]!);
        const length = automaton.lengthOf(automaton.match);
        const end = automaton.matchEnd;
        const suffix = text.slice(text.length - length).join();
        if (length > 0) expect(text.slice(end - length, end).join(), `seed ${seed}, token ${i}`).toBe(suffix);
        const longer = `,${text.slice(text.length - length - 1).join()},`;
        if (length < i)
          expect(`,${text.slice(0, -1).join()},`.includes(longer), `seed ${seed}, ${i}`).toBe(false);
      }
    }
  });

  test("contains every substring of the text and nothing else, and knows how each goes on", () => {
    fc.assert(
      fc.property(texts, fc.array(fc.nat(3), { minLength: 1, maxLength: 4 }), (text, probe) => {
        const automaton = automatonOf(text);
        let state: number | undefined = ROOT;
        for (const token of probe) state = state === undefined ? undefined : automaton.next(state, token);
        const ends: number[] = [];
        for (let end = probe.length; end <= text.length; end++) {
          if (probe.every((token, i) => text[end - probe.length + i] === token)) ends.push(end);
        }
        expect(state !== undefined).toBe(ends.length > 0);
        if (state === undefined) return;
        const following = new Set(ends.filter((end) => end < text.length).map((end) => text[end]));
        expect(automaton.isUnanimous(state)).toBe(following.size === 1);
      }),
      { numRuns: 500 },
    );
  });

  test("is as new after clear", () => {
    const automaton = automatonOf([1, 2, 3, 1, 2]);
    automaton.clear();
    expect(automaton.size).toBe(0);
    expect(automaton.next(ROOT, 1)).toBeUndefined();
    automaton.append(1);
    expect(automaton.match).toBe(ROOT);
  });

  test.each<[string, (i: number) => number]>([
    ["one token repeated", () => 5],
    ["all different", (i) => i],
    ["a period of 7", (i) => i % 7],
    ["pseudo-random bits", (i) => (Math.imul(i, 0x9e3779b1) ^ (Math.imul(i, i) >>> 7)) & 1],
    ["a run, then its end", (i) => (i % 1000 === 999 ? 1 : 0)],
    ["multiples of a large power of two", (i) => (i % 500) * 65_536],
  ])("takes a bounded number of operations a token: %s", (_, token) => {
    const automaton = new SuffixAutomaton();
    for (let i = 0; i < 20_000; i++) automaton.append(token(i));
    expect(automaton.steps / automaton.size).toBeLessThan(64);
  });
});
