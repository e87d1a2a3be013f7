import { OutriderError, quote } from "../errors.js";

/** How a family of byte-level BPE tokenizers cuts text into words before merging. */
export interface PreTokenizer {
  /** `tokenizer.ggml.pre` names that mean this. */
  readonly names: readonly string[];
  /** Matches one word at `lastIndex`; every character of any text belongs to some word. */
  readonly word: RegExp;
  /** A word that is a token is that token, whatever the merges say. */
  readonly ignoreMerges: boolean;
  /** Whether text begins with BOS when the file does not say. */
  readonly addBos: boolean;
}

// The patterns are those of llama.cpp's llama-vocab.cpp. \s there is Unicode White_Space: JavaScript's \s lacks
// U+0085 and has U+FEFF. Its "gpt2" pattern leaves out the last alternative, its code for it does not.
const space = "\\p{White_Space}";
const spaces = `${space}+(?!\\P{White_Space})|${space}+`;
const gpt2Contractions = "'s|'t|'re|'ve|'m|'ll|'d";
const contractions = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";

const gpt2 = `${gpt2Contractions}| ?\\p{L}+| ?\\p{N}+| ?[^${space}\\p{L}\\p{N}]+|${spaces}`;
// Two passes in llama.cpp: first every number character stands alone, then "gpt2" on what lies between. In one
// pass: white space before a number ends its piece, so that all of it is one word.
const digitsAlone = `${gpt2Contractions}| ?\\p{L}+|\\p{N}| ?[^${space}\\p{L}\\p{N}]+|${space}+(?=\\p{N})|${spaces}`;
const tiktoken = (numbers: string) =>
  `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${numbers}| ?[^${space}\\p{L}\\p{N}]+[\\r\\n]*|${space}*[\\r\\n]+|${spaces}`;

const preTokenizers: readonly PreTokenizer[] = [
  {
    names: ["smollm", "starcoder", "refact", "command-r"],
    word: new RegExp(digitsAlone, "uy"),
    ignoreMerges: false,
    addBos: false,
  },
  { names: ["gpt-2", "gpt2", "olmo"], word: new RegExp(gpt2, "uy"), ignoreMerges: false, addBos: false },
  {
    names: ["llama-bpe", "llama3", "llama-v3"],
    word: new RegExp(tiktoken("\\p{N}{1,3}"), "uy"),
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: ["dbrx", "smaug-bpe"],
    word: new RegExp(tiktoken("\\p{N}{1,3}"), "uy"),
    ignoreMerges: false,
    addBos: false,
  },
  {
    names: ["qwen2", "deepseek-r1-qwen", "stablelm2"],
    word: new RegExp(tiktoken("\\p{N}"), "uy"),
    ignoreMerges: false,
    addBos: false,
  },
];

/** The pre-tokenizer called `name`. Throws ERR_MODEL_UNSUPPORTED with the names known. */
export function preTokenizer(name: string): PreTokenizer {
  const found = preTokenizers.find((candidate) => candidate.names.includes(name));
  if (found !== undefined) return found;
  const known = preTokenizers.flatMap((candidate) => candidate.names).join(", ");
  throw new OutriderError(
    "ERR_MODEL_UNSUPPORTED",
    `tokenizer.ggml.pre: the pre-tokenizer ${quote(name)} is not supported; supported are ${known}. ` +
      "Another would give wrong tokens: use a model with one of these.",
  );
}

/** The words of `text` in order; together they are `text`. */
export function* words(text: string, { word }: PreTokenizer): Generator<string, void, undefined> {
  for (let start = 0; start < text.length; ) {
    word.lastIndex = start;
    const end = word.test(text) ? word.lastIndex : text.length;
    yield text.slice(start, end);
    start = end;
  }
}
