import { OutriderError } from "../errors.js";
import { Merges } from "./bpe.js";
import { ByteLevelBpe, CharacterBpe } from "./bpe-models.js";
import { byteTokens } from "./byte-fallback.js";
import { byteLevelBytes } from "./byte-level.js";
import { type Pipeline, PipelineTokenizer } from "./pipeline.js";
import { preTokenizer } from "./pre-tokenizer.js";
import { ScoredPairs } from "./scored-pairs.js";
import type { Tokenizer } from "./tokenizer.js";
import { Unigram } from "./unigram.js";
import {
  isControl,
  optional,
  requiredString,
  requiredStrings,
  TokenType,
  type Vocabulary,
} from "./vocabulary.js";

type Metadata = ReadonlyMap<string, unknown>;

/**
 * Byte-level BPE, `gpt2` in GGUF files. Throws ERR_MODEL_UNSUPPORTED for an unknown pre-tokenizer, ERR_TOKENIZER for
 * merges that do not fit the vocabulary.
 */
export function byteLevelTokenizer(metadata: Metadata, vocabulary: Vocabulary): Tokenizer {
  const pre = preTokenizer(requiredString(metadata, "tokenizer.ggml.pre"));
  const key = "tokenizer.ggml.merges";
  const merges = new Merges(requiredStrings(metadata, key), vocabulary, key);
  const model = new ByteLevelBpe(vocabulary, merges, pre.ignoreMerges);
  const warnings = [...vocabulary.warnings];
  const addBos = bosAdded(vocabulary, pre.addBos, warnings);
  const missing = model.missingBytes;
  const remarks: string[] = [];
  if (missing.length > 0) {
    const list = missing.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = `tokenizer.ggml.tokens has no token for the bytes ${list} (hexadecimal): they are dropped`;
    (missing.every(isRare) ? remarks : warnings).push(text);
  }
  return new PipelineTokenizer({
    vocabulary,
    cuts: pre.rules,
    model,
    tokenBytes: byteLevelBytes,
    prefixSpace: false,
    addBos,
    warnings,
    remarks,
  });
}

/**
 * Whether hardly any text has this byte of UTF-8: control characters but tab and line ends, and what begins a character
 * of planes 4 to 11 (unassigned) or 16 (private use). Vocabularies learned from text lack some of them.
 */
function isRare(byte: number): boolean {
  const control = byte < 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d;
  return control || byte === 0x7f || byte === 0xf1 || byte === 0xf2 || byte === 0xf4;
}

/** SentencePiece BPE with scores, `llama` in GGUF files. Throws ERR_TOKENIZER for scores that do not fit. */
export function sentencePieceTokenizer(metadata: Metadata, vocabulary: Vocabulary): Tokenizer {
  const pairs = new ScoredPairs(vocabulary, readScores(metadata, vocabulary.tokens.length));
  const bytes = byteTokens(vocabulary);
  const warnings = [...vocabulary.warnings];
  const addBos = bosAdded(vocabulary, true, warnings);
  if (bytes.includes(-1)) {
    warnings.push(
      "tokenizer.ggml.tokens lacks byte tokens (<0x00> to <0xFF>): characters without a token become the unknown token",
    );
  }
  const prefixSpace = optional(metadata, "tokenizer.ggml.add_space_prefix", "boolean") ?? true;
  return new PipelineTokenizer({
    vocabulary,
    normalize: (text) => (prefixSpace ? `▁${text}` : text).replaceAll(" ", "▁"),
    cuts: [],
    model: new CharacterBpe(vocabulary, pairs, bytes, false),
    tokenBytes: sentencePieceBytes,
    prefixSpace,
    addBos,
    warnings,
    special: stripping(metadata, vocabulary),
  });
}

/**
 * SentencePiece unigram, `t5` in GGUF files. Throws ERR_TOKENIZER for scores that do not fit, ERR_MODEL_UNSUPPORTED for
 * a table of normalisations.
 */
export function unigramTokenizer(metadata: Metadata, vocabulary: Vocabulary): Tokenizer {
  const { tokens, types, unknownId } = vocabulary;
  const map = metadata.get("tokenizer.ggml.precompiled_charsmap") as { length?: number } | undefined;
  if (map?.length) {
    throw new OutriderError(
      "ERR_MODEL_UNSUPPORTED",
      "tokenizer.ggml.precompiled_charsmap: a table of normalisations is not supported",
    );
  }
  // Those of the user's own kind are as likely as can be.
  const scores = Float64Array.from(readScores(metadata, tokens.length), (score, id) =>
    types[id] === TokenType.user ? 0 : score,
  );
  const matched = [...tokens.keys()].filter(
    (id) =>
      tokens[id] !== "" &&
      [TokenType.normal, TokenType.user, TokenType.unused].some((type) => type === types[id]),
  );
  const least = matched
    .filter((id) => types[id] === TokenType.normal)
    .reduce((worst, id) => Math.min(worst, scores[id]!), Number.POSITIVE_INFINITY);
  const warnings = [...vocabulary.warnings];
  const prefixSpace = optional(metadata, "tokenizer.ggml.add_space_prefix", "boolean") ?? false;
  const merged = optional(metadata, "tokenizer.ggml.remove_extra_whitespaces", "boolean") ?? false;
  return new PipelineTokenizer({
    vocabulary,
    normalize: merged
      ? (text) => text.replace(/^ +| +$/g, "").replace(/^(?=.)| +/gs, "▁")
      : (text) => (prefixSpace ? text.replace(/(?=[^ ])/, " ") : text).replaceAll(" ", "▁"),
    cuts: [],
    model: new Unigram(
      matched.map((id) => [tokens[id]!, id] as const),
      scores,
      Number.isFinite(least) ? least : 0,
      unknownId,
      undefined,
    ),
    tokenBytes: sentencePieceBytes,
    prefixSpace: prefixSpace || merged,
    addBos: bosAdded(vocabulary, false, warnings),
    warnings,
  });
}

const encoder = new TextEncoder();

/** The bytes of a SentencePiece token: U+2581 is a space. */
export function sentencePieceBytes(text: string): Uint8Array {
  return encoder.encode(text.replaceAll("▁", " "));
}

function bosAdded(vocabulary: Vocabulary, usual: boolean, warnings: string[]): boolean {
  const { addBos, bosId } = vocabulary;
  if (addBos === true && bosId === undefined) {
    warnings.push("tokenizer.ggml.add_bos_token is true but bos_token_id is missing: no BOS token is added");
  }
  return (addBos ?? usual) && bosId !== undefined;
}

/** Scores of all tokens. Throws ERR_TOKENIZER if they are missing, of another number, or not finite. */
function readScores(metadata: Metadata, count: number): Float32Array | Int32Array {
  const key = "tokenizer.ggml.scores";
  const scores = metadata.get(key);
  if (!(scores instanceof Float32Array || scores instanceof Int32Array)) {
    throw new OutriderError(
      "ERR_TOKENIZER",
      `${key} is ${scores === undefined ? "missing" : "of another type"}, expected an array of 32-bit numbers`,
    );
  }
  if (scores.length !== count) {
    throw new OutriderError(
      "ERR_TOKENIZER",
      `${key} has ${scores.length} entries, tokenizer.ggml.tokens has ${count}: they must be equal`,
    );
  }
  const wrong = scores.findIndex((score) => !Number.isFinite(score));
  if (wrong < 0) return scores;
  throw new OutriderError("ERR_TOKENIZER", `${key}[${wrong}] is ${scores[wrong]}, expected a finite number`);
}

/** Phi 3's special tokens take the white space behind them; of a GGUF file only its name says so. */
function stripping(metadata: Metadata, { tokens, types }: Vocabulary): Pipeline["special"] {
  const name = metadata.get("general.name");
  if (typeof name !== "string" || !/phi-?3/i.test(name)) return undefined;
  const kept = new Set(["<unk>", "<s>", "<|endoftext|>"]);
  const ids = [...tokens.keys()].filter(
    (id) => (isControl(types, id) || types[id] === TokenType.user) && !kept.has(tokens[id]!),
  );
  return new Map(ids.map((id) => [id, { rstrip: true }]));
}
