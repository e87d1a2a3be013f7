import { describe, expect, test } from "vitest";
import { newStats } from "../decoding/stats.js";
import { OutriderError } from "../errors.js";
import { Generation, type GenerationResult, type Piece } from "./generation.js";

/** A generation that makes these pieces, an error among them being thrown, and how far it came. */
function scripted(script: readonly (string | Error)[]) {
  const partial: GenerationResult = {
    promptTokens: [1],
    tokens: [],
    logprobs: [],
    topTokens: [],
    text: "",
    finishReason: "length",
    seed: 0,
    strategy: "none",
    stats: newStats(),
    cachedTokens: 0,
    warnings: [],
  };
  const seen = { started: 0, ended: 0 };
  const generation = new Generation(partial, async function* (): AsyncGenerator<Piece, void, undefined> {
    seen.started++;
    try {
      for (const text of script) {
        if (typeof text !== "string") throw text;
        partial.text += text;
        yield { text, tokens: [1], logprobs: [0], drafted: 0, accepted: 0, drafter: "none" };
      }
    } finally {
      seen.ended++;
    }
  });
  return { generation, seen };
}

const aborted = new OutriderError("ERR_ABORTED", "stopped");
const broken = new OutriderError("ERR_RUNTIME", "broken");

async function textOf(generation: Generation): Promise<string> {
  let text = "";
  for await (const piece of generation) text += piece.text;
  return text;
}

describe("a generation", () => {
  test("does nothing until someone looks", async () => {
    const { generation, seen } = scripted(["a"]);
    await new Promise((resolve) => setImmediate(resolve));
    expect(seen.started).toBe(0);
    expect(await generation.text()).toBe("a");
  });

  test("result drives it once, however often it is asked for", async () => {
    const { generation, seen } = scripted(["a", "b"]);
    const [first, second] = await Promise.all([generation.result, generation.result]);
    expect(first).toBe(second);
    expect(first).toMatchObject({ text: "ab", finishReason: "length" });
    expect(seen).toEqual({ started: 1, ended: 1 });
  });

  test("pieces and result agree", async () => {
    const { generation } = scripted(["a", "", "b"]);
    expect(await textOf(generation)).toBe("ab");
    expect((await generation.result).text).toBe("ab");
  });

  test("result asked for during the loop waits for the loop", async () => {
    const { generation, seen } = scripted(["a", "b"]);
    const pending: Promise<GenerationResult>[] = [];
    for await (const _ of generation) pending.push(generation.result);
    expect((await Promise.all(pending)).map(({ text }) => text)).toEqual(["ab", "ab"]);
    expect(seen.started).toBe(1);
  });

  test("leaving the loop ends it", async () => {
    const { generation, seen } = scripted(["a", "b"]);
    for await (const _ of generation) break;
    expect(seen.ended).toBe(1);
    expect(await generation.result).toMatchObject({ text: "a", finishReason: "abort" });
  });

  test("an error thrown in the loop's body ends it too", async () => {
    const { generation, seen } = scripted(["a", "b"]);
    await expect(
      (async () => {
        for await (const _ of generation) throw new RangeError("mine");
      })(),
    ).rejects.toThrow("mine");
    expect(seen.ended).toBe(1);
    expect(await generation.result).toMatchObject({ finishReason: "abort" });
  });

  test("an abort throws in the loop and resolves the result", async () => {
    const { generation } = scripted(["a", aborted]);
    await expect(textOf(generation)).rejects.toBe(aborted);
    expect(await generation.result).toMatchObject({ text: "a", finishReason: "abort" });
    const alone = scripted(["a", aborted]).generation;
    expect(await alone.result).toMatchObject({ text: "a", finishReason: "abort" });
  });

  test("another error throws in the loop and rejects the result", async () => {
    const { generation } = scripted(["a", broken]);
    await expect(textOf(generation)).rejects.toBe(broken);
    await expect(generation.result).rejects.toBe(broken);
    await expect(scripted([broken]).generation.text()).rejects.toBe(broken);
  });

  test("is iterated over once", async () => {
    const { generation, seen } = scripted(["a"]);
    await textOf(generation);
    await expect(textOf(generation)).rejects.toMatchObject({ code: "ERR_BAD_REQUEST" });
    expect((await generation.result).finishReason).toBe("length");
    expect(seen.started).toBe(1);
  });
});
