import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Tokenizer as ReferenceTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { openGguf } from "../weights/gguf.js";
import { byteCharacters } from "./byte-level.js";
import { preTokenizer } from "./pre-tokenizer.js";
import { pieces } from "./split.js";
import { type Tokenizer, tokenizerFromMetadata } from "./tokenizer.js";
import { WordCache } from "./word-cache.js";

type Metadata = Map<string, unknown>;

const root = new URL("../../", import.meta.url);
const goldens = new URL("test/goldens/", root);

async function metadataOf(url: URL): Promise<Metadata> {
  await using file = await openGguf(fileURLToPath(url));
  return new Map(file.metadata);
}

/** Every byte as a token, then `extra`, then three control tokens. */
function toyMetadata(change: Record<string, unknown> = {}, extra: readonly string[] = []): Metadata {
  const tokens = [...byteCharacters, ...extra, "<|bos|>", "<|im_end|>", "<|pad|>"];
  const control = tokens.length - 3;
  const types = new Int32Array(tokens.length).fill(1).fill(3, control);
  const metadata: Metadata = new Map<string, unknown>([
    ["tokenizer.ggml.model", "gpt2"],
    ["tokenizer.ggml.pre", "gpt-2"],
    ["tokenizer.ggml.tokens", tokens],
    ["tokenizer.ggml.token_type", types],
    ["tokenizer.ggml.merges", []],
    ["tokenizer.ggml.bos_token_id", control],
    ["tokenizer.ggml.eos_token_id", control + 1],
  ]);
  for (const [key, value] of Object.entries(change)) {
    if (value === undefined) metadata.delete(`tokenizer.${key}`);
    else metadata.set(`tokenizer.${key}`, value);
  }
  return metadata;
}

let embedded: Metadata;
let smollm: Tokenizer;
beforeAll(async () => {
  embedded = await metadataOf(new URL("models/SmolLM2-135M-Instruct.Q4_1.gguf", root));
  smollm = tokenizerFromMetadata(embedded);
});

describe("llama.cpp's ids", () => {
  const names = readdirSync(new URL("arch/", goldens)).filter((name) => name.endsWith(".json"));

  test.each(names)("%s", async (name) => {
    const { tokenize } = JSON.parse(readFileSync(new URL(`arch/${name}`, goldens), "utf8"));
    const tokenizer = tokenizerFromMetadata(
      await metadataOf(new URL(`arch/${name.replace(".json", ".gguf")}`, goldens)),
    );
    expect(tokenize.cases.length).toBeGreaterThan(0);
    for (const { text, tokens } of tokenize.cases) {
      expect(tokenizer.encode(text)).toEqual(tokens);
      expect(tokenizer.decode(tokens)).toBe(text);
    }
  });
});

test("the embedded model's answers decode to their text", () => {
  const lines = readFileSync(new URL("smollm2-135m.jsonl", goldens), "utf8").trim().split("\n");
  expect(lines.length).toBe(16);
  for (const line of lines) {
    const { greedy, text } = JSON.parse(line);
    expect(smollm.decode(greedy)).toBe(text);
  }
});

test("the embedded model's special tokens", () => {
  expect([smollm.vocabSize, smollm.bosId, smollm.eosId, smollm.padId, smollm.addBos]).toEqual([
    49152,
    1,
    2,
    2,
    false,
  ]);
  expect(smollm.endIds).toEqual(new Set([2, 0, 4]));
  expect(smollm.chatTemplate).toContain("<|im_start|>");
  expect(smollm.isControl(2)).toBe(true);
  expect(smollm.isControl(905)).toBe(false);
  // The file has no token for these bytes; llama.cpp drops such text as well.
  expect(smollm.remarks).toEqual([expect.stringContaining("04 06 13 14 16 1d f1 f2")]);
  expect(smollm.encode("a\x04\x1db")).toEqual([...smollm.encode("a"), ...smollm.encode("b")]);
  expect(smollm.warnings).toEqual([]);
});

/** The same numbers everywhere: mulberry32. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) % below;
  };
}

const fragments = [
  ...[
    "Hello",
    "the cat",
    "don't we'll I'VE",
    "naïve café",
    "Größe",
    "тест",
    "ελληνικά",
    "日本語の文章",
    "한국어",
    "العربية",
  ],
  ...["हिन्दी", "ไทย", "😀", "👩‍👩‍👧‍👦", "🇩🇪", "é", "𐐀𐐨", "ﬁ", "Ⅷ½²", "١٢٣", "12345", "3.14", "1e-9", "0x7F"],
  ...[
    " ",
    "  ",
    "     ",
    "\n",
    "\r\n",
    "\n\n\n",
    "\t",
    "\t\t",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u200b",
    "\u0000",
    "\u0007",
    "\u001b",
  ],
  ...[
    "const f = (x) => { return x + 1; };",
    "def f(x):\n    return x\n",
    "<div class='a'>",
    "#include <stdio.h>",
    "a_b-c/d\\e",
  ],
  ...[
    "!!!",
    "...",
    "?!",
    "—",
    "“q”",
    "$€",
    "a".repeat(90),
    "=".repeat(70),
    "supercalifragilistic",
    "<|im_end|>",
    "<|im_start|>user",
  ],
  ...["<|endoftext|>", "<|im_", "<repo_name>", "_", "'", "''s", "'re", "\ue000", "ｆｕｌｌ"],
];

function seededTexts(count: number): string[] {
  const below = random(20240607);
  return Array.from({ length: count }, () =>
    Array.from({ length: 1 + below(12) }, () => fragments[below(fragments.length)]).join(""),
  );
}

describe("2,000 seeded texts", () => {
  const texts = seededTexts(2000);

  test("decode to themselves", () => {
    for (const text of texts) {
      expect(smollm.decode(smollm.encode(text))).toBe(text);
      expect(smollm.decode(smollm.encode(text, { special: true }), { special: true })).toBe(text);
    }
  });

  test("have the ids of @huggingface/tokenizers", () => {
    const tokens = embedded.get("tokenizer.ggml.tokens") as string[];
    const types = embedded.get("tokenizer.ggml.token_type") as Int32Array;
    const reference = new ReferenceTokenizer(
      {
        version: "1.0",
        truncation: null,
        padding: null,
        added_tokens: [...types].flatMap((type, id) =>
          type === 3
            ? [
                {
                  id,
                  content: tokens[id]!,
                  special: true,
                  single_word: false,
                  lstrip: false,
                  rstrip: false,
                  normalized: false,
                },
              ]
            : [],
        ),
        normalizer: null,
        pre_tokenizer: {
          type: "Sequence",
          pretokenizers: [
            { type: "Digits", individual_digits: true },
            { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
          ],
        },
        post_processor: null,
        decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
        model: {
          type: "BPE",
          vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
          merges: embedded.get("tokenizer.ggml.merges"),
        },
      } as unknown as ConstructorParameters<typeof ReferenceTokenizer>[0],
      {} as ConstructorParameters<typeof ReferenceTokenizer>[1],
    );
    // The reference takes only ASCII digits for digits, unlike llama.cpp and the original in Rust.
    const compared = texts.filter((text) => !/(?![0-9])\p{N}/u.test(text));
    expect(compared.length).toBeGreaterThan(1000);
    for (const text of compared)
      expect(smollm.encode(text, { special: true }), text).toEqual(reference.encode(text).ids);
  });
});

describe("pre-tokenizers", () => {
  const split = (name: string, text: string) => [...pieces(text, preTokenizer(name).rules)];

  test.each([
    ["smollm", "I'll  buy 123 apples   ", ["I", "'ll", " ", " buy", " ", "1", "2", "3", " apples", "   "]],
    ["gpt-2", "I'll  buy 123 apples   ", ["I", "'ll", " ", " buy", " 123", " apples", "   "]],
    ["llama-bpe", "I'LL  buy 12345\n\n x", ["I", "'LL", " ", " buy", " ", "123", "45", "\n\n", " x"]],
    ["qwen2", "I'LL  buy 123!\r\n\tx", ["I", "'LL", " ", " buy", " ", "1", "2", "3", "!\r\n", "\tx"]],
    ["gpt2", "a\u0085\ufeffb", ["a", "\u0085", "\ufeff", "b"]],
  ])("%s: %j", (name, text, expected) => {
    expect(split(name, text)).toEqual(expected);
  });

  test.each(["smollm", "gpt-2", "llama3", "dbrx", "qwen2"])("%s leaves nothing out", (name) => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(split(name, text).join("")).toBe(text);
      }),
      { seed: 1, numRuns: 500 },
    );
  });
});

describe("merging", () => {
  /** What BPE means: again and again the merge of lowest rank, of equals the leftmost. */
  function mergeByScanning(parts: readonly string[], merges: readonly string[]): string[] {
    const result = [...parts];
    for (;;) {
      let best = Number.POSITIVE_INFINITY;
      let at = -1;
      for (let i = 0; i + 1 < result.length; i++) {
        const rank = merges.indexOf(`${result[i]} ${result[i + 1]}`);
        if (rank < 0 || rank >= best) continue;
        best = rank;
        at = i;
      }
      if (at < 0) return result;
      result.splice(at, 2, result[at]! + result[at + 1]!);
    }
  }

  // One letter alone makes tokens that overlap themselves, in several ways: then order within a rank matters.
  test.each([
    { letters: ["a", "b", "c"], longest: 5, runs: 500 },
    { letters: ["a", "b"], longest: 7, runs: 500 },
    { letters: ["a"], longest: 12, runs: 1000 },
  ])(
    "equals scanning for the best pair, whatever the order of the merges: $letters",
    ({ letters, longest, runs }) => {
      const letter = fc.constantFrom(...letters);
      const token = fc.string({ unit: letter, minLength: 2, maxLength: longest });
      const word = fc.string({ unit: letter, minLength: 1, maxLength: 60, size: "max" });
      const property = fc.property(
        fc.uniqueArray(token, { minLength: 1, maxLength: 25, size: "max" }),
        fc.array(word, { minLength: 1 }),
        fc.integer(),
        (extra, texts, seed) => {
          const below = random(seed);
          const known = new Set([...extra, ...letters]);
          const merges = extra
            .flatMap((token) =>
              [...token.slice(1)].map((_, i) => [token.slice(0, i + 1), token.slice(i + 1)]),
            )
            .filter((pair) => pair.every((part) => known.has(part)))
            .map((pair) => ({ pair: pair.join(" "), key: below(1 << 20) }))
            .sort((a, b) => a.key - b.key)
            .map(({ pair }) => pair);
          const tokenizer = tokenizerFromMetadata(toyMetadata({ "ggml.merges": merges }, extra));
          for (const text of texts) {
            const ids = tokenizer.encode(text);
            expect(ids.map((id) => tokenizer.text(id))).toEqual(mergeByScanning([...text], merges));
          }
        },
      );
      fc.assert(property, { seed: 2, numRuns: runs });
    },
  );

  test("takes time in proportion to a word of 4 MB without a space", () => {
    const below = random(7);
    const letters = Buffer.from(Array.from({ length: 4 << 20 }, () => 97 + below(26))).toString();
    const seconds = (text: string) => {
      const start = process.cpuUsage();
      smollm.encode(text);
      const { user, system } = process.cpuUsage(start);
      return (user + system) / 1e6;
    };
    // 1.6 s on the machine that it was written on; a quadratic loop would take a day.
    expect(seconds(letters)).toBeLessThan(8);
    expect(seconds("a".repeat(4 << 20))).toBeLessThan(8);
    expect(seconds("語".repeat((4 << 20) / 3))).toBeLessThan(8);
    expect(smollm.decode(smollm.encode(letters))).toBe(letters);
  });

  test("a word of many characters gives the same ids after it and before it", () => {
    const before = smollm.encode("Hello world");
    smollm.encode("xyz".repeat(50_000));
    expect(smollm.encode("Hello world")).toEqual(before);
  });
});

describe("special tokens", () => {
  test("are text unless asked for", () => {
    const { eosId, endIds } = smollm;
    expect(smollm.encode("a<|im_end|>")).not.toContain(eosId);
    expect(smollm.encode("a<|im_end|>b", { special: true })).toEqual([
      ...smollm.encode("a"),
      eosId,
      ...smollm.encode("b"),
    ]);
    for (const text of seededTexts(200))
      expect(smollm.encode(text).filter((id) => endIds.has(id))).toEqual([]);
  });

  test("add no text unless asked for", () => {
    const ids = smollm.encode("hi<|im_end|>", { special: true });
    expect(smollm.decode(ids)).toBe("hi");
    expect(smollm.decode(ids, { special: true })).toBe("hi<|im_end|>");
    expect(Buffer.from(smollm.bytes(2)).toString()).toBe("<|im_end|>");
  });

  test("of the user's own kind are found in any text, the longest at each place", () => {
    const metadata = toyMetadata({}, ["<t>", "<t>>"]);
    (metadata.get("tokenizer.ggml.token_type") as Int32Array).set([4, 4], 256);
    const tokenizer = tokenizerFromMetadata(metadata);
    expect(tokenizer.encode("<t><t>><t").slice(0, 2)).toEqual([256, 257]);
    expect(tokenizer.decode(tokenizer.encode("x<t><t>>y"))).toBe("x<t><t>>y");
  });

  test("that no one declared are known by name", () => {
    const metadata = toyMetadata({ "ggml.eos_token_id": undefined });
    (metadata.get("tokenizer.ggml.token_type") as Int32Array).fill(1);
    const tokenizer = tokenizerFromMetadata(metadata);
    expect(tokenizer.endIds).toEqual(new Set([257]));
    expect(tokenizer.isControl(257)).toBe(true);
    expect(tokenizer.eosId).toBeUndefined();
    expect(tokenizer.warnings).toEqual([
      expect.stringContaining("eos_token_id is missing"),
      expect.stringContaining("token_type[257]"),
    ]);
  });

  test("are never made by merging, which other merges do not feel", () => {
    const metadata = toyMetadata({ "ggml.merges": ["a b", "a a", "b b", "b a"] }, ["ab", "aa", "bb", "ba"]);
    (metadata.get("tokenizer.ggml.token_type") as Int32Array)[256] = 3;
    const tokenizer = tokenizerFromMetadata(metadata);
    const texts = (text: string) => tokenizer.encode(text).map((id) => tokenizer.text(id));
    expect(texts("ab")).toEqual(["a", "b"]);
    expect(texts("aabbabb")).toEqual(["aa", "bb", "a", "bb"]);
    expect(texts("abab")).toEqual(["a", "ba", "b"]);
    expect(tokenizer.encode("ab", { special: true })).toEqual([256]);
  });

  test("BOS: what the file says, else what its family does", () => {
    const addBos = (change: Record<string, unknown>) => tokenizerFromMetadata(toyMetadata(change)).addBos;
    expect(addBos({})).toBe(false);
    expect(addBos({ "ggml.pre": "llama-bpe" })).toBe(true);
    expect(addBos({ "ggml.pre": "llama-bpe", "ggml.add_bos_token": false })).toBe(false);
    expect(addBos({ "ggml.add_bos_token": true })).toBe(true);
    expect(addBos({ "ggml.add_bos_token": true, "ggml.bos_token_id": undefined })).toBe(false);
  });
});

describe("bytes", () => {
  const toy = tokenizerFromMetadata(toyMetadata());

  test("any text comes back, a byte order mark included, lone surrogates as U+FFFD", () => {
    const property = fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(toy.decode(toy.encode(`\ufeff${text}`))).toBe(`\ufeff${text}`);
    });
    fc.assert(property, { seed: 3, numRuns: 500 });
    expect(toy.decode(toy.encode("a\ud83db\ude00"))).toBe("a\ufffdb\ufffd");
  });

  test("a whole word that is a token, where merges are ignored", () => {
    const whole = (pre: string) =>
      tokenizerFromMetadata(toyMetadata({ "ggml.pre": pre }, ["Ġé".replace("é", "Ã©")])).encode(" é");
    expect(whole("llama-bpe")).toEqual([256]);
    expect(whole("qwen2")).toHaveLength(3);
  });

  test("kinds of tokens", () => {
    const metadata = toyMetadata({}, ["<0x41>", "[PAD9]", "Ġ b", "plain text"]);
    (metadata.get("tokenizer.ggml.token_type") as Int32Array).set([6, 5, 1, 4], 256);
    const tokenizer = tokenizerFromMetadata(metadata);
    expect(tokenizer.decode([256, 257, 259])).toBe("Aplain text");
    // Not in the alphabet of bytes: taken as it is.
    expect(tokenizer.decode([258])).toBe("Ġ b");
    expect(() => tokenizer.bytes(99_999)).toThrow("token id 99999 does not exist: ids are 0 to 262");
    expect(() => tokenizer.decode([1.5])).toThrow(expect.objectContaining({ code: "ERR_BAD_REQUEST" }));
  });
});

describe("bad metadata", () => {
  const n = byteCharacters.length + 3;
  const types = (change: Record<number, number>, length = n) => {
    const array = new Int32Array(length).fill(1);
    for (const [at, type] of Object.entries(change)) array[Number(at)] = type;
    return array;
  };
  const tokens = (change: Record<number, unknown>) => {
    const array: unknown[] = toyMetadata().get("tokenizer.ggml.tokens") as string[];
    for (const [at, token] of Object.entries(change)) array[Number(at)] = token;
    return array;
  };

  const cases: [change: Record<string, unknown>, code: string, message: string][] = [
    [{ "ggml.model": undefined }, "ERR_TOKENIZER", "tokenizer.ggml.model is missing"],
    [
      { "ggml.model": "bert" },
      "ERR_MODEL_UNSUPPORTED",
      '"bert" is not supported; supported: gpt2, llama, t5',
    ],
    [{ "ggml.model": "__proto__" }, "ERR_MODEL_UNSUPPORTED", "__proto__"],
    [{ "ggml.pre": undefined }, "ERR_TOKENIZER", "tokenizer.ggml.pre is missing"],
    [
      { "ggml.pre": "defaults\u0007" },
      "ERR_MODEL_UNSUPPORTED",
      '"defaults\\u0007" is not supported; supported are smollm,',
    ],
    [
      { "ggml.tokens": undefined },
      "ERR_TOKENIZER",
      "tokenizer.ggml.tokens is missing, expected an array of strings",
    ],
    [{ "ggml.tokens": new Int32Array(3) }, "ERR_TOKENIZER", "value of type Int32Array"],
    [{ "ggml.tokens": [] }, "ERR_TOKENIZER", "has 0 entries"],
    [
      { "ggml.tokens": tokens({ 7: 7 }) },
      "ERR_TOKENIZER",
      "tokenizer.ggml.tokens[7] is a value of type number",
    ],
    [{ "ggml.tokens": tokens({ 9: "!" }) }, "ERR_TOKENIZER", 'tokens[33]: "!" is also token 9'],
    [
      { "ggml.tokens": tokens({ 258: "x".repeat(5000) }) },
      "ERR_TOKENIZER",
      "tokens[258] has 5000 characters",
    ],
    [
      { "ggml.token_type": types({}, n - 1) },
      "ERR_TOKENIZER",
      "has 258 entries, tokenizer.ggml.tokens has 259",
    ],
    [{ "ggml.token_type": types({ 5: 7 }) }, "ERR_TOKENIZER", "tokenizer.ggml.token_type[5] is 7"],
    [{ "ggml.token_type": types({ 5: -1 }) }, "ERR_TOKENIZER", "tokenizer.ggml.token_type[5] is -1"],
    [
      { "ggml.token_type": new Float32Array(n) },
      "ERR_TOKENIZER",
      "tokenizer.ggml.token_type is a value of type Float32Array",
    ],
    ...["<0x-1>", "<0xZZ>", "<0x123>", "A1"].map((text): [Record<string, unknown>, string, string] => [
      { "ggml.tokens": tokens({ 258: text }), "ggml.token_type": types({ 258: 6 }) },
      "ERR_TOKENIZER",
      `tokens[258] is a byte token with the text "${text}"`,
    ]),
    [{ "ggml.merges": undefined }, "ERR_TOKENIZER", "tokenizer.ggml.merges is missing"],
    [{ "ggml.merges": ["a b"] }, "ERR_TOKENIZER", 'tokenizer.ggml.merges[0]: "a b" needs the token "ab"'],
    [{ "ggml.merges": ["zz b"] }, "ERR_TOKENIZER", 'tokenizer.ggml.merges[0]: "zz b" needs the token "zz"'],
    [{ "ggml.merges": ["ab"] }, "ERR_TOKENIZER", "is not two tokens with a space between"],
    [{ "ggml.merges": ["a "] }, "ERR_TOKENIZER", "is not two tokens with a space between"],
    [{ "ggml.merges": [" a"] }, "ERR_TOKENIZER", "is not two tokens with a space between"],
    [
      { "ggml.bos_token_id": n },
      "ERR_TOKENIZER",
      `tokenizer.ggml.bos_token_id is ${n}, expected 0 to ${n - 1}`,
    ],
    [{ "ggml.eos_token_id": -1 }, "ERR_TOKENIZER", "tokenizer.ggml.eos_token_id is -1"],
    [
      { "ggml.eot_token_id": 1.5 },
      "ERR_TOKENIZER",
      "tokenizer.ggml.eot_token_id is a value of type number, expected an integer",
    ],
    [{ "ggml.padding_token_id": 2n ** 60n }, "ERR_TOKENIZER", "value of type bigint"],
    [
      { "ggml.unknown_token_id": "0" },
      "ERR_TOKENIZER",
      "tokenizer.ggml.unknown_token_id is a value of type string",
    ],
    [
      { "ggml.add_bos_token": 1 },
      "ERR_TOKENIZER",
      "tokenizer.ggml.add_bos_token is a value of type number, expected a boolean",
    ],
    [
      { chat_template: 1 },
      "ERR_TOKENIZER",
      "tokenizer.chat_template is a value of type number, expected a string",
    ],
  ];
  test.each(cases.map(([change, code, message]) => ({ change, code, message })))(
    "$message",
    ({ change, code, message }) => {
      let thrown: unknown;
      try {
        tokenizerFromMetadata(toyMetadata(change));
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toMatchObject({ code, message: expect.stringContaining(message) });
    },
  );

  test("any one value changed gives a tokenizer or an error of ours", () => {
    const keys = [...toyMetadata().keys(), "tokenizer.ggml.eom_token_id", "tokenizer.ggml.add_bos_token"];
    const value = fc.oneof(
      fc.anything(),
      fc.array(fc.oneof(fc.string(), fc.constant("a b")), { maxLength: 5 }),
      fc.int32Array({ maxLength: 300 }),
      fc.integer(),
    );
    const property = fc.property(fc.constantFrom(...keys), value, (key, changed) => {
      try {
        const tokenizer = tokenizerFromMetadata(toyMetadata().set(key, changed));
        tokenizer.decode(tokenizer.encode("Hello <|im_end|>", { special: true }));
      } catch (error) {
        expect(error).toMatchObject({ name: "OutriderError" });
      }
    });
    fc.assert(property, { seed: 4, numRuns: 2000 });
  });
});

test("the cache of words keeps to its budget and still knows recent words", () => {
  const cache = new WordCache(100_000);
  for (let i = 0; i < 100_000; i++) {
    cache.set(`word ${i}`, [i]);
    if (i > 0) expect(cache.get("word 0")).toEqual([0]);
  }
  expect(cache.get("word 99999")).toEqual([99_999]);
  const kept = Array.from({ length: 100_000 }, (_, i) => cache.get(`word ${i}`)).filter(
    (ids) => ids !== undefined,
  );
  expect(kept.length).toBeLessThan(1000);
});
