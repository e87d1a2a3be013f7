import type { Tokenizer } from "../text/tokenizer.js";
import { Automaton, type Configuration, type Frame } from "./automaton.js";
import { parseBnf } from "./bnf.js";
import { compile, type Expression, grammarError, type Network, sequence } from "./grammar.js";
import { anyObject, type JsonSchema, jsonSchemaRules } from "./json-schema.js";
import { parseRegex } from "./regex.js";
import { TokenTrie } from "./token-trie.js";

/** What a text must be: JSON (any object, or as a schema says), a match of a whole pattern, or a grammar's `root`. */
export type Guide =
  | { readonly json: true | JsonSchema }
  | { readonly regex: string }
  | { readonly grammar: string };

/** Where a guided text stands. States do not change: a draft's tokens each have their own. */
export interface GuideState {
  /** Bit `id & 31` of word `id >> 5` says whether the token may follow. Borrowed; never all 0. */
  readonly mask: Int32Array;
  /** The state behind one more token; undefined where the mask does not have it. */
  advance(token: number): GuideState | undefined;
  /**
   * Tokens of the text that must follow, perhaps none. All but the last are the only ones that the mask allows, so that
   * they cost no choice; the last may be split otherwise, since it may go on into what is free.
   */
  forced(limit: number): number[];
  /** Where the text has a choice: the ways on behind which more text is forced, that text's tokens each. */
  branches(limit: number): number[][];
}

/** A guide and a vocabulary, ready to make masks. What is computed is kept, for later texts too. */
export interface Constraint {
  readonly start: GuideState;
}

/** One for a vocabulary: the trie takes a moment to build, so it is built at the first guide. */
export interface GuideVocabulary {
  readonly tokenizer: Tokenizer;
  /** Width of the logits, at least the tokenizer's vocabulary. */
  readonly size: number;
  readonly trie: TokenTrie;
}

export function guideVocabulary(tokenizer: Tokenizer, size: number): GuideVocabulary {
  const nothing = new Uint8Array(0);
  const bytes = (id: number) =>
    tokenizer.isControl(id) || tokenizer.endIds.has(id) ? nothing : tokenizer.bytes(id);
  let trie: TokenTrie | undefined;
  return {
    tokenizer,
    size,
    get trie() {
      trie ??= new TokenTrie(tokenizer.vocabSize, bytes);
      return trie;
    },
  };
}

/** The grammar of a guide. Throws `ERR_GRAMMAR` for one that is malformed, not supported, too large, or impossible. */
export function guideNetwork(guide: Guide): Network {
  const given = ["json", "regex", "grammar"].filter((key) => key in guide);
  if (given.length !== 1) throw grammarError("a guide is one of { json }, { regex }, { grammar }");
  if ("json" in guide) return compile(jsonSchemaRules(guide.json === true ? anyObject : guide.json), "root");
  if ("grammar" in guide) {
    if (typeof guide.grammar !== "string") throw grammarError("the grammar is not a string");
    return compile(parseBnf(guide.grammar), "root");
  }
  if (typeof guide.regex !== "string") throw grammarError("the pattern is not a string");
  return compile(new Map<string, Expression>([["root", sequence(parseRegex(guide.regex).body)]]), "root");
}

// Masks of 6 kB each for 49,152 tokens.
const maxMasks = 2048;
/** With fewer bytes left, most tokens would have to be looked at one by one. */
const worthLoosening = 8;

/** Masks by the method of XGrammar (Dong et al. 2024, arXiv:2411.15100): what a rule's state allows on its own is computed once. */
export function constraint(network: Network, vocabulary: GuideVocabulary): Constraint {
  const automaton = new Automaton(network);
  const { tokenizer, trie } = vocabulary;
  const words = Math.ceil(vocabulary.size / 32);
  const masks = new Map<Configuration, Int32Array>();
  const alone = new Map<number, { readonly mask: Int32Array; readonly exits: readonly number[] }>();
  const states = new Map<Configuration, GuideState>();

  const allow = (mask: Int32Array, node: number) => {
    for (let i = trie.tokensAt[node]!; i < trie.tokensAt[node + 1]!; i++) {
      const token = trie.tokens[i]!;
      mask[token >> 5]! |= 1 << (token & 31);
    }
  };
  /** Marks the tokens below `root` that may follow `from`; `exits` gets the nodes at which the text may be complete. */
  const walk = (root: number, from: Configuration, mask: Int32Array, exits?: number[]) => {
    const nodes = [trie.firstChild[root]!];
    const configurations = [from];
    while (nodes.length > 0) {
      const node = nodes.at(-1)!;
      if (node < 0) {
        nodes.pop();
        configurations.pop();
        continue;
      }
      nodes[nodes.length - 1] = trie.sibling[node]!;
      const next = automaton.step(configurations.at(-1)!, trie.byte[node]!);
      if (!next) continue;
      allow(mask, node);
      if (trie.firstChild[node]! < 0) continue;
      if (next.isComplete) exits?.push(node);
      if (next.frames.length > 0) {
        nodes.push(trie.firstChild[node]!);
        configurations.push(next);
      }
    }
  };
  /** What the rule that `state` is in allows, and where in the trie it ends. */
  const ofState = (state: number) => {
    let found = alone.get(state);
    if (!found) {
      const mask = new Int32Array(words);
      const exits: number[] = [];
      walk(0, automaton.configuration([automaton.frame(state, undefined)]), mask, exits);
      found = { mask, exits };
      alone.set(state, found);
    }
    return found;
  };
  /** What may follow in one frame, computed in full. */
  const walked = ({ state, caller }: Frame): Int32Array => {
    const own = ofState(state);
    const mask = own.mask.slice();
    if (caller) {
      const after = automaton.configuration([caller]);
      for (const exit of own.exits) walk(exit, after, mask);
    }
    return mask;
  };
  /** The frame with bounded repetitions made unbounded, and up to how many bytes that is the same. */
  const loosened = (frame: Frame): { frame: Frame; bytes: number } => {
    const count = network.counted.get(frame.state);
    const above = frame.caller && loosened(frame.caller);
    return {
      frame: automaton.frame(count?.unbounded ?? frame.state, above?.frame),
      bytes: Math.min(count?.left ?? Number.POSITIVE_INFINITY, above?.bytes ?? Number.POSITIVE_INFINITY),
    };
  };
  const frameMasks = new Map<Frame, Int32Array>();
  const ofFrame = (frame: Frame): Int32Array => {
    let mask = frameMasks.get(frame);
    if (mask) return mask;
    const loose = loosened(frame);
    if (loose.frame === frame || loose.bytes < worthLoosening) mask = walked(frame);
    else {
      // A string of at most 40 characters allows what one without bound does, but for tokens of more than 40 bytes.
      mask = ofFrame(loose.frame);
      const longer = trie.longerThan(loose.bytes);
      if (longer.length > 0) {
        mask = mask.slice();
        const start = automaton.configuration([frame]);
        for (const token of longer) {
          if (!((mask[token >> 5]! >>> (token & 31)) & 1)) continue;
          let at: Configuration | undefined = start;
          for (const byte of tokenizer.bytes(token)) at = at && automaton.step(at, byte);
          if (!at) mask[token >> 5]! &= ~(1 << (token & 31));
        }
      }
    }
    if (frameMasks.size >= maxMasks) frameMasks.clear();
    frameMasks.set(frame, mask);
    return mask;
  };
  const maskOf = (configuration: Configuration): Int32Array => {
    let mask = masks.get(configuration);
    if (mask) return mask;
    mask = new Int32Array(words);
    for (const frame of configuration.frames) {
      const own = ofFrame(frame);
      for (let i = 0; i < words; i++) mask[i]! |= own[i]!;
    }
    if (configuration.isComplete)
      for (const id of tokenizer.endIds) if (id < vocabulary.size) mask[id >> 5]! |= 1 << (id & 31);
    if (mask.every((word) => word === 0))
      throw grammarError("no token of the vocabulary can go on with the text that the guide asks for");
    if (masks.size >= maxMasks) masks.clear();
    masks.set(configuration, mask);
    return mask;
  };
  const forcedText = (from: Configuration | undefined, bytes: number[] = []): Uint8Array => {
    let at = from;
    while (at && bytes.length < maxForcedBytes) {
      const byte = automaton.forcedByte(at);
      if (byte === undefined) break;
      bytes.push(byte);
      at = automaton.step(at, byte);
    }
    return Uint8Array.from(bytes);
  };

  /** Nothing where the tokenizer adds to the text, as some do at its beginning. */
  const tokensOf = (text: Uint8Array, limit: number): number[] => {
    const tokens = tokenizer.encode(wholeCharacters(text));
    let at = 0;
    for (const token of tokens) for (const byte of tokenizer.bytes(token)) if (byte !== text[at++]) return [];
    return tokens.slice(0, limit);
  };

  const stateAt = (configuration: Configuration): GuideState => {
    let state = states.get(configuration);
    if (state) return state;
    // The text that must follow as the tokenizer splits it; the last token may go on into what is free.
    let known: readonly number[] | undefined;
    const forced = () => {
      known ??= tokensOf(forcedText(configuration), Number.POSITIVE_INFINITY);
      return known;
    };
    let only: Int32Array | undefined;
    state = {
      get mask() {
        if (forced().length < 2) return maskOf(configuration);
        if (!only) {
          only = new Int32Array(words);
          only[forced()[0]! >> 5]! |= 1 << (forced()[0]! & 31);
        }
        return only;
      },
      advance(token) {
        if (forced().length >= 2 && token !== forced()[0]) return undefined;
        if (
          !(token >= 0 && token < tokenizer.vocabSize) ||
          tokenizer.isControl(token) ||
          tokenizer.endIds.has(token)
        )
          return undefined;
        let at: Configuration | undefined = configuration;
        for (const byte of tokenizer.bytes(token)) if (at) at = automaton.step(at, byte);
        return at === configuration && tokenizer.bytes(token).length === 0 ? undefined : at && stateAt(at);
      },
      forced(limit) {
        // Complete, with nothing that could follow: the end token is all that is left.
        if (configuration.isComplete && configuration.frames.length === 0)
          return tokenizer.eosId === undefined ? [] : [tokenizer.eosId].slice(0, limit);
        return forced().slice(0, limit);
      },
      branches(limit) {
        return automaton
          .singleBytes(configuration)
          .map((byte) => forcedText(automaton.step(configuration, byte), [byte]))
          .filter((text) => text.length > 1)
          .sort((a, b) => b.length - a.length)
          .slice(0, maxBranches)
          .map((text) => tokensOf(text, limit))
          .filter((tokens) => tokens.length > 0);
      },
    };
    states.set(configuration, state);
    return state;
  };
  return { start: stateAt(automaton.start) };
}

const maxForcedBytes = 256;
const maxBranches = 3;

function wholeCharacters(bytes: Uint8Array): string {
  return new TextDecoder("utf-8").decode(bytes, { stream: true });
}
