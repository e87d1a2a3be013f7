import { describe, expect, test } from "vitest";
import { decode } from "./decode.js";
import { draftModel, type VocabularyView, vocabularyMismatch } from "./draft-model.js";
import { fixedLength, type Planner } from "./plan.js";
import { acceptanceRate, newStats } from "./stats.js";
import { fakeSequence, GREEDY } from "./testing.js";

describe("draftModel", () => {
  test.each([0, 1])("the target itself as draft is always right (temperature %d)", async (temperature) => {
    using target = fakeSequence();
    using drafter = draftModel(fakeSequence());
    await target.prefill([1, 2, 3]);
    const stats = newStats();
    const options = { drafter, planner: fixedLength(4), sampling: { ...GREEDY, temperature, seed: 5 } };
    for await (const _ of decode(target, 4, { ...options, maxTokens: 50, endIds: new Set(), stats }));
    expect(acceptanceRate(stats)).toBe(1);
    expect(stats.passes).toBe(10);
  });

  test("computes no more than it drafts: its cache keeps what was accepted", async () => {
    let rows = 0;
    const cost = (n: number) => {
      rows += n;
      return 1;
    };
    using target = fakeSequence();
    using drafter = draftModel(fakeSequence({ cost }));
    await target.prefill([1, 2, 3]);
    const options = {
      drafter,
      planner: fixedLength(3),
      sampling: GREEDY,
      maxTokens: 80,
      endIds: new Set<number>(),
    };
    const stats = newStats();
    for await (const _ of decode(target, 4, { ...options, stats }));
    // The prompt, one row for each drafted token, one more for the token after a draft that was right to its end.
    expect(rows).toBeLessThanOrEqual(4 + stats.drafted + stats.passes);
  });

  test("stops where a token is not worth its pass", async () => {
    using drafter = draftModel(fakeSequence());
    await drafter.reset([1, 2, 3], { sampling: GREEDY });
    // The first is known only when its pass is paid for.
    expect((await drafter.propose(8, () => 1)).tokens).toHaveLength(1);
    expect((await drafter.propose(8, () => 0)).tokens).toHaveLength(8);
  });

  test("with rejection a draft may be cut short, and texts are still distributed as the model's own", async () => {
    const fake = { vocab: 6 };
    // Cuts by the price of a place, and by what is known once the draft is there.
    const cutting: Planner[] = [
      { ...fixedLength(3), price: () => 0.35 },
      { ...fixedLength(3), choose: (reach) => reach.flatMap((r, i) => (r > 0.35 ? [i] : [])) },
    ];
    const runs = 3000;
    const counts = new Map<string, number[]>();
    for (const [i, planner] of [fixedLength(0), ...cutting].entries()) {
      using drafter = draftModel(fakeSequence(fake));
      const stats = newStats();
      for (let seed = 0; seed < runs; seed++) {
        using target = fakeSequence(fake, [3]);
        const text: number[] = [];
        const options = { drafter, planner, verify: "rejection" as const, stats, endIds: new Set<number>() };
        const sampling = { ...GREEDY, temperature: 1, seed: seed + i * runs };
        for await (const { tokens } of decode(target, 1, { ...options, sampling, maxTokens: 2 }))
          text.push(...tokens);
        const row = counts.get(text.join()) ?? [0, 0, 0];
        row[i]!++;
        counts.set(text.join(), row);
      }
      if (i > 0) expect(stats.drafted).toBeGreaterThan(runs / 10);
    }
    for (const other of [1, 2]) {
      const rows = [...counts.values()].filter((row) => row[0]! + row[other]! >= 10);
      const statistic = rows.reduce((sum, r) => sum + (r[0]! - r[other]!) ** 2 / (r[0]! + r[other]!), 0);
      expect(rows.length).toBeGreaterThan(15);
      expect((statistic - rows.length) / Math.sqrt(2 * rows.length)).toBeLessThan(4);
    }
  });

  test("disposes of its sequence", async () => {
    const sequence = fakeSequence();
    draftModel(sequence)[Symbol.dispose]();
    await expect(sequence.prefill([1])).rejects.toThrow("disposed");
  });
});

describe("vocabularyMismatch", () => {
  const view = (tokens: readonly string[], control = 0, eosId = 1): VocabularyView => ({
    vocabSize: tokens.length,
    text: (id) => tokens[id]!,
    isControl: (id) => id === control,
    bosId: 0,
    eosId,
  });
  const words = Array.from({ length: 20 }, (_, i) => `w${i}`);

  test("says nothing about equal vocabularies", () => {
    expect(vocabularyMismatch(view(words), view([...words]))).toBeUndefined();
  });

  test("lists the first 5 differing tokens", () => {
    const message = vocabularyMismatch(view(words), view(words.map((word, i) => (i < 3 ? word : `v${i}`))));
    expect(message?.match(/token \d+/g)).toEqual(["token 3", "token 4", "token 5", "token 6", "token 7"]);
    expect(message).toContain('token 3 is "w3" in the target and "v3" in the draft');
  });

  test("sees sizes, control tokens and special ids", () => {
    expect(vocabularyMismatch(view(words), view(words.slice(0, 19)))).toMatch(
      /20 tokens and the draft 19.*"w19".*missing/,
    );
    expect(vocabularyMismatch(view(words), view(words, 2))).toContain('"w2" (control) in the draft');
    expect(vocabularyMismatch(view(words), view(words, 0, 3))).toBe(
      "eosId is 1 in the target and 3 in the draft",
    );
  });

  test("tells apart long tokens that look alike when shortened", () => {
    const long = "x".repeat(200);
    expect(vocabularyMismatch(view([long]), view([`${long}y`]))).toContain("token 0");
  });
});
