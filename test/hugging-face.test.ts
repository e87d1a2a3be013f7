// What a user sees of a model in the format of the Hugging Face libraries: a folder, and a repository on the hub.
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { load } from "../src/index.js";
import { goldenModel } from "./support/engines.js";
import { type ArrayValue, describeGguf } from "./support/gguf-writer.js";
import { HubServer } from "./support/hub-server.js";
import { saveHuggingFace, toHuggingFace } from "./support/hugging-face-folder.js";

const gguf = goldenModel("llama-gqa-untied");
const template = "{% for m in messages %}<|bos|>{{ m.content }}{% endfor %}";
let root: string;
let folder: string;

beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "outrider-folder-"));
  folder = path.join(root, "model");
  const model = describeGguf(await readFile(gguf));
  await saveHuggingFace(folder, toHuggingFace(model), 2);
  const list = (key: string) =>
    (model.metadata.find((entry) => entry.key === key)!.value as ArrayValue).items as string[];
  const tokens = list("tokenizer.ggml.tokens");
  const special = tokens.slice(0, 4);
  const files = {
    "tokenizer.json": {
      added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
      normalizer: null,
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      decoder: { type: "ByteLevel" },
      model: {
        type: "BPE",
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: list("tokenizer.ggml.merges"),
      },
    },
    "tokenizer_config.json": { bos_token: "<|bos|>", eos_token: "<|eos|>", chat_template: "not this one" },
    "generation_config.json": { eos_token_id: [2, 3] },
  };
  for (const [name, value] of Object.entries(files))
    await writeFile(path.join(folder, name), JSON.stringify(value));
  await writeFile(path.join(folder, "chat_template.jinja"), template);
});
afterAll(() => rm(root, { recursive: true }));

const text = "Hello world, the cat";

test("a folder: tokens, template, ends of text, and the bits of the same model in GGUF", async () => {
  await using expected = await load(gguf);
  await using model = await load(folder, { quantize: "none" });
  expect(model.tokenize(text)).toEqual(expected.tokenize(text));
  expect(model.detokenize(model.tokenize(text))).toBe(text);
  expect(model.tokenizer.chatTemplate).toBe(template);
  expect([...model.tokenizer.endIds].sort()).toEqual(expect.arrayContaining([2, 3]));
  expect(await model.promptTokens("the cat")).toEqual([1, ...model.tokenize("the cat")]);
  expect(model.info.name).toBe("model");
  const options = { maxTokens: 16, ignoreEnd: true };
  const tokens = expected.tokenize(text);
  const [a, b] = [
    await expected.generate(tokens, options).result,
    await model.generate(tokens, options).result,
  ];
  expect([b.tokens, b.logprobs]).toEqual([a.tokens, a.logprobs]);
});

test("packed to 8 bits by default: smaller, and every strategy gives the same bits", async () => {
  await using exact = await load(folder, { quantize: "none" });
  await using model = await load(folder);
  expect(model.info.memory.weights).toBeLessThan(0.5 * exact.info.memory.weights);
  const tokens = model.tokenize(`${text} and ${text}`);
  const run = async (strategy: "none" | "auto") => {
    const { tokens: ids, logprobs } = await model.generate(tokens, {
      strategy,
      maxTokens: 24,
      ignoreEnd: true,
    }).result;
    return { ids, logprobs };
  };
  expect(await run("auto")).toEqual(await run("none"));
});

test("a repository on the hub: fetched once, then from the cache without a network", async () => {
  const files: Record<string, Buffer> = {};
  for (const name of await readdir(folder)) files[name] = await readFile(path.join(folder, name));
  const before = { ...process.env };
  const seen: number[] = [];
  try {
    {
      await using hub = await HubServer.start(files);
      Object.assign(process.env, {
        HF_ENDPOINT: hub.endpoint,
        HF_HUB_CACHE: path.join(root, "cache"),
        HF_TOKEN: "",
      });
      await using model = await load("hf:o/tiny", {
        onDownload: ({ done, total }) => seen.push(done / total),
      });
      expect(model.info.name).toBe("tiny");
      expect(model.tokenize(text).length).toBeGreaterThan(3);
    }
    expect(seen.at(-1)).toBe(1);
    await using again = await load("hf:o/tiny", { offline: true }); // nobody listens any more
    expect(again.info.architecture).toBe("llama");
    await expect(load("hf:o/other", { offline: true })).rejects.toMatchObject({ code: "ERR_DOWNLOAD" });
  } finally {
    process.env = before;
  }
});

test("a folder without a tokenizer cannot be loaded, and says so", async () => {
  const bare = path.join(root, "bare");
  await saveHuggingFace(bare, toHuggingFace(describeGguf(await readFile(gguf))));
  await expect(load(bare)).rejects.toMatchObject({
    code: "ERR_TOKENIZER",
    message: expect.stringContaining("tokenizer.json"),
  });
});
