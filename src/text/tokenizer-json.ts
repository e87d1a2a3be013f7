import { OutriderError, quote } from "../errors.js";
import { type Merge, Merges } from "./bpe.js";
import { ByteLevelBpe, CharacterBpe, type WordModel } from "./bpe-models.js";
import { byteTokens } from "./byte-fallback.js";
import { byteLevelBytes } from "./byte-level.js";
import { sentencePieceBytes } from "./gguf-tokenizers.js";
import { JsonReader } from "./json-reader.js";
import { fromOniguruma, literalPattern, type Pattern } from "./oniguruma.js";
import { type Pipeline, PipelineTokenizer } from "./pipeline.js";
import { gpt2Pattern } from "./pre-tokenizer.js";
import { type Cut, type SplitBehavior, splitRule } from "./split.js";
import type { Tokenizer } from "./tokenizer.js";
import { Unigram } from "./unigram.js";
import {
  checkVocabulary,
  isControl,
  looksSpecial,
  MAX_TOKENS,
  TokenType,
  type Vocabulary,
} from "./vocabulary.js";

/**
 * The tokenizer of a safetensors model, from its tokenizer.json (parsed).
 *
 * @param tokenizerConfig tokenizer_config.json (parsed), if there is one: BOS, EOS, chat templates
 * @param chatTemplate chat_template.jinja, if there is one; it goes before those of `tokenizerConfig`
 * @param endIds generation_config.json's `eos_token_id`: more tokens that end a text
 * Throws ERR_MODEL_UNSUPPORTED naming a part that is not known, ERR_TOKENIZER for data that is not valid.
 */
export function tokenizerFromJson(
  tokenizerJson: unknown,
  tokenizerConfig?: unknown,
  chatTemplate?: string,
  endIds: readonly number[] = [],
): Tokenizer {
  const json = new JsonReader(tokenizerJson, "tokenizer.json");
  const config = new JsonReader(tokenizerConfig ?? {}, "tokenizer_config.json");
  const added = readAddedTokens(json);
  const tokens = readTokens(json.field("model"), added);
  const { vocabulary, special } = readVocabulary(json, config, tokens, added, chatTemplate, endIds);
  const cuts = preTokenizer(json.field("pre_tokenizer"));
  const { model, byteLevel } = wordModel(json, vocabulary);
  const { prefixSpace, warnings } = readDecoder(json.field("decoder"), byteLevel);
  return new PipelineTokenizer({
    vocabulary,
    normalize: normalizer(json.field("normalizer")),
    cuts,
    model,
    tokenBytes: byteLevel ? byteLevelBytes : sentencePieceBytes,
    userBytes: byteLevel ? undefined : sentencePieceBytes,
    prefixSpace,
    addBos: vocabulary.addBos === true && vocabulary.bosId !== undefined,
    warnings: [...vocabulary.warnings, ...warnings],
    special,
  });
}

interface AddedToken {
  readonly id: number;
  readonly text: string;
  readonly special: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
}

function readAddedTokens(json: JsonReader): AddedToken[] {
  const list = json.field("added_tokens");
  if (list.missing) return [];
  return list.items.map((item) => {
    if (item.field("single_word").flag(false)) throw item.unsupported("single_word");
    const special = item.field("special").flag(false);
    return {
      id: tokenId(item.field("id")),
      text: item.field("content").text,
      special,
      lstrip: item.field("lstrip").flag(false),
      rstrip: item.field("rstrip").flag(false),
      normalized: item.field("normalized").flag(!special),
    };
  });
}

function tokenId(reader: JsonReader): number {
  const id = reader.integer;
  if (id >= 0 && id < MAX_TOKENS) return id;
  throw reader.error(`is ${id}, expected 0 to ${MAX_TOKENS - 1}`);
}

/** Texts by id; "" where the file has none. */
function readTokens(model: JsonReader, added: readonly AddedToken[]): string[] {
  const vocab = model.field("vocab");
  const texts = new Map<number, string>();
  const put = (id: number, text: string, where: string) => {
    const other = texts.get(id);
    if (other !== undefined && other !== text) {
      throw new OutriderError("ERR_TOKENIZER", `${where}: the id ${id} is also that of ${quote(other)}`);
    }
    texts.set(id, text);
  };
  const known = new Set<string>();
  const list: [string, number][] = Array.isArray(vocab.value)
    ? vocab.items.map((item, id) => [item.items[0]?.text ?? "", id])
    : vocab.entries.map(([text, id]) => [text, tokenId(id)]);
  for (const [text, id] of list) {
    put(id, text, `${vocab.where}.${quote(text).slice(1, -1)}`);
    known.add(text);
  }
  // A token that is in the vocabulary keeps its id from there.
  for (const { id, text } of added) if (!known.has(text)) put(id, text, "tokenizer.json.added_tokens");
  let count = 0;
  for (const id of texts.keys()) count = Math.max(count, id + 1);
  if (count === 0) throw vocab.error("has no tokens");
  return Array.from({ length: count }, (_, id) => texts.get(id) ?? "");
}

function readVocabulary(
  json: JsonReader,
  config: JsonReader,
  tokens: readonly string[],
  added: readonly AddedToken[],
  chatTemplate: string | undefined,
  endIds: readonly number[],
): { vocabulary: Vocabulary; special: Pipeline["special"] } {
  const idOf = new Map<string, number>();
  for (let id = 0; id < tokens.length; id++) if (tokens[id] !== "") idOf.set(tokens[id]!, id);
  const types = new Uint8Array(tokens.length).fill(TokenType.normal);
  for (let id = 0; id < tokens.length; id++) {
    if (tokens[id] === "") types[id] = TokenType.unused;
    else if (tokens[id]!.length === 6 && /^<0x[0-9A-F]{2}>$/.test(tokens[id]!)) types[id] = TokenType.byte;
  }
  const special = new Map<number, { lstrip: boolean; rstrip: boolean; normalized: boolean }>();
  for (const { text, special: isSpecial, lstrip, rstrip, normalized } of added) {
    const id = idOf.get(text);
    if (id === undefined) continue;
    types[id] = isSpecial || looksSpecial(text) ? TokenType.control : TokenType.user;
    special.set(id, { lstrip, rstrip, normalized });
  }
  const named = (name: string): number | undefined => {
    const field = config.field(name);
    if (field.missing) return undefined;
    const text = typeof field.value === "string" ? field.value : field.field("content").text;
    return idOf.get(text);
  };
  const bosId = named("bos_token");
  const unknown = json.field("model").field("unk_token");
  const unknownIndex = json.field("model").field("unk_id");
  const unknownId = unknownIndex.missing
    ? unknown.missing
      ? undefined
      : idOf.get(unknown.text)
    : unknownIndex.integer;
  if (unknownId !== undefined && tokens[unknownId] === undefined) throw unknownIndex.error("is no token");
  if (unknownId !== undefined && types[unknownId] === TokenType.normal) types[unknownId] = TokenType.unknown;
  const addBos = config.field("add_bos_token");
  const vocabulary = checkVocabulary({
    source: "tokenizer.json",
    tokens,
    types,
    idOf,
    bosId,
    eosId: named("eos_token"),
    padId: named("pad_token"),
    unknownId,
    addBos: addBos.missing ? templateBegins(json.field("post_processor"), bosId) : addBos.flag(false),
    endIds,
    chatTemplates: readTemplates(config, chatTemplate),
  });
  return { vocabulary, special };
}

/** Whether a post-processor puts BOS before a text. */
function templateBegins(processor: JsonReader, bosId: number | undefined): boolean {
  if (processor.missing) return false;
  switch (processor.field("type").text) {
    case "Sequence":
      return processor.field("processors").items.some((item) => templateBegins(item, bosId));
    case "TemplateProcessing": {
      const first = processor.field("single").items[0]?.field("SpecialToken");
      if (first === undefined || first.missing) return false;
      const ids = processor.field("special_tokens").field(first.field("id").text).field("ids");
      return ids.items[0]?.integer === bosId;
    }
    case "ByteLevel":
      return false;
    default:
      throw processor.unsupported(`the post-processor ${quote(processor.field("type").text)}`);
  }
}

function readTemplates(config: JsonReader, chatTemplate: string | undefined): ReadonlyMap<string, string> {
  const templates = new Map<string, string>();
  const field = config.field("chat_template");
  if (Array.isArray(field.value)) {
    for (const item of field.items) templates.set(item.field("name").text, item.field("template").text);
  } else if (!field.missing) templates.set("default", field.text);
  if (chatTemplate !== undefined) templates.set("default", chatTemplate);
  return templates;
}

function wordModel(json: JsonReader, vocabulary: Vocabulary): { model: WordModel; byteLevel: boolean } {
  const model = json.field("model");
  const type = model.field("type");
  if (type.value === "Unigram") return { model: unigram(model, vocabulary), byteLevel: false };
  if (type.missing ? model.field("merges").missing : type.text !== "BPE") {
    throw model.unsupported(`the model ${type.missing ? "without a type" : quote(type.text)}`);
  }
  for (const name of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    const affix = model.field(name);
    if (!affix.missing && affix.text !== "") throw affix.unsupported(quote(affix.text));
  }
  if (!model.field("dropout").missing && model.field("dropout").number !== 0) {
    throw model.field("dropout").unsupported("a random tokenizer");
  }
  const merges = model.field("merges");
  const list = merges.items.map((item): Merge => {
    if (typeof item.value === "string") return item.value;
    const [left, right] = item.items;
    if (left === undefined || right === undefined || item.items.length > 2) throw item.wrong("two tokens");
    return [left.text, right.text];
  });
  const pairs = new Merges(list, vocabulary, merges.where);
  const ignoreMerges = model.field("ignore_merges").flag(false);
  if (isByteLevel(json)) return { model: new ByteLevelBpe(vocabulary, pairs, ignoreMerges), byteLevel: true };
  if (ignoreMerges) throw model.unsupported("ignore_merges without bytes as symbols");
  const bytes = model.field("byte_fallback").flag(false) ? byteTokens(vocabulary) : undefined;
  const fuse = model.field("fuse_unk").flag(false);
  return { model: new CharacterBpe(vocabulary, pairs, bytes, fuse), byteLevel: false };
}

function unigram(model: JsonReader, vocabulary: Vocabulary): WordModel {
  const { tokens, unknownId } = vocabulary;
  const scores = new Float64Array(tokens.length);
  const pieces = model.field("vocab").items.map((item, id): readonly [string, number] => {
    scores[id] = item.items[1]?.number ?? Number.NaN;
    if (Number.isNaN(scores[id])) throw item.wrong("a token and its score");
    return [tokens[id]!, id];
  });
  const least = pieces.reduce((worst, [, id]) => Math.min(worst, scores[id]!), Number.POSITIVE_INFINITY);
  const bytes = model.field("byte_fallback").flag(false) ? byteTokens(vocabulary) : undefined;
  const matched = pieces.filter(([text, id]) => text !== "" && !isControl(vocabulary.types, id));
  return new Unigram(matched, scores, least, unknownId, bytes);
}

/** Whether text is written as bytes before it is merged. */
function isByteLevel(json: JsonReader): boolean {
  const within = (reader: JsonReader): boolean => {
    if (reader.missing) return false;
    const type = reader.field("type").text;
    if (type !== "Sequence") return type === "ByteLevel";
    return ["pretokenizers", "normalizers"].some((name) => {
      const list = reader.field(name);
      return !list.missing && list.items.some(within);
    });
  };
  return within(json.field("pre_tokenizer")) || within(json.field("normalizer"));
}

function normalizer(reader: JsonReader): ((text: string) => string) | undefined {
  if (reader.missing) return undefined;
  const type = reader.field("type").text;
  switch (type) {
    case "Sequence": {
      const steps = reader
        .field("normalizers")
        .items.map(normalizer)
        .filter((step) => step !== undefined);
      if (steps.length <= 1) return steps[0];
      return (text) => steps.reduce((changed, step) => step(changed), text);
    }
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return (text) => text.normalize(type);
    case "Lowercase":
      return (text) => text.toLowerCase();
    case "Prepend": {
      const prefix = reader.field("prepend").text;
      return (text) => (text === "" ? text : prefix + text);
    }
    case "Strip": {
      const left = reader.field("strip_left").flag(true) ? "^\\p{White_Space}+" : "";
      const right = reader.field("strip_right").flag(true) ? "\\p{White_Space}+$" : "";
      const ends = new RegExp([left, right].filter((end) => end !== "").join("|") || "(?!)", "gu");
      return (text) => text.replace(ends, "");
    }
    case "Replace": {
      const { source, flag } = readPattern(reader.field("pattern"));
      const pattern = new RegExp(source, `g${flag}`);
      const content = reader.field("content").text;
      return (text) => text.replace(pattern, () => content);
    }
    // Bytes are written as characters when words become tokens.
    case "ByteLevel":
      return undefined;
    default:
      throw reader.unsupported(`the normalizer ${quote(type)}`);
  }
}

function readPattern(pattern: JsonReader): Pattern {
  const literal = pattern.field("String");
  if (!literal.missing) return literalPattern(literal.text);
  return fromOniguruma(pattern.field("Regex").text, pattern.where);
}

const behaviors: readonly SplitBehavior[] = [
  "Isolated",
  "Removed",
  "MergedWithPrevious",
  "MergedWithNext",
  "Contiguous",
];

function behavior(reader: JsonReader): SplitBehavior {
  const found = behaviors.find((known) => known === reader.value);
  if (found === undefined) throw reader.wrong(behaviors.join(", "));
  return found;
}

function preTokenizer(reader: JsonReader): Cut[] {
  if (reader.missing) return [];
  const type = reader.field("type").text;
  switch (type) {
    case "Sequence":
      return reader.field("pretokenizers").items.flatMap(preTokenizer);
    case "Split":
      return [
        splitRule(
          readPattern(reader.field("pattern")),
          behavior(reader.field("behavior")),
          reader.field("invert").flag(false),
        ),
      ];
    case "ByteLevel": {
      const cuts: Cut[] = [];
      if (reader.field("add_prefix_space").flag(true)) {
        cuts.push((piece) => (piece.startsWith(" ") ? piece : ` ${piece}`));
      }
      if (reader.field("use_regex").flag(true))
        cuts.push(splitRule(fromOniguruma(gpt2Pattern, reader.where)));
      return cuts;
    }
    case "Digits":
      return [
        splitRule({
          source: reader.field("individual_digits").flag(false) ? "\\p{N}" : "\\p{N}+",
          flag: "u",
        }),
      ];
    case "Punctuation":
      return [
        splitRule({ source: "[!-\\/:-@\\[-`\\{-~\\p{P}]", flag: "u" }, behavior(reader.field("behavior"))),
      ];
    case "WhitespaceSplit":
      return [splitRule({ source: "\\p{White_Space}", flag: "u" }, "Removed")];
    case "Whitespace":
      return [splitRule(fromOniguruma("\\w+|[^\\w\\s]+", reader.where), "Removed", true)];
    case "Metaspace":
      return metaspace(reader);
    default:
      throw reader.unsupported(`the pre-tokenizer ${quote(type)}`);
  }
}

function metaspace(reader: JsonReader): Cut[] {
  const mark = reader.field("replacement").missing ? "▁" : reader.field("replacement").text;
  const scheme = reader.field("prepend_scheme");
  const usual = reader.field("add_prefix_space").flag(true) ? "always" : "never";
  const prepend = scheme.missing ? usual : scheme.text;
  if (!["always", "first", "never"].includes(prepend)) throw scheme.wrong("always, first, never");
  const cuts: Cut[] = [
    (piece, first) => {
      const marked = piece.replaceAll(" ", mark);
      const prefixed = prepend === "always" || (prepend === "first" && first);
      return prefixed && !marked.startsWith(mark) ? mark + marked : marked;
    },
  ];
  if (reader.field("split").flag(true)) cuts.push(splitRule(literalPattern(mark), "MergedWithNext"));
  return cuts;
}

/** What decoding does beyond writing a token's bytes. */
function readDecoder(reader: JsonReader, byteLevel: boolean): { prefixSpace: boolean; warnings: string[] } {
  if (reader.missing) return { prefixSpace: false, warnings: [] };
  let prefixSpace = false;
  const known = (step: JsonReader): void => {
    const type = step.field("type").text;
    switch (type) {
      case "Sequence":
        step.field("decoders").items.forEach(known);
        return;
      case "ByteLevel":
        if (!byteLevel) throw step.unsupported("ByteLevel without bytes as symbols");
        return;
      case "ByteFallback":
      case "Fuse":
        return;
      case "Replace": {
        const from = step.field("pattern").field("String");
        if (from.value !== "▁" || step.field("content").value !== " ") {
          throw step.unsupported("a replacement other than of ▁ by a space");
        }
        return;
      }
      case "Strip":
        if (step.field("content").value !== " " || step.field("stop").value !== 0) {
          throw step.unsupported("to strip anything but spaces at the start");
        }
        prefixSpace = step.field("start").integer > 0;
        return;
      case "Metaspace": {
        const scheme = step.field("prepend_scheme");
        prefixSpace = scheme.missing ? step.field("add_prefix_space").flag(true) : scheme.text !== "never";
        return;
      }
      default:
        throw step.unsupported(`the decoder ${quote(type)}`);
    }
  };
  known(reader);
  return { prefixSpace, warnings: [] };
}
