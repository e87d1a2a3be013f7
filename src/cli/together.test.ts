import { expect, test } from "vitest";
import { DraftMemory } from "../decoding/memory.js";
import type { Model } from "../index.js";
import { measureTogether } from "./together.js";

test("both sides begin with what the model came with, and take turns", async () => {
  const asked: [kind: string, memory: DraftMemory][] = [];
  const answer = (kind: string) => {
    asked.push([kind, model.draftMemory]);
    return { result: Promise.resolve({ tokens: [1, 2], finishReason: "length" }) };
  };
  const model = {
    draftMemory: new DraftMemory(),
    tokenizer: { vocabSize: 8 },
    generate: () => answer("one"),
    samples: (_: unknown, { n }: { n: number }) => Array.from({ length: n }, () => answer("sample")),
  } as unknown as Model;
  const own = model.draftMemory;
  const rows = await measureTogether(model, [{ category: "", tokens: [1] }], {
    batches: [],
    samples: [2],
    repetitions: 2,
    maxTokens: 4,
  });
  expect(rows).toMatchObject([{ kind: "samples", size: 2, answers: 4, exact: 4 }]);
  expect(asked.map(([kind]) => kind).join(" ")).toBe(
    "sample sample one one sample sample sample sample one one",
  );
  const timed = asked.slice(2).map(([, memory]) => memory);
  expect(timed).not.toContain(own);
  for (let i = 0; i < timed.length; i += 2) {
    expect(timed[i]).toBe(timed[i + 1]);
    expect(timed.slice(i + 2)).not.toContain(timed[i]);
  }
});
