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
  /** Where at most a token must follow: the ways on behind it after which more must, at most four, the longest first. */
  readonly ways: readonly Way[];
}

/** A way on where the text has a choice. */
export interface Way {
  /** The byte that chooses it. */
  readonly byte: number;
  /** What must come before it, the byte, and what must follow, as the tokenizer splits all of it. */
  readonly tokens: readonly number[];
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
  /** What rules allow that guides have in common, by their meanings. */
  readonly known: Map<string, Allowed>;
}

/** What a beginning allows on its own, as far as its rule goes. */
export interface Allowed {
  readonly mask: Int32Array;
  /** Nodes of the trie at which the rule may have ended, with tokens that go on. */
  readonly exits: readonly number[];
  /** How many nodes are below the exits. */
  readonly open: number;
}

export function guideVocabulary(tokenizer: Tokenizer, size: number): GuideVocabulary {
  const nothing = new Uint8Array(0);
  const bytes = (id: number) =>
    tokenizer.isControl(id) || tokenizer.endIds.has(id) ? nothing : tokenizer.bytes(id);
  let trie: TokenTrie | undefined;
  return {
    tokenizer,
    size,
    known: new Map(),
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

// Masks take 6 kB each for 49,152 tokens.
const maxMaskBytes = 6 * 2 ** 20;
const maxKnownBytes = 12 * 2 ** 20;
/** With more nodes below a rule's exits, what follows the rule is looked at too before its mask is kept. */
const wideOpen = 2000;
const maxCallers = 4;

/**
 * Masks by the method of XGrammar (Dong et al. 2024, arXiv:2411.15100): what a rule's state allows on its own is computed
 * once, by a walk over the vocabulary's trie, and where the rule may end in the middle of a token what follows is looked
 * at in the text's own place. What the state's rest of its rule means is known by name, so strings of all schemas share
 * their masks.
 */
export function constraint(network: Network, vocabulary: GuideVocabulary): Constraint {
  const automaton = new Automaton(network);
  const { tokenizer, trie, known } = vocabulary;
  const words = Math.ceil(vocabulary.size / 32);
  const masks = new Map<Configuration, Int32Array>();
  const allowed = new Map<Frame, Allowed>();
  const states = new Map<Configuration, GuideState>();

  /** Sets or clears the bits of the tokens from `from` to `to` in the order of the trie. */
  const mark = (mask: Int32Array, from: number, to: number, may: boolean) => {
    for (let i = from; i < to; i++) {
      const token = trie.tokens[i]!;
      if (may) mask[token >> 5]! |= 1 << (token & 31);
      else mask[token >> 5]! &= ~(1 << (token & 31));
    }
  };
  const openBehind = (exits: readonly number[]) =>
    exits.reduce((sum, node) => sum + trie.end[node]! - node - 1, 0);
  const path: Configuration[] = [];
  /** Marks the tokens below `root` that may follow `from`; `exits` gets the nodes at which the text may be complete. */
  const walk = (root: number, from: Configuration, mask: Int32Array, exits?: number[]) => {
    const { end, depth, byte, tokensAt } = trie;
    path[depth[root]!] = from;
    for (let node = root + 1; node < end[root]!; ) {
      const next = automaton.step(path[depth[node]! - 1]!, byte[node]!);
      const after = end[node]!;
      if (!next) {
        node = after;
        continue;
      }
      mark(mask, tokensAt[node]!, tokensAt[node + 1]!, true);
      if (next.isComplete && after > node + 1) exits?.push(node);
      path[depth[node]!] = next;
      node = next.frames.length > 0 ? node + 1 : after;
    }
  };
  /** `loose` without the tokens of more than `bytes` bytes that may not follow `from`. */
  const tightened = (loose: Allowed, from: Configuration, bytes: number): Allowed => {
    const { end, depth, deepest, byte, tokensAt } = trie;
    const mask = loose.mask.slice();
    const exits = loose.exits.filter((node) => depth[node]! <= bytes);
    path[0] = from;
    for (let node = 1; node < end[0]!; ) {
      const after = end[node]!;
      const next = deepest[node]! > bytes ? automaton.step(path[depth[node]! - 1]!, byte[node]!) : undefined;
      if (next?.isComplete && after > node + 1 && depth[node]! > bytes) exits.push(node);
      if (next && next.frames.length > 0) {
        path[depth[node]!] = next;
        node++;
      } else {
        if (deepest[node]! > bytes) mark(mask, tokensAt[next ? node + 1 : node]!, tokensAt[after]!, false);
        node = after;
      }
    }
    return { mask, exits, open: openBehind(exits) };
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
  const meaningOf = ({ state, caller }: Frame): string | undefined => {
    const own = network.meaning(state);
    if (own === undefined || !caller) return own;
    const above = meaningOf(caller);
    return above && `${own}/${above}`;
  };
  const compute = (frame: Frame): Allowed => {
    const loose = loosened(frame);
    const start = automaton.configuration([frame]);
    if (loose.frame !== frame) return tightened(ofRules(loose.frame), start, loose.bytes);
    const exits: number[] = [];
    const mask = new Int32Array(words);
    walk(0, start, mask, exits);
    return { mask, exits, open: openBehind(exits) };
  };
  /** What the rules of a frame allow, no matter what follows the last of them. */
  const ofRules = (frame: Frame): Allowed => {
    let found = allowed.get(frame);
    if (found) return found;
    const meaning = meaningOf(frame);
    found = meaning === undefined ? undefined : known.get(meaning);
    if (!found) {
      found = compute(frame);
      if (meaning !== undefined) {
        if (known.size >= maxKnownBytes / (4 * words)) known.delete(known.keys().next().value!);
        known.set(meaning, found);
      }
    }
    if (allowed.size >= maxMaskBytes / (4 * words)) allowed.clear();
    allowed.set(frame, found);
    return found;
  };
  /** The first `callers` of a frame's callers, without those behind them. */
  const cut = ({ state, caller }: Frame, callers: number): Frame =>
    automaton.frame(state, callers > 0 && caller ? cut(caller, callers - 1) : undefined);
  const maskOf = (configuration: Configuration): Int32Array => {
    let mask = masks.get(configuration);
    if (mask) return mask;
    mask = new Int32Array(words);
    for (const frame of configuration.frames) {
      let above = frame.caller;
      let own = ofRules(cut(frame, 0));
      for (let callers = 1; above && callers <= maxCallers && own.open > wideOpen; callers++) {
        own = ofRules(cut(frame, callers));
        above = above.caller;
      }
      for (let i = 0; i < words; i++) mask[i]! |= own.mask[i]!;
      if (!above) continue;
      const after = automaton.configuration([above]);
      for (const exit of own.exits) walk(exit, after, mask);
    }
    if (configuration.isComplete)
      for (const id of tokenizer.endIds) if (id < vocabulary.size) mask[id >> 5]! |= 1 << (id & 31);
    if (mask.every((word) => word === 0))
      throw grammarError("no token of the vocabulary can go on with the text that the guide asks for");
    if (masks.size >= maxMaskBytes / (4 * words)) masks.clear();
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
  const tokensOf = (text: Uint8Array): number[] => {
    const tokens = tokenizer.encode(wholeCharacters(text));
    let at = 0;
    for (const token of tokens) for (const byte of tokenizer.bytes(token)) if (byte !== text[at++]) return [];
    return tokens;
  };

  const waysFrom = (from: Configuration): Way[] => {
    const before = forcedText(from);
    let at: Configuration | undefined = from;
    for (const byte of before) at = at && automaton.step(at, byte);
    if (!at) return [];
    const fork = at;
    return automaton
      .singleBytes(fork)
      .map((byte) => ({ byte, text: forcedText(automaton.step(fork, byte), [...before, byte]) }))
      .filter(({ text }) => text.length > before.length + 1)
      .sort((a, b) => b.text.length - a.text.length)
      .slice(0, maxWays)
      .map(({ byte, text }) => ({ byte, tokens: tokensOf(text) }))
      .filter(({ tokens }) => tokens.length > 0);
  };

  const stateAt = (configuration: Configuration): GuideState => {
    let state = states.get(configuration);
    if (state) return state;
    // The text that must follow as the tokenizer splits it; the last token may go on into what is free.
    let known: readonly number[] | undefined;
    const forced = () => {
      known ??= tokensOf(forcedText(configuration));
      return known;
    };
    let only: Int32Array | undefined;
    let ways: readonly Way[] | undefined;
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
      get ways() {
        ways ??= forced().length > 1 ? [] : waysFrom(configuration);
        return ways;
      },
    };
    states.set(configuration, state);
    return state;
  };
  return { start: stateAt(automaton.start) };
}

const maxForcedBytes = 256;
const maxWays = 4;

function wholeCharacters(bytes: Uint8Array): string {
  return new TextDecoder("utf-8").decode(bytes, { stream: true });
}
