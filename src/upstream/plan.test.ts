import { expect, test } from "vitest";
import { joined, pointPrompt, pointsOf, skeletonPrompt } from "./plan.js";

test.each<[string, string[]]>([
  ["1. Boil water\n2. Add tea", ["Boil water", "Add tea"]],
  ["Sure! Here it is:\n\n 1) Boil water\n 2) Add tea\n", ["Boil water", "Add tea"]],
  ["**1. Boil water**\n**2.** Add tea", ["Boil water", "Add tea"]],
  ["1. One\n2. Two\n3. Three\n4. Four", ["One", "Two", "Three"]],
  ["1. One\n3. Out of turn\n2. Two\n1. Another list", ["One", "Two"]],
  ["2024. A year", []],
  ["No list.", []],
  ["1.", []],
])("the points of %j", (text, points) => {
  expect(pointsOf(text, 3)).toEqual(points);
});

test("the prompts hold the question, the skeleton and what was said before", () => {
  const conversation = [
    { role: "user", content: "Hi." },
    { role: "assistant", content: "Hello." },
    { role: "user", content: "How is tea made?" },
  ] as const;
  const skeleton = skeletonPrompt(conversation, 7);
  expect(skeleton.slice(0, 2)).toEqual(conversation.slice(0, 2));
  expect(JSON.stringify(skeleton[2])).toMatch(/at most 7 points.*How is tea made\?/s);
  const point = JSON.stringify(pointPrompt("How is tea made?", ["Boil water", "Add tea"], 1));
  expect(point).toMatch(/How is tea made\?.*1\. Boil water\\n2\. Add tea.*point 2, \\"Add tea\\"/s);
  expect(() => skeletonPrompt(conversation.slice(0, 2), 7)).toThrow(
    expect.objectContaining({ code: "ERR_BAD_REQUEST" }),
  );
});

test("points are joined with their numbers", () => {
  expect(
    joined([
      { point: "A", text: " a\n" },
      { point: "B", text: "b" },
    ]),
  ).toBe("1. A\na\n\n2. B\nb");
});
