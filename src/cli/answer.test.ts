import { afterEach, expect, test, vi } from "vitest";
import { newStats } from "../decoding/stats.js";
import { Generation, type GenerationResult, OutriderError, type Piece } from "../index.js";
import { answerJson, type ShowFlags, showAnswer, summary } from "./answer.js";

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

/** What reaches stdout and stderr. */
async function shown(
  end: () => void,
  flags: ShowFlags = {},
  tokens = [7],
): Promise<{ text: string; told: string; outcome: unknown }> {
  let text = "";
  let told = "";
  vi.spyOn(process.stdout, "write").mockImplementation((part) => {
    text += String(part);
    return true;
  });
  vi.spyOn(process.stderr, "write").mockImplementation((part) => {
    told += String(part);
    return true;
  });
  const partial = { ...result, tokens };
  const run = new Generation(partial, async function* () {
    yield { ...piece("on"), tokens };
    partial.text = "one"; // "e" may have been the beginning of a stop string
    end();
  });
  const outcome = await showAnswer(run, flags).catch((error: unknown) => error);
  vi.restoreAllMocks();
  return { text, told, outcome };
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

test("an answer that was cut says so beside it, unless the cut was asked for", async () => {
  const nothing = () => undefined;
  const tokens = Array.from({ length: 2048 }, (_, i) => i);
  expect(await shown(nothing, {}, tokens)).toMatchObject({
    text: "one\n",
    told: "It was cut after 2,048 tokens; --max-tokens N lets it go on.\n",
  });
  expect((await shown(nothing, {}, tokens.slice(0, 500))).told).toMatch(/context is full; --context/);
  expect((await shown(nothing, { maxTokens: 2048 }, tokens)).told).toBe("");
  expect((await shown(nothing, { quiet: true }, tokens)).told).toBe("");
});

test("an answer that goes in circles ends, unless somebody said how long it is", async () => {
  let went = 0;
  const on = () => {
    went++;
  };
  const circles = Array.from({ length: 200 }, (_, i) => i % 5);
  expect((await shown(on, {}, circles)).told).toMatch(/^It goes in circles and was cut; --max-tokens/);
  expect(went).toBe(0);
  await shown(on, { maxTokens: 2048 }, circles);
  expect(went).toBe(1);
});

test("the line of statistics", () => {
  const stats = { ...newStats(), tokens: 1234, passes: 617, decodeMs: 2000 };
  expect(summary({ ...result, finishReason: "stop", stats })).toBe(
    "1,234 tokens · 617 tokens/s · 617 passes · 2.00 tokens/pass · auto",
  );
  expect(summary({ ...result, stats }, 1234)).toMatch(/ · auto · cut at 1,234 tokens$/);
});

test("JSON does not call a text exact that rejection drew", () => {
  const exact = (flags: Parameters<typeof answerJson>[3]) =>
    JSON.parse(answerJson(1, "m", result, flags)).exact;
  expect(exact({})).toBe(true);
  expect(exact({ verify: "coupled", temperature: 1 })).toBe(true);
  expect(exact({ verify: "rejection", temperature: 0 })).toBe(true);
  expect(exact({ verify: "rejection", temperature: 1 })).toBe(false);
});
