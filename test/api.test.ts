import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as outrider from "../src/index.js";
import {
  type GenerateOptions,
  type Generation,
  type GenerationResult,
  load,
  type Model,
  type Prompt,
  type Strategy,
  tokensPerPass,
} from "../src/index.js";
import { embeddedGoldens, embeddedModel, goldenModel } from "./support/engines.js";
import { type ArrayValue, describeGguf, writeGguf } from "./support/gguf-writer.js";

const strategies: Strategy[] = ["none", "lookup", "recycle", "auto"];

// Both lookup and auto have much to draft here, and the continuation is known: it goes on counting to ten.
const counting =
  "Repeat after me exactly: one two three four five six seven eight nine ten. " +
  "one two three four five six seven eight nine ten. one two";
const counted = " three four five six seven eight nine ten.";

let model: Model;
beforeAll(async () => {
  model = await load(undefined, { context: 2048 });
});
afterAll(() => model.close());

const run = (prompt: Prompt, options: GenerateOptions = {}, by = model): Promise<GenerationResult> =>
  by.generate(prompt, { maxTokens: 12, ...options }).result;

/** What must not depend on how the text was made. */
const output = ({ tokens, logprobs, topTokens, text, finishReason }: GenerationResult) => ({
  tokens,
  logprobs,
  topTokens,
  text,
  finishReason,
});

/** All pieces, and what the iteration threw. */
async function iterate(generation: Generation, each: (count: number) => void = () => {}) {
  let text = "";
  let count = 0;
  let error: unknown;
  try {
    for await (const piece of generation) {
      text += piece.text;
      each(++count);
    }
  } catch (thrown) {
    error = thrown;
  }
  return { text, count, error };
}

function thrown(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  return undefined;
}

test("the package exports these names", () => {
  expect(Object.keys(outrider).sort()).toEqual([
    "AnswerParser",
    "ChatSession",
    "Generation",
    "Model",
    "OutriderError",
    "acceptanceRate",
    "bestOf",
    "embeddedModel",
    "endsInReasoning",
    "load",
    "majorityVote",
    "tokensPerPass",
    "tokensPerSecond",
  ]);
});

describe("prompts", () => {
  const goldens = readFileSync(embeddedGoldens, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
    .slice(0, 6);

  test.each(goldens)(
    "question $question_id: the ids and the first tokens of an independent engine",
    async (golden) => {
      const result = await run(golden.prompt);
      expect(result.promptTokens).toEqual(golden.prompt_tokens);
      // Rounded activations may choose otherwise where two tokens are nearly as likely: 0.5 is about e^0.5 in odds.
      const sure = golden.top16.findIndex(
        ([first, second]: [number, number][]) => first![1]! - second![1]! < 0.5,
      );
      const count = Math.min(12, sure < 0 ? golden.greedy.length : sure);
      expect(result.tokens.slice(0, count)).toEqual(golden.greedy.slice(0, count));
      expect(golden.text.startsWith(model.detokenize(result.tokens.slice(0, count)))).toBe(true);
    },
  );

  test("a string, its message and its ids are one prompt", async () => {
    const byString = await run("Name a colour.");
    const byMessage = await run([{ role: "user", content: "Name a colour." }]);
    const byIds = await run(await model.promptTokens("Name a colour."));
    expect(output(byMessage)).toEqual(output(byString));
    expect(output(byIds)).toEqual(output(byString));
    expect(byIds.promptTokens).toEqual(byString.promptTokens);
  });

  test("the system option is a system message", async () => {
    const system = "You speak like a pirate.";
    const byOption = await run("Name a colour.", { system });
    const byMessage = await run([
      { role: "system", content: system },
      { role: "user", content: "Name a colour." },
    ]);
    expect(byOption.promptTokens).toEqual(byMessage.promptTokens);
    expect(byOption.promptTokens).not.toEqual((await run("Name a colour.", { maxTokens: 0 })).promptTokens);
    expect(output(byOption)).toEqual(output(byMessage));
  });

  test("raw text has no template, and its special tokens are special", async () => {
    expect((await run(counting, { raw: true, maxTokens: 0 })).promptTokens).toEqual(model.tokenize(counting));
    const special = (await run("<|im_start|>user", { raw: true, maxTokens: 0 })).promptTokens;
    expect(special[0]).toBe(1);
    expect(model.tokenize("<|im_start|>user")[0]).not.toBe(1);
  });

  test.each([
    ["no text", "", true],
    ["no ids", [], false],
  ] as const)("%s is refused", async (_, prompt, raw) => {
    await expect(run(prompt, { raw })).rejects.toMatchObject({ code: "ERR_BAD_REQUEST", param: "prompt" });
  });

  test.each([-1, 1.5, 49152, Number.NaN])("the id %s is refused at its index", async (id) => {
    await expect(run([1, 2, id])).rejects.toMatchObject({ code: "ERR_BAD_REQUEST", param: "prompt[2]" });
  });

  test.each([
    [[{ role: "robot", content: "x" }], "role"],
    [[{ role: "user", content: 5 }], "content"],
    [[{ role: "user" }], "content"],
    [[null], "messages"],
  ])("the messages %j are refused", async (messages, param) => {
    await expect(run(messages as unknown as Prompt)).rejects.toMatchObject({
      code: "ERR_BAD_REQUEST",
      param: expect.stringContaining(param),
    });
  });
});

describe("the end of a text", () => {
  test.each([0, 1, 5])("maxTokens %i", async (maxTokens) => {
    const result = await run(counting, { raw: true, maxTokens });
    expect(result.tokens).toHaveLength(maxTokens);
    expect(result.logprobs).toHaveLength(maxTokens);
    expect(result).toMatchObject({ finishReason: "length", text: model.detokenize(result.tokens) });
  });

  test("an end token ends it, unless ignoreEnd", async () => {
    const end = [...model.tokenizer.endIds][0]!;
    const forced = { logitBias: { [end]: 100 }, maxTokens: 4 };
    expect(await run(counting, { ...forced, raw: true })).toMatchObject({
      tokens: [end],
      text: "",
      finishReason: "stop",
    });
    const on = await run(counting, { ...forced, raw: true, ignoreEnd: true });
    expect(on).toMatchObject({ tokens: [end, end, end, end], finishReason: "length" });
  });

  test.each([
    ["within a token", "eve"],
    ["across tokens", "ven ei"],
    ["across many tokens", "four five six seven e"],
    ["the first of several", ["ten", "six", "nine"]],
    ["the very beginning", " three"],
    ["never", "zebra"],
  ])("a stop string %s cuts at the same place under every strategy", async (_, stop) => {
    const cuts = [stop].flat().map((s) => counted.indexOf(s));
    const found = cuts.filter((at) => at >= 0);
    const plain = await run(counting, { raw: true, stop, strategy: "none" });
    if (found.length > 0) {
      expect(plain).toMatchObject({ text: counted.slice(0, Math.min(...found)), finishReason: "stop" });
    } else expect(plain.finishReason).toBe("length");
    for (const strategy of ["lookup", "auto"] as const)
      for (const draftLength of [undefined, 8]) {
        const generation = model.generate(counting, {
          raw: true,
          stop,
          strategy,
          draftLength,
          maxTokens: 12,
        });
        const { text, error } = await iterate(generation);
        const result = await generation.result;
        expect(error).toBeUndefined();
        expect(text).toBe(result.text);
        expect(output(result)).toEqual(output(plain));
      }
  });

  test("a stop string that is complete in the middle of an accepted draft", async () => {
    const generation = model.generate(counting, {
      raw: true,
      stop: "ven ei",
      strategy: "lookup",
      draftLength: 16,
    });
    const pieces: number[] = [];
    for await (const piece of generation) {
      pieces.push(piece.tokens.length);
      expect(piece.accepted).toBeLessThanOrEqual(piece.tokens.length);
    }
    const { text, tokens, stats } = await generation.result;
    expect(text).toBe(" three four five six se");
    expect(tokens).toHaveLength(pieces.reduce((a, b) => a + b));
    expect(Math.max(...pieces)).toBeGreaterThan(1);
    expect(stats.tokens).toBeGreaterThan(tokens.length);
  });
});

describe("the context", () => {
  let small: Model;
  beforeAll(async () => {
    small = await load(undefined, { context: 64 });
  });
  afterAll(() => small.close());
  const ids = (length: number) => Array.from({ length }, (_, i) => 500 + i);

  test("exactly full: nothing fits after it", async () => {
    expect(await run(ids(64), {}, small)).toMatchObject({ tokens: [], text: "", finishReason: "length" });
  });

  test("one less: one token, the same as with more room", async () => {
    const result = await run(ids(63), {}, small);
    expect(result).toMatchObject({ tokens: [expect.any(Number)], finishReason: "length" });
    expect(result.tokens).toEqual((await run(ids(63), { maxTokens: 1 })).tokens);
  });

  test.each(strategies)("%s fills it to the last place", async (strategy) => {
    const result = await run(ids(40), { strategy, maxTokens: undefined, ignoreEnd: true }, small);
    expect(result.tokens).toHaveLength(24);
    expect(result.finishReason).toBe("length");
  });

  test("too long: both numbers, and the model goes on", async () => {
    await expect(run(ids(65), {}, small)).rejects.toMatchObject({
      code: "ERR_CONTEXT",
      param: "prompt",
      message: expect.stringMatching(/\b65\b.*\b64\b/),
    });
    expect((await run(ids(8), {}, small)).tokens).toHaveLength(12);
  });

  test("scoring: full fits, one more does not", async () => {
    expect((await small.score({ prompt: ids(60), tokens: ids(4) })).logprobs).toHaveLength(4);
    await expect(small.score({ prompt: ids(60), tokens: ids(5) })).rejects.toMatchObject({
      code: "ERR_CONTEXT",
      message: expect.stringMatching(/\b65\b.*\b64\b/),
    });
  });

  test.each([true, false])("4 MB without a space, raw: %s, are refused soon", async (raw) => {
    const started = process.cpuUsage();
    await expect(run("a".repeat(4 << 20), { raw }, small)).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    // 0.5 s of the processor's time.
    expect(process.cpuUsage(started).user).toBeLessThan(3e6);
  });

  test("a refused turn is not said; the conversation goes on", async () => {
    const chat = small.chat({ maxTokens: 4, system: "Be brief." });
    await chat.send("Hi").result;
    const before = [...chat.messages];
    await expect(chat.send("word ".repeat(100)).result).rejects.toMatchObject({ code: "ERR_CONTEXT" });
    expect(chat.messages).toEqual(before);
    expect((await chat.send("Ok").result).tokens.length).toBeGreaterThan(0);
    expect(chat.messages).toHaveLength(4);
  });
});

describe("chat", () => {
  test("the second turn finds the first one in the cache", async () => {
    const chat = model.chat({ maxTokens: 16, system: "You answer in one short sentence." });
    const first = await chat.send("What is the capital of France?").result;
    expect(chat.messages).toEqual([
      { role: "user", content: "What is the capital of France?" },
      { role: "assistant", content: first.text },
    ]);
    const second = await chat.send("And of Italy?").result;
    expect(second.cachedTokens).toBeGreaterThanOrEqual(first.promptTokens.length);
    expect(second.promptTokens.slice(0, first.promptTokens.length)).toEqual(first.promptTokens);
    expect(chat.messages.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"]);
    await using fresh = await load(undefined, { context: 2048 });
    expect(output(await run(second.promptTokens, { maxTokens: 16 }, fresh))).toEqual(output(second));
    chat.reset();
    expect(chat.messages).toEqual([]);
  });

  test("an aborted answer stays as far as it came", async () => {
    const chat = model.chat({ maxTokens: 100, strategy: "none" });
    const controller = new AbortController();
    const answer = chat.send("Tell me a long story.", { signal: controller.signal });
    const { error, text } = await iterate(answer, (count) => count === 5 && controller.abort());
    expect(error).toMatchObject({ code: "ERR_ABORTED" });
    expect(await answer.result).toMatchObject({ finishReason: "abort", text });
    expect(chat.messages).toEqual([
      { role: "user", content: "Tell me a long story." },
      { role: "assistant", content: text },
    ]);
    expect((await chat.send("Go on.", {}).result).promptTokens).toEqual(
      expect.arrayContaining(model.tokenize("Go on.")),
    );
  });

  test("leaving the loop keeps what was heard", async () => {
    const chat = model.chat({ maxTokens: 100, strategy: "none" });
    let heard = "";
    let count = 0;
    for await (const piece of chat.send("Tell me a long story.")) {
      heard += piece.text;
      if (++count === 5) break;
    }
    expect(chat.messages[1]).toEqual({ role: "assistant", content: heard });
  });

  test("a turn beside another, or sent before another ended, is refused", async () => {
    const chat = model.chat({ maxTokens: 4 });
    const [first, second] = [chat.send("One"), chat.send("Two")];
    const outcomes = await Promise.allSettled([first.result, second.result]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    await expect(second.result).rejects.toMatchObject({ code: "ERR_BAD_REQUEST" });
    const late = chat.send("Three");
    await chat.send("Four").result;
    await expect(late.result).rejects.toMatchObject({ code: "ERR_BAD_REQUEST" });
    expect(chat.messages.map(({ content }) => content).filter((_, i) => i % 2 === 0)).toEqual([
      "One",
      "Four",
    ]);
  });

  test("what a reset forgot does not come back with the answer", async () => {
    const chat = model.chat({ maxTokens: 4 });
    for await (const _ of chat.send("One")) chat.reset();
    expect(chat.messages).toEqual([]);
    await chat.send("Two").result;
    expect(chat.messages).toHaveLength(2);
  });

  test("bad options are refused when the conversation begins", () => {
    expect(thrown(() => model.chat({ temperature: -1 }))).toMatchObject({ param: "temperature" });
    expect(thrown(() => model.chat({ maxToken: 1 } as GenerateOptions))).toMatchObject({ param: "maxToken" });
  });
});

describe("stopping", () => {
  const story = "Tell me a very long story.";
  const long = Array.from({ length: 1900 }, (_, i) => 300 + ((i * 7919) % 40000));
  let fresh: GenerationResult;
  beforeAll(async () => {
    await using other = await load(undefined, { context: 2048 });
    fresh = await run(story, { maxTokens: 30 }, other);
  });
  const asFresh = async () => expect(output(await run(story, { maxTokens: 30 }))).toEqual(output(fresh));

  test.each([12, 0])("a signal aborted before the start, maxTokens %i", async (maxTokens) => {
    const generation = model.generate(story, { signal: AbortSignal.abort(), maxTokens });
    const { error, count } = await iterate(generation);
    expect(error).toMatchObject({ code: "ERR_ABORTED" });
    expect(count).toBe(0);
    expect(await generation.result).toMatchObject({ finishReason: "abort", tokens: [], text: "" });
    await asFresh();
  });

  test("during prefill", async () => {
    const generation = model.generate(long, { signal: AbortSignal.timeout(60) });
    const { error, count } = await iterate(generation);
    expect(error).toMatchObject({ code: "ERR_ABORTED" });
    expect(count).toBe(0);
    expect(await generation.result).toMatchObject({
      finishReason: "abort",
      tokens: [],
      stats: { prefillMs: 0 },
    });
    await asFresh();
  });

  test.each(strategies)("during decoding with %s", async (strategy) => {
    const controller = new AbortController();
    const generation = model.generate(story, { signal: controller.signal, strategy });
    const { error, text, count } = await iterate(generation, (n) => n === 4 && controller.abort());
    expect(error).toMatchObject({ code: "ERR_ABORTED" });
    expect(count).toBe(4);
    const result = await generation.result;
    expect(result).toMatchObject({ finishReason: "abort", text });
    expect(result.tokens.slice(0, 30)).toEqual(fresh.tokens.slice(0, result.tokens.length));
    await asFresh();
  });

  test("while a pass runs", async () => {
    const generation = model.generate(story, { signal: AbortSignal.timeout(40), ignoreEnd: true });
    const result = await generation.result;
    expect(result.finishReason).toBe("abort");
    expect(result.text).toBe(model.detokenize(result.tokens));
    await asFresh();
  });

  test("scoring", async () => {
    await expect(
      model.score({ prompt: story, tokens: long, signal: AbortSignal.timeout(60) }),
    ).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await asFresh();
  });

  test("leaving the loop", async () => {
    const generation = model.generate(story, { maxTokens: 100 });
    for await (const _ of generation) break;
    const result = await generation.result;
    expect(result.finishReason).toBe("abort");
    expect(result.tokens.length).toBeGreaterThan(0);
    await asFresh();
  });

  test("iterating twice is refused, after the result too", async () => {
    const generation = model.generate(story, { maxTokens: 2 });
    expect((await iterate(generation)).error).toBeUndefined();
    expect((await iterate(generation)).error).toMatchObject({ code: "ERR_BAD_REQUEST" });
    const awaited = model.generate(story, { maxTokens: 2 });
    expect((await awaited.result).tokens).toHaveLength(2);
    expect((await iterate(awaited)).error).toMatchObject({ code: "ERR_BAD_REQUEST" });
    expect(await awaited.text()).toBe((await awaited.result).text);
  });
});

describe("side by side", () => {
  test("each generation gives what it gives alone", async () => {
    const sampled = { temperature: 1, seed: 3, maxTokens: 24 } as const;
    const alone = [await run(counting, { raw: true, maxTokens: 24 }), await run("Name a colour.", sampled)];
    const together = await Promise.all([
      run(counting, { raw: true, maxTokens: 24 }),
      run("Name a colour.", sampled),
      run(counting, { raw: true, maxTokens: 24, strategy: "none" }),
    ]);
    expect(together.map(output)).toEqual([alone[0]!, alone[1]!, alone[0]!].map(output));
  });
});

describe("closing", () => {
  test("during a generation, twice, and use afterwards", async () => {
    const other = await load(undefined, { context: 256 });
    const closing: Promise<void>[] = [];
    const generation = other.generate("Tell me a story.", { ignoreEnd: true });
    const { error, count } = await iterate(generation, (n) => {
      if (n === 3) closing.push(other.close());
    });
    expect(error).toMatchObject({ code: "ERR_DISPOSED" });
    expect(count).toBe(3);
    await expect(generation.result).rejects.toMatchObject({ code: "ERR_DISPOSED" });
    await Promise.all(closing);
    await other.close();
    for (const use of [
      () => run("Hi", {}, other),
      () => run("Hi", { raw: true }, other),
      () => run([1, 2], {}, other),
      () => other.chat().send("Hi").result,
      () => other.score({ prompt: "a", tokens: "b" }),
    ])
      await expect(use()).rejects.toMatchObject({ code: "ERR_DISPOSED" });
  });

  test("while a pass runs", async () => {
    const other = await load(undefined, { context: 1024 });
    const running = other.generate(Array.from({ length: 1000 }, (_, i) => 300 + i)).result;
    const outcome = expect(running).rejects.toMatchObject({ code: "ERR_DISPOSED" });
    await new Promise((resolve) => setTimeout(resolve, 30));
    await other.close();
    await outcome;
  });
});

describe("options out of range", () => {
  const vocab = 49152;
  const entries = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [i, 1]));
  const many = Array.from({ length: 17 }, (_, i) => `s${i}`);
  test.each<[keyof GenerateOptions, unknown, string?]>([
    ...[Number.NaN, -1, 1e308, 0.0001, "1"].map((v) => ["temperature", v] as ["temperature", unknown]),
    ...[0, 1.5, -0.1, Number.NaN].map((v) => ["topP", v] as ["topP", unknown]),
    ...[-3, 1.5, 2 ** 31].map((v) => ["topK", v] as ["topK", unknown]),
    ...[2, -1].map((v) => ["minP", v] as ["minP", unknown]),
    ...[0, -1, 101, Number.NaN].map((v) => ["repetitionPenalty", v] as ["repetitionPenalty", unknown]),
    ...[-101, 101].map((v) => ["presencePenalty", v] as ["presencePenalty", unknown]),
    ...[-101, Number.POSITIVE_INFINITY].map((v) => ["frequencyPenalty", v] as ["frequencyPenalty", unknown]),
    ...[2 ** 70, -1, 1.5].map((v) => ["seed", v] as ["seed", unknown]),
    ["logitBias", { [vocab]: 1 }],
    ["logitBias", { "-1": 1 }],
    ["logitBias", { word: 1 }],
    ["logitBias", { 5: 1e9 }, "logitBias[5]"],
    ["logitBias", new Map([[5, Number.NaN]]), "logitBias[5]"],
    ["logitBias", entries(1025)],
    ...[-5, 1.5, Number.NaN, Number.POSITIVE_INFINITY].map((v) => ["maxTokens", v] as ["maxTokens", unknown]),
    ...[0, 33, 2.5].map((v) => ["draftLength", v] as ["draftLength", unknown]),
    ...[65, -1].map((v) => ["top", v] as ["top", unknown]),
    ...["", many, ["a", ""], "x".repeat(257), [5]].map((v) => ["stop", v] as ["stop", unknown]),
    ...["x", "draft-model", "toString"].map((v) => ["strategy", v] as ["strategy", unknown]),
    ...[5, null, new AbortController()].map((v) => ["signal", v] as ["signal", unknown]),
  ])("%s: %o", (name, value, param = name) => {
    expect(thrown(() => model.generate("Hi", { [name]: value }))).toMatchObject({
      code: "ERR_BAD_REQUEST",
      param,
      message: expect.stringContaining(name),
    });
  });

  test("1,024 biases and 16 stop strings are not too many", async () => {
    const result = await run("Hi", { logitBias: entries(1024), stop: many.slice(1), maxTokens: 1 });
    expect(result.tokens).toHaveLength(1);
  });

  test.each([
    [() => model.generate("Hi", { maxToken: 5 } as GenerateOptions), "maxToken", 'did you mean "maxTokens"'],
    [() => model.generate("Hi", { temprature: 1 } as GenerateOptions), "temprature", 'mean "temperature"'],
    [() => model.generate("Hi", { grammarFile: "x" } as GenerateOptions), "grammarFile", "Known: "],
    [() => model.score({ prompt: "a", token: "b" } as never), "token", 'mean "tokens"'],
    [() => model.score({ prompt: "a", tokens: "b", top: 65 }), "top", "0 to 64"],
    [() => model.score({ prompt: [1, -1], tokens: "b" }), "prompt[1]", "token id"],
    [() => model.score({ prompt: [1], tokens: [2, vocab] }), "tokens[1]", "token id"],
    [() => model.detokenize([1, vocab]), "tokens[1]", "token id"],
  ])("%s", (call, param, words) => {
    expect(thrown(call)).toMatchObject({
      code: "ERR_BAD_REQUEST",
      param,
      message: expect.stringContaining(words),
    });
  });
});

describe("logits", () => {
  test("a bias forbids and forces", async () => {
    const options = { raw: true, maxTokens: 6 } as const;
    const [first] = (await run(counting, options)).tokens;
    for (const strategy of strategies) {
      const without = await run(counting, { ...options, strategy, logitBias: { [first!]: -100 } });
      expect(without.tokens).not.toContain(first);
      const forced = await run(counting, { ...options, strategy, logitBias: new Map([[4321, 100]]) });
      expect(forced.tokens).toEqual([4321, 4321, 4321, 4321, 4321, 4321]);
    }
  });

  test.each<[string, GenerateOptions]>([
    ["greedy", {}],
    ["repetition penalty", { repetitionPenalty: 1.3 }],
    ["presence and frequency penalty", { presencePenalty: 2, frequencyPenalty: 1.5, ignoreEnd: true }],
    ["sampled", { temperature: 0.8, topP: 0.95, topK: 50, seed: 7 }],
    ["sampled with penalties", { temperature: 1.2, minP: 0.02, repetitionPenalty: 1.1, seed: 11 }],
  ])("%s: every strategy gives the same bits", async (name, options) => {
    const common = { ...options, raw: true, maxTokens: 40, top: 3 };
    const plain = await run(counting, { ...common, strategy: "none" });
    expect(plain.stats.accepted).toBe(0);
    if (name !== "greedy")
      expect(plain.tokens).not.toEqual((await run(counting, { raw: true, maxTokens: 40 })).tokens);
    for (const strategy of ["lookup", "recycle", "auto"] as const)
      for (const draftLength of [undefined, 5])
        expect(output(await run(counting, { ...common, strategy, draftLength }))).toEqual(output(plain));
  });

  test("drafts are accepted where the text repeats", async () => {
    const { stats } = await run(counting, { raw: true, strategy: "lookup", draftLength: 4 });
    expect(stats.accepted).toBeGreaterThan(3);
    expect(tokensPerPass(stats)).toBeGreaterThan(1.5);
  });

  test("score gives generate's log-probabilities and lists, bit for bit", async () => {
    // More tokens than one pass scores.
    const result = await run(counting, { raw: true, maxTokens: 80, top: 4, ignoreEnd: true });
    const scored = await model.score({ prompt: result.promptTokens, tokens: result.tokens, top: 4 });
    expect(scored.tokens).toEqual(result.tokens);
    expect(scored.logprobs.map(Math.fround)).toEqual(result.logprobs.map(Math.fround));
    expect(scored.top).toEqual(result.topTokens);
    expect(result.topTokens.map(([best]) => best![0])).toEqual(result.tokens);
    const text = await model.score({ prompt: "The capital of France is", tokens: " Paris" });
    expect(text.promptTokens).toEqual(model.tokenize("The capital of France is"));
    expect(text.logprobs[0]).toBeGreaterThan(
      (await model.score({ prompt: "The capital of France is", tokens: " banana" })).logprobs[0]!,
    );
  });

  test("scoring nothing, and after nothing", async () => {
    expect(await model.score({ prompt: "a", tokens: [] })).toMatchObject({ logprobs: [], top: [] });
    await expect(model.score({ prompt: "", tokens: "a" })).rejects.toMatchObject({ param: "prompt" });
  });
});

test("a token that the model has and its tokenizer does not adds no text", async () => {
  const described = describeGguf(readFileSync(goldenModel("llama-gqa-untied")));
  const metadata = described.metadata.map((entry) => {
    const most = {
      "tokenizer.ggml.tokens": 270,
      "tokenizer.ggml.token_type": 270,
      "tokenizer.ggml.merges": 5,
    };
    const count = most[String(entry.key) as keyof typeof most];
    const value = entry.value as ArrayValue;
    return count ? { ...entry, value: { ...value, items: value.items.slice(0, count) } } : entry;
  });
  const folder = mkdtempSync(path.join(tmpdir(), "outrider-"));
  const file = path.join(folder, "padded.gguf");
  writeFileSync(file, writeGguf({ ...described, metadata }).bytes);
  await using padded = await load(file);
  expect([padded.tokenizer.vocabSize, padded.info.config.vocab]).toEqual([270, 280]);
  const result = await run([3, 4, 5], { maxTokens: 2, logitBias: { 275: 100 }, top: 1 }, padded);
  expect(result).toMatchObject({ tokens: [275, 275], text: "", finishReason: "length" });
  rmSync(folder, { recursive: true });
});

describe("a draft model", () => {
  test("the model as its own: the same tokens in fewer passes; it stays open", async () => {
    await using drafted = await load(undefined, { context: 2048, draftModel: model });
    for (const options of [{}, { temperature: 0.9, seed: 5 }]) {
      const common = { ...options, maxTokens: 24, ignoreEnd: true };
      const plain = await run("Name a colour.", { ...common, strategy: "none" });
      const result = await run(
        "Name a colour.",
        { ...common, strategy: "draft-model", draftLength: 4 },
        drafted,
      );
      expect(output(result)).toEqual(output(plain));
      expect(tokensPerPass(result.stats)).toBeGreaterThan(3);
    }
    await drafted.close();
    await expect(run("Hi", { strategy: "draft-model" }, drafted)).rejects.toMatchObject({
      code: "ERR_DISPOSED",
    });
    expect((await run("Hi", { maxTokens: 1 })).tokens).toHaveLength(1);
  });

  test("with room for fewer texts than the model drafts for some, and none fails", async () => {
    const small = goldenModel("quant-q4_0");
    await using narrow = await load(small, { context: 64, sequences: 1 });
    await using target = await load(small, { context: 256, sequences: 8, draftModel: narrow });
    const prompts = Array.from({ length: 6 }, (_, i) => [3 + i, 5, 7, 20 + i]);
    const answers = (options: GenerateOptions) =>
      Promise.all(
        prompts.map((prompt) => run(prompt, { maxTokens: 50, ignoreEnd: true, ...options }, target)),
      );
    const drafted = await answers({ strategy: "draft-model", draftLength: 3 });
    expect(drafted.map(output)).toEqual((await answers({ strategy: "none" })).map(output));
    expect(drafted.some(({ stats }) => stats.accepted > 20)).toBe(true);
  });

  test("another vocabulary is refused with ids that differ", async () => {
    const small = goldenModel("llama-mha-tied");
    await using other = await load(small);
    const refusal = {
      code: "ERR_DRAFT_MISMATCH",
      message: expect.stringMatching(/token \d+ is .* in the target/),
    };
    await expect(load(undefined, { draftModel: other })).rejects.toMatchObject(refusal);
    await expect(load(undefined, { draftModel: small })).rejects.toMatchObject(refusal);
    // What was lent is still open.
    expect((await run([1, 2, 3], { maxTokens: 1 }, other)).tokens).toHaveLength(1);
  });
});

describe("load", () => {
  test.each([
    ["no file", path.join(import.meta.dirname, "none.gguf"), "ERR_PATH", "none.gguf"],
    ["a folder", import.meta.dirname, "ERR_PATH", "folder"],
    ["a wrong hub name", "hf:org", "ERR_PATH", "is not a model on the hub"],
    ["an address", "https://example.org/model.gguf", "ERR_PATH", "this is an address"],
    ["an empty path", "", "ERR_PATH", "is empty"],
    ["no text", new URL("file:///model.gguf") as never, "ERR_BAD_REQUEST", "expected a path"],
    ["nothing", null as never, "ERR_BAD_REQUEST", "expected a path"],
    ["another kind of file", import.meta.filename, "ERR_MODEL_FORMAT", "GGUF"],
  ])("%s", async (_, source, code, words) => {
    await expect(load(source)).rejects.toMatchObject({ code, message: expect.stringContaining(words) });
  });

  test.each<[object, string, string]>([
    [{ thread: 2 }, "thread", 'did you mean "threads"'],
    [{ threads: 0 }, "threads", "1 to 64"],
    [{ threads: 1.5 }, "threads", "1 to 64"],
    [{ context: 7 }, "context", "8 to 8192"],
    [{ context: 8193 }, "context", "8 to 8192"],
    [{ prefillChunk: 2049 }, "prefillChunk", "1 to 2048"],
    [{ draftModel: 5 }, "draftModel", "neither a path nor a loaded model"],
  ])("%j", async (options, param, words) => {
    await expect(load(embeddedModel, options)).rejects.toMatchObject({
      code: "ERR_BAD_REQUEST",
      param,
      message: expect.stringContaining(words),
    });
  });

  test("a model without a chat template gets turns as plain text, and raw text as it is", async () => {
    await using bare = await load(goldenModel("llama-mha-tied"));
    expect(bare.info.warnings).toContainEqual(expect.stringContaining("has no chat template"));
    const { promptTokens } = await run("Hi", { maxTokens: 1 }, bare);
    expect(bare.detokenize([...promptTokens])).toBe("User: Hi\n\nAssistant:");
    expect((await run("Hi", { raw: true, maxTokens: 2 }, bare)).tokens.length).toBeGreaterThan(0);
  });

  test("what is known of a loaded model", () => {
    expect(outrider.embeddedModel).toBe(embeddedModel);
    expect(model.info).toMatchObject({
      file: embeddedModel,
      architecture: "llama",
      context: 2048,
      precise: false,
    });
  });
});
