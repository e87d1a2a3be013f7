import { afterEach, expect, test, vi } from "vitest";
import { newStats } from "../decoding/stats.js";
import { Generation, type GenerationResult, OutriderError, type Piece } from "../index.js";
import { showAnswer, summary } from "./answer.js";

afterEach(() => vi.restoreAllMocks());

const result: GenerationResult = {
  promptTokens: [1],
  tokens: [],
  logprobs: [],
  topTokens: [],
  text: "",
  finishReason: "length",
  seed: 0,
  strategy: "auto",
  stats: newStats(),
  cachedTokens: 0,
  warnings: [],
};
const piece = (text: string): Piece => ({
  text,
  tokens: [7],
  logprobs: [-1],
  drafted: 0,
  accepted: 0,
  drafter: "none",
});

/** What reaches stdout. */
async function shown(end: () => void): Promise<{ text: string; outcome: unknown }> {
  let text = "";
  vi.spyOn(process.stdout, "write").mockImplementation((part) => {
    text += String(part);
    return true;
  });
  const partial = { ...result };
  const run = new Generation(partial, async function* () {
    yield piece("on");
    partial.text = "one"; // "e" may have been the beginning of a stop string
    end();
  });
  const outcome = await showAnswer(run, true).catch((error: unknown) => error);
  vi.restoreAllMocks();
  return { text, outcome };
}

test("an aborted answer is shown as far as it came, with what was held back", async () => {
  const { text, outcome } = await shown(() => {
    throw new OutriderError("ERR_ABORTED", "stopped");
  });
  expect(text).toBe("one\n");
  expect(outcome).toMatchObject({ finishReason: "abort" });
});

test("another error is thrown, on a line of its own", async () => {
  const { text, outcome } = await shown(() => {
    throw new OutriderError("ERR_RUNTIME_NAN", "not a number");
  });
  expect(text).toBe("on\n");
  expect(outcome).toMatchObject({ code: "ERR_RUNTIME_NAN" });
});

test("the line of statistics", () => {
  const stats = { ...newStats(), tokens: 1234, passes: 617, decodeMs: 2000 };
  expect(summary({ ...result, finishReason: "stop", stats })).toBe(
    "1,234 tokens · 617 tokens/s · 617 passes · 2.00 tokens/pass · auto",
  );
  expect(summary({ ...result, finishReason: "length", stats })).toMatch(/ · auto · cut at 1,234 tokens$/);
});
