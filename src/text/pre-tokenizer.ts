import { OutriderError, quote } from "../errors.js";
import { fromOniguruma } from "./oniguruma.js";
import { type SplitRule, splitRule } from "./split.js";

/** How a family of byte-level BPE tokenizers cuts text into words before merging. */
export interface PreTokenizer {
  readonly rules: readonly SplitRule[];
  /** A word that is a token is that token, whatever the merges say. */
  readonly ignoreMerges: boolean;
  /** Whether text begins with BOS when the file does not say. */
  readonly addBos: boolean;
}

interface Family {
  /** `tokenizer.ggml.pre` names that mean this. */
  readonly names: readonly string[];
  /** One after the other; what they do not match is a piece too. */
  readonly patterns: readonly string[];
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
}

// Names and patterns are those of llama.cpp's llama-vocab.cpp, with the tokenizers' own patterns where it says that it
// approximates them (tekken, gpt-4o: it tells upper from lower case in ASCII only).
const spaces = "\\s+(?!\\S)|\\s+";
const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const gpt2Contractions = "'s|'t|'re|'ve|'m|'ll|'d";
export const gpt2Pattern = `${gpt2Contractions}| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|${spaces}`;
// llama.cpp cuts twice: first every number character stands alone, then "gpt-2" on what lies between. In one pass:
// white space before a number ends its piece, so that all of it is one word.
const digitsAlone = `${gpt2Contractions}| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?=\\p{N})|${spaces}`;
const tiktoken = (numbers: string, letters = "\\p{L}") =>
  `[^\\r\\n\\p{L}\\p{N}]?[${letters}]+|${numbers}| ?[^\\s${letters}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|${spaces}`;
const upper = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
const lower = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
const cased = (numbers: string, ending: string) =>
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}]*[${lower}]+${ending}|[^\\r\\n\\p{L}\\p{N}]?[${upper}]+[${lower}]*${ending}|` +
  `${numbers}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|${spaces}`;
const asciiPunctuation = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]";
const deepseekLetters =
  "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ\\u1F5F-\\u1F7Dᾀ-ᾴᾶ-ᾼ\\u1FBEῂ-ῄῆ-ῌ\\u1FD0-\\u1FD3\\u1FD6-\\u1FDBῠ-Ῥῲ-ῴῶ-ῼ" +
  "ℂℇℊ-ℓℕℙ-ℝℤ\\u2126ℨ\\u212A-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃";
const cjk = "[\\u4E00-\\u9FA5\\u0800-\\u4E00\\uAC00-\\uD7FF]+";

const families: readonly Family[] = [
  {
    names: ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
    patterns: [digitsAlone],
  },
  {
    names: [
      ...["gpt-2", "gpt2", "phi-2", "olmo", "mpt", "jais", "trillion", "exaone4", "mellum", "a.x-4.0"],
      ...["gigachat", "granite-docling"],
    ],
    patterns: [gpt2Pattern],
  },
  {
    names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
    patterns: [`${contractions}|${tiktoken("\\p{N}{1,3}")}`],
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: ["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"],
    patterns: [`${contractions}|${tiktoken("\\p{N}{1,3}")}`],
  },
  {
    names: [
      ...["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "kormo", "f2llmv2", "hunyuan", "solar-open"],
      "grok-2",
    ],
    patterns: [`${contractions}|${tiktoken("\\p{N}")}`],
  },
  { names: ["qwen35"], patterns: [`${contractions}|${tiktoken("\\p{N}", "\\p{L}\\p{M}")}`] },
  { names: ["ufakzeka"], patterns: [tiktoken("\\p{N}")] },
  {
    names: ["seed-coder"],
    patterns: [
      `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|${spaces}`,
    ],
  },
  {
    names: ["bailingmoe", "bailingmoe2", "llada-moe"],
    patterns: [
      `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|${spaces}`,
    ],
  },
  { names: ["tekken"], patterns: [cased("\\p{N}", "")], ignoreMerges: true, addBos: true },
  {
    names: ["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
    patterns: [cased("\\p{N}{1,3}", `${contractions}?`)],
  },
  {
    names: ["deepseek-v3", "hunyuan-dense", "joyai-llm"],
    patterns: [
      "\\p{N}{1,3}",
      "[\\u4E00-\\u9FA5\\u3040-\\u309F\\u30A0-\\u30FF]+",
      `${asciiPunctuation}[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|${spaces}`,
    ],
  },
  {
    names: ["deepseek-llm"],
    patterns: [
      "[\\r\\n]",
      `\\s?[${deepseekLetters}]+`,
      "\\s?[!-/:-~！-／：-～‘-‟\\u3000-。]+",
      "\\s+$",
      cjk,
      "\\p{N}+",
    ],
  },
  {
    names: ["deepseek-coder"],
    patterns: ["[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", cjk, "\\p{N}"],
  },
  { names: ["falcon"], patterns: ["[\\p{P}$+<=>^~|`]+", gpt2Pattern, "[0-9][0-9][0-9]"] },
  { names: ["poro-chat", "bloom", "gpt3-finnish"], patterns: [" ?[^(\\s|.,!?…。，、।۔،)]+"] },
  { names: ["viking"], patterns: [" ?[^(\\s|.,!?…。，、।۔،)]+", "\\p{N}"] },
  {
    names: ["minicpm5"],
    patterns: ["\\p{N}{1,3}", `${contractions}|${tiktoken("\\p{N}+")}`],
    ignoreMerges: true,
  },
  { names: ["default"], patterns: ["[\\p{P}$+<=>^~|]+", gpt2Pattern, "\\p{N}+", "[0-9][0-9][0-9]"] },
];

/** The pre-tokenizer called `name`. Throws ERR_MODEL_UNSUPPORTED with the names known. */
export function preTokenizer(name: string): PreTokenizer {
  const family = families.find((candidate) => candidate.names.includes(name));
  if (family === undefined) {
    const known = families.flatMap((candidate) => candidate.names).join(", ");
    throw new OutriderError(
      "ERR_MODEL_UNSUPPORTED",
      `tokenizer.ggml.pre: the pre-tokenizer ${quote(name)} is not supported; supported are ${known}. ` +
        "Another would give wrong tokens: use a model with one of these.",
    );
  }
  return {
    rules: family.patterns.map((pattern) => splitRule(fromOniguruma(pattern, name))),
    ignoreMerges: family.ignoreMerges ?? false,
    addBos: family.addBos ?? false,
  };
}
