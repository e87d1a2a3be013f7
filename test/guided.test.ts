import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Guide, load, type Model, type Strategy } from "../src/index.js";

let model: Model;
beforeAll(async () => {
  model = await load();
});
afterAll(() => model.close());

const person = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 20 },
    age: { type: "integer", minimum: 0, maximum: 120 },
    married: { type: "boolean" },
    hobbies: { type: "array", items: { enum: ["chess", "music", "sport"] }, maxItems: 2 },
  },
  required: ["name", "age", "married", "hobbies"],
};
const guides: Readonly<Record<string, Guide>> = {
  schema: { json: person },
  regex: { regex: "(yes|no), because [a-z ]{5,30}\\." },
  grammar: { grammar: 'root ::= ("- " [a-z]+ "\\n"){2,3}' },
};
const prompt = "Describe a person with name, age, hobbies.";

describe.each(Object.entries(guides))("%s", (_name, guide) => {
  test.each([
    ["greedy", {}],
    ["drawn", { temperature: 1.2, topP: 0.95, seed: 11 }],
    ["with penalties", { temperature: 0.7, repetitionPenalty: 1.2, seed: 5 }],
  ])("%s: every strategy gives the same bits, and what the guide says", async (_sampling, sampling) => {
    const run = (strategy: Strategy, draftLength?: number) =>
      model.generate(prompt, { ...sampling, guide, strategy, draftLength, maxTokens: 120 }).result;
    const plain = await run("none");
    for (const [strategy, draftLength] of [
      ["lookup"],
      ["recycle"],
      ["self"],
      ["layer-parallel"],
      ["auto"],
      ["auto", 7],
      ["lookup", 12],
    ] as const) {
      const other = await run(strategy, draftLength);
      expect(other.tokens, strategy).toEqual(plain.tokens);
      expect(other.logprobs, strategy).toEqual(plain.logprobs);
    }
    if (plain.finishReason !== "stop") return; // cut by maxTokens
    if ("regex" in guide) expect(plain.text).toMatch(new RegExp(`^(?:${guide.regex})$`));
    if ("grammar" in guide) expect(plain.text).toMatch(/^(- [a-z]+\n){2,3}$/);
    if ("json" in guide) {
      const value = JSON.parse(plain.text);
      expect(Object.keys(value)).toEqual(Object.keys(person.properties));
      expect(value.age).toBeGreaterThanOrEqual(0);
    }
  });
});

// Also by drafters that are not asked because they do not pay; plain decoding drafts nothing.
test.each([
  ["lookup", 0.7],
  ["self", 0.7],
  ["layer-parallel", 0.7],
  ["none", 1],
] as const)(
  "what must come is drafted by %s: passes are at most %d of the tokens",
  async (strategy, most) => {
    const run = model.generate(prompt, { guide: { json: person }, strategy, maxTokens: 120 });
    const { stats } = await run.result;
    expect(stats.passes / stats.tokens).toBeLessThanOrEqual(most);
    if (strategy === "none") expect(stats.drafted).toBe(0);
  },
);

test("guided texts side by side, and beside free ones, are those given alone", async () => {
  const one = (i: number) =>
    model.generate(prompt, {
      ...(i % 3 === 0 ? {} : { guide: Object.values(guides)[i % 3]! }),
      temperature: 0.9,
      seed: i,
      maxTokens: 40,
    }).result;
  const alone = [];
  for (let i = 0; i < 6; i++) alone.push(await one(i));
  const together = await Promise.all([0, 1, 2, 3, 4, 5].map(one));
  expect(together.map((r) => r.tokens)).toEqual(alone.map((r) => r.tokens));
  expect(together.map((r) => r.logprobs)).toEqual(alone.map((r) => r.logprobs));
});

test.each<[string, unknown, string]>([
  ["a schema that cannot be enforced", { json: { not: {} } }, "ERR_GRAMMAR"],
  ["nothing", {}, "ERR_GRAMMAR"],
  ["two at once", { json: true, regex: "a" }, "ERR_GRAMMAR"],
  ["a number", 7, "ERR_GRAMMAR"],
])("%s is refused before any token", (_name, guide, code) => {
  expect(() => model.generate(prompt, { guide: guide as Guide })).toThrow(expect.objectContaining({ code }));
});

test("a guided text has an end", () => {
  expect(() => model.generate(prompt, { guide: { json: true }, ignoreEnd: true })).toThrow(
    expect.objectContaining({ code: "ERR_BAD_REQUEST", param: "ignoreEnd" }),
  );
});
