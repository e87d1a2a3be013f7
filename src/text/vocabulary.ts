import { OutriderError, quote } from "../errors.js";

/** What a token is, as `tokenizer.ggml.token_type` numbers it. */
export const TokenType = {
  undefined: 0,
  normal: 1,
  unknown: 2,
  control: 3,
  user: 4,
  unused: 5,
  byte: 6,
} as const;

/** The checked contents of a model file's `tokenizer.ggml.*` that every kind of tokenizer needs. */
export interface Vocabulary {
  /** Text of each token as the file has it; the index is the id. */
  readonly tokens: readonly string[];
  /** A `TokenType` for each token. */
  readonly types: Uint8Array;
  /** Ids by text; an empty token has no entry. */
  readonly idOf: ReadonlyMap<string, number>;
  readonly bosId?: number;
  readonly eosId?: number;
  readonly padId?: number;
  /** Stands for text that no token does. */
  readonly unknownId?: number;
  /** What the file says, if anything. */
  readonly addBos?: boolean;
  /** Tokens after which generation ends. */
  readonly endIds: ReadonlySet<number>;
  /** Jinja templates for conversations by name; the usual one is `default`. */
  readonly chatTemplates: ReadonlyMap<string, string>;
  readonly warnings: string[];
}

/** Whether a token is a sign to the program rather than text. */
export function isControl(types: Uint8Array, id: number): boolean {
  return types[id] === TokenType.control || types[id] === TokenType.unknown;
}

export const MAX_TOKENS = 1 << 20;
/** Control and user-defined tokens are looked for at every character, so their length is time. */
const MAX_SPECIAL_LENGTH = 1024;

/**
 * llama.cpp's names of tokens that end generation; files declare only some of them. Its `</s>`, `[EOS]`, `<eos>`
 * and `<PAD>` are left to eos_token_id: they are ordinary words of other vocabularies.
 */
const END_NAMES = [
  ...[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
  ],
  ...["<|end_of_text|>", "<end_of_utterance>"],
  ...["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<reponame>"],
  ...["<|file_sep|>", "<｜end▁of▁sentence｜>"],
];

/** Reads and checks the vocabulary. Throws ERR_TOKENIZER naming the key and, in an array, the index. */
export function vocabularyFromMetadata(metadata: ReadonlyMap<string, unknown>): Vocabulary {
  const tokens = readTokens(metadata);
  const idOf = new Map<string, number>();
  let texts = 0;
  for (let id = 0; id < tokens.length; id++) {
    const text = tokens[id]!;
    if (text === "") continue;
    idOf.set(text, id);
    // A map that did not grow had this text before: one look-up a token instead of two.
    if (idOf.size === ++texts) continue;
    throw new OutriderError(
      "ERR_TOKENIZER",
      `tokenizer.ggml.tokens[${id}]: ${quote(text)} is also token ${tokens.indexOf(text)}; each token has its own text`,
    );
  }
  const types = readTypes(metadata, tokens);

  const id = (name: string) => readId(metadata, `tokenizer.ggml.${name}_token_id`, tokens.length);
  return checkVocabulary({
    source: "tokenizer.ggml",
    tokens,
    types,
    idOf,
    bosId: id("bos"),
    eosId: id("eos"),
    padId: id("padding"),
    unknownId: id("unknown"),
    addBos: optional(metadata, "tokenizer.ggml.add_bos_token", "boolean"),
    endIds: [id("eot"), id("eom")].filter((end) => end !== undefined),
    chatTemplates: readTemplates(metadata),
  });
}

/** Finds the tokens that end a text, and checks the special ones. Throws ERR_TOKENIZER. */
export function checkVocabulary({
  source,
  endIds,
  ...vocabulary
}: Omit<Vocabulary, "endIds" | "warnings"> & { source: string; endIds: readonly number[] }): Vocabulary {
  const { tokens, types, idOf, eosId } = vocabulary;
  const warnings: string[] = [];
  if (eosId === undefined) {
    warnings.push(`${source}.eos_token_id is missing: generation may only end at its token limit`);
  }
  const ends = new Set(eosId === undefined ? endIds : [eosId, ...endIds]);
  for (const name of END_NAMES) {
    const end = idOf.get(name);
    if (end === undefined) continue;
    ends.add(end);
    if (types[end] === TokenType.control) continue;
    types[end] = TokenType.control;
    warnings.push(
      `${source}.token_type[${end}]: ${quote(name)} is not marked as a control token; it is used as one`,
    );
  }
  for (let token = 0; token < tokens.length; token++) {
    const type = types[token]!;
    if (type === TokenType.normal || type === TokenType.byte || tokens[token]!.length <= MAX_SPECIAL_LENGTH)
      continue;
    throw new OutriderError(
      "ERR_TOKENIZER",
      `${source}.tokens[${token}] has ${tokens[token]!.length} characters; a special token has at most ${MAX_SPECIAL_LENGTH}`,
    );
  }
  return { ...vocabulary, endIds: ends, warnings };
}

/** Whether an added token is a sign to the program although the file does not say so, as llama.cpp's converter takes it. */
export function looksSpecial(text: string): boolean {
  return (
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].includes(text) ||
    /^<[|｜].*[|｜]>$/s.test(text) ||
    /^<unused\d+>$/.test(text)
  );
}

/** `tokenizer.chat_template` and, for templates with another purpose, `tokenizer.chat_template.NAME`. */
function readTemplates(metadata: ReadonlyMap<string, unknown>): ReadonlyMap<string, string> {
  const key = "tokenizer.chat_template";
  const templates = new Map<string, string>();
  const usual = optional(metadata, key, "string");
  if (usual !== undefined) templates.set("default", usual);
  for (const name of metadata.keys()) {
    if (!name.startsWith(`${key}.`)) continue;
    templates.set(name.slice(key.length + 1), optional(metadata, name, "string")!);
  }
  return templates;
}

/** The string at `key`. Throws ERR_TOKENIZER if there is none. */
export function requiredString(metadata: ReadonlyMap<string, unknown>, key: string): string {
  const value = optional(metadata, key, "string");
  if (value === undefined) {
    throw new OutriderError("ERR_TOKENIZER", `${key} is missing; convert the model again with its tokenizer`);
  }
  return value;
}

/** The array of strings at `key`. Throws ERR_TOKENIZER if there is none. */
export function requiredStrings(metadata: ReadonlyMap<string, unknown>, key: string): readonly string[] {
  const value = metadata.get(key);
  if (!Array.isArray(value)) throw wrongType(key, value, "an array of strings");
  const wrong = value.findIndex((item) => typeof item !== "string");
  if (wrong >= 0) throw wrongType(`${key}[${wrong}]`, value[wrong], "a string");
  return value;
}

function readTokens(metadata: ReadonlyMap<string, unknown>): readonly string[] {
  const key = "tokenizer.ggml.tokens";
  const tokens = requiredStrings(metadata, key);
  if (tokens.length >= 1 && tokens.length <= MAX_TOKENS) return tokens;
  throw new OutriderError(
    "ERR_TOKENIZER",
    `${key} has ${tokens.length} entries, expected 1 to ${MAX_TOKENS}`,
  );
}

function readTypes(metadata: ReadonlyMap<string, unknown>, tokens: readonly string[]): Uint8Array {
  const key = "tokenizer.ggml.token_type";
  const value = metadata.get(key);
  const types = new Uint8Array(tokens.length).fill(TokenType.normal);
  if (value === undefined) return types;
  if (!(value instanceof Int32Array || value instanceof Uint32Array)) {
    throw wrongType(key, value, "an array of 32-bit integers");
  }
  if (value.length !== tokens.length) {
    throw new OutriderError(
      "ERR_TOKENIZER",
      `${key} has ${value.length} entries, tokenizer.ggml.tokens has ${tokens.length}: they must be equal`,
    );
  }
  for (let id = 0; id < types.length; id++) {
    const type = value[id]!;
    if (type < TokenType.undefined || type > TokenType.byte) {
      throw new OutriderError("ERR_TOKENIZER", `${key}[${id}] is ${type}, expected 0 to ${TokenType.byte}`);
    }
    if (type === TokenType.byte && !/^<0x[0-9A-Fa-f]{2}>$/.test(tokens[id]!)) {
      throw new OutriderError(
        "ERR_TOKENIZER",
        `tokenizer.ggml.tokens[${id}] is a byte token with the text ${quote(tokens[id]!)}, expected <0x00> to <0xFF>`,
      );
    }
    types[id] = type;
  }
  return types;
}

function readId(metadata: ReadonlyMap<string, unknown>, key: string, count: number): number | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !Number.isInteger(value)) throw wrongType(key, value, "an integer");
  if (value >= 0 && value < count) return value;
  throw new OutriderError("ERR_TOKENIZER", `${key} is ${value}, expected 0 to ${count - 1}`);
}

/** The value at `key`, if any. Throws ERR_TOKENIZER if it has another type. */
export function optional(
  metadata: ReadonlyMap<string, unknown>,
  key: string,
  type: "boolean",
): boolean | undefined;
export function optional(
  metadata: ReadonlyMap<string, unknown>,
  key: string,
  type: "string",
): string | undefined;
export function optional(metadata: ReadonlyMap<string, unknown>, key: string, type: "boolean" | "string") {
  const value = metadata.get(key);
  if (value !== undefined && typeof value !== type) throw wrongType(key, value, `a ${type}`);
  return value;
}

function wrongType(key: string, value: unknown, expected: string): OutriderError {
  const found = value === undefined ? "missing" : `a value of type ${describe(value)}`;
  return new OutriderError("ERR_TOKENIZER", `${key} is ${found}, expected ${expected}`);
}

function describe(value: unknown): string {
  return typeof value === "object" && value !== null ? value.constructor.name : typeof value;
}
