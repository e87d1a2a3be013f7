import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { promptOf, readJsonLines, tokenIds } from "./json-lines.js";

const folder = mkdtempSync(path.join(tmpdir(), "outrider-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(text: string): string {
  const name = path.join(folder, "lines.jsonl");
  writeFileSync(name, text);
  return name;
}

describe("readJsonLines", () => {
  test("takes id, question_id or the line's number; skips blank lines, a byte order mark and carriage returns", async () => {
    const lines = await readJsonLines(file('\ufeff{"id":"a"}\r\n\r\n{"question_id":81}\n{"prompt":"x"}\n'));
    expect(lines.map((line) => line.id)).toEqual(["a", 81, 4]);
    expect(lines[2]!.where).toMatch(/lines\.jsonl:4$/);
  });

  test("stops at the limit, whatever follows", async () => {
    expect(await readJsonLines(file('{"id":1}\n{"id":2}\nnonsense\n'), 2)).toHaveLength(2);
  });

  test.each([
    ['{"a":1}\n{"a":', /lines\.jsonl:2: not JSON/],
    ["[1]", /lines\.jsonl:1: expected a JSON object/],
    ["null", /lines\.jsonl:1: expected a JSON object/],
    ['{"id":{}}', /lines\.jsonl:1: id is/],
    ["\n\n", /has no lines/],
  ])("refuses %j", async (text, message) => {
    await expect(readJsonLines(file(text))).rejects.toMatchObject({
      code: "ERR_BAD_REQUEST",
      message: expect.stringMatching(message),
    });
  });

  test("says why a file cannot be read", async () => {
    await expect(readJsonLines(path.join(folder, "none"))).rejects.toMatchObject({
      code: "ERR_PATH",
      message: expect.stringContaining("does not exist"),
    });
    await expect(readJsonLines(folder)).rejects.toMatchObject({
      code: "ERR_PATH",
      message: expect.stringContaining("is a folder"),
    });
  });
});

describe("fields", () => {
  const line = (value: Record<string, unknown>) => ({ where: "f:7", id: 7, value });

  test("token ids go before a prompt, a prompt before turns", () => {
    expect(promptOf(line({ prompt_tokens: [1, 2], prompt: "p", turns: ["t"] }))).toEqual([1, 2]);
    expect(promptOf(line({ prompt: "p", turns: ["t"] }))).toBe("p");
    expect(promptOf(line({ turns: ["t", "u"] }))).toBe("t");
  });

  test.each([{}, { prompt: "" }, { prompt: 3 }, { turns: "t" }, { turns: [] }, { turns: [1] }])(
    "refuses %j",
    (value) => expect(() => promptOf(line(value))).toThrow(/^f:7: expected "prompt"/),
  );

  test.each([[[1.5]], [["1"]], ["1 2"], [null]])("%j are no token ids", (ids) =>
    expect(() => tokenIds(line({ tokens: ids }), "tokens")).toThrow(/^f:7: tokens is/),
  );
});
