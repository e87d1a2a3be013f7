import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Tokenizer, tokenizerFromMetadata } from "../text/tokenizer.js";
import { openGguf } from "../weights/gguf.js";
import {
  constraint,
  type Guide,
  type GuideState,
  type GuideVocabulary,
  guideNetwork,
  guideVocabulary,
} from "./constraint.js";

let tokenizer: Tokenizer;
let vocabulary: GuideVocabulary;
beforeAll(async () => {
  await using file = await openGguf("models/SmolLM2-135M-Instruct.Q4_1.gguf");
  tokenizer = tokenizerFromMetadata(file.metadata);
  vocabulary = guideVocabulary(tokenizer, tokenizer.vocabSize);
});

const grammars: Readonly<Record<string, string>> = {
  arithmetic: 'root ::= term ([-+] term)*\nterm ::= factor ("*" factor)*\nfactor ::= [0-9]+ | "(" root ")"',
  strings:
    'root ::= "{" pair ("," pair)* "}"\npair ::= text ":" text\ntext ::= "\\"" [^"\\\\\\x00-\\x1f]* "\\""',
  words: 'root ::= ("the cat" | "the catalogue" | "a category") (" " [a-z]+){0,3} "."',
};
const guides: Readonly<Record<string, Guide>> = {
  ...Object.fromEntries(Object.entries(grammars).map(([name, grammar]) => [name, { grammar }])),
  json: { json: true },
  regex: { regex: "(yes|no), [a-zé€]{1,30}\\." },
  "bounded, before others": {
    json: {
      type: "object",
      properties: { a: { type: "string", maxLength: 9 }, b: { type: "string", minLength: 1, maxLength: 12 } },
      required: ["a", "b"],
    },
  },
  bounded: { json: { type: "array", items: { type: "string", maxLength: 12 }, maxItems: 9 } },
};

// The same strings before other things, and other strings before the same: what one has worked out serves the next.
const person = (name: object, last: object) => ({
  json: { type: "object", properties: { name, last }, required: ["name", "last"] },
});
const short = { type: "string", maxLength: 9 };
const kin: readonly Guide[] = [
  person(short, short),
  person({ type: "array", items: short }, { const: "x" }),
  person({ type: "string", minLength: 2, maxLength: 11 }, { type: "string", pattern: "^[a-z]{1,9}$" }),
  { regex: '[a-z]{1,9}("|x[0-9])' },
  { regex: '([a-z]|[0-9]a){0,9}"' },
  { grammar: 'root ::= "a" tail{0,9} "\\""\ntail ::= [a-z] | "1" tail' },
];

const allows = (state: GuideState, token: number) => ((state.mask[token >> 5]! >>> (token & 31)) & 1) === 1;

/** States along a random text that the guide allows. */
function walk(
  guide: Guide,
  steps: number,
  pick: (n: number) => number,
): { state: GuideState; tokens: number[] }[] {
  let state = constraint(guideNetwork(guide), vocabulary).start;
  const seen = [{ state, tokens: [] as number[] }];
  for (let i = 0; i < steps; i++) {
    const allowed: number[] = [];
    for (let id = 0; id < tokenizer.vocabSize; id++)
      if (allows(state, id) && !tokenizer.endIds.has(id)) allowed.push(id);
    if (allowed.length === 0) break;
    const token = allowed[pick(allowed.length)]!;
    state = state.advance(token)!;
    seen.push({ state, tokens: [...seen.at(-1)!.tokens, token] });
  }
  return seen;
}

describe.each(Object.entries(guides))("%s", (_name, guide) => {
  test("a mask has exactly the tokens whose bytes may follow", () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(1_000_000)), (numbers) => {
        for (const { state } of walk(guide, 6, (n) => (numbers.next().value as number) % n))
          for (let id = 0; id < tokenizer.vocabSize; id++) {
            if (tokenizer.endIds.has(id)) continue;
            if (allows(state, id) !== (state.advance(id) !== undefined)) return false;
          }
        return true;
      }),
      { numRuns: 4, seed: 5 },
    );
  });

  test("forced tokens and ways on are allowed", () => {
    for (const { state } of walk(guide, 10, (n) => 7 % n))
      for (const chain of [state.forced(32), ...state.ways.map(({ tokens }) => tokens)]) {
        let at: GuideState | undefined = state;
        for (const token of chain) {
          if (tokenizer.endIds.has(token)) break;
          expect(allows(at!, token)).toBe(true);
          at = at!.advance(token);
        }
      }
  });
});

test.each([kin, kin.toReversed()])("masks do not depend on the guides before", (...guides) => {
  const common = guideVocabulary(tokenizer, tokenizer.vocabSize);
  const text = '{"name": "ab1"x", "last": ["';
  for (const guide of guides) {
    const network = guideNetwork(guide);
    let shared: GuideState | undefined = constraint(network, common).start;
    let alone: GuideState | undefined = constraint(
      network,
      guideVocabulary(tokenizer, tokenizer.vocabSize),
    ).start;
    for (let i = 0; i < 14 && shared && alone; i++) {
      expect(shared.mask).toEqual(alone.mask);
      const state: GuideState = shared;
      const byte = tokenizer.encode(text[i]!)[0]!;
      const next: number =
        state.forced(2).length > 1
          ? state.forced(1)[0]!
          : allows(state, byte)
            ? byte
            : tokenizer.encode("a")[0]!;
      shared = shared.advance(next);
      alone = alone.advance(next);
    }
  }
});

describe("beside XGrammar", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "outrider-xgrammar-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  // The package says that it is a module and is written as CommonJS: under another name it loads.
  const load = () => {
    const file = path.join(folder, "xgrammar.cjs");
    copyFileSync(createRequire(import.meta.url).resolve("@mlc-ai/web-xgrammar"), file);
    return createRequire(import.meta.url)(file);
  };

  test.each(Object.keys(grammars))("masks of the grammar %s are the same", async (name) => {
    const xgrammar = load();
    const words = Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.text(id));
    const end = [...tokenizer.endIds];
    const info = await xgrammar.TokenizerInfo.createTokenizerInfo(
      words,
      "byte_level",
      false,
      tokenizer.vocabSize,
      end,
    );
    const compiler = await xgrammar.GrammarCompiler.createGrammarCompiler(info);
    const compiled = await compiler.compileGrammar(grammars[name]!);
    const random = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9].map((n) => n * 7919);
    let at = 0;
    const states = walk({ grammar: grammars[name]! }, 12, (n) => random[at++ % random.length]! % n);
    const matcher = await xgrammar.GrammarMatcher.createGrammarMatcher(compiled);
    for (const [i, { state, tokens }] of states.entries()) {
      if (i > 0) expect(matcher.acceptToken(tokens.at(-1)!)).toBe(true);
      if (state.forced(2).length === 2) continue; // ours allows the tokenizer's own split only
      const theirs: Int32Array = await matcher.getNextTokenBitmask();
      const differing: string[] = [];
      for (let id = 0; id < tokenizer.vocabSize; id++) {
        if (tokenizer.isControl(id) && !tokenizer.endIds.has(id)) continue;
        const their = ((theirs[id >> 5]! >>> (id & 31)) & 1) === 1;
        if (their !== allows(state, id)) differing.push(`${tokenizer.text(id)}: ${their}`);
      }
      expect(differing.slice(0, 5), tokenizer.decode(tokens)).toEqual([]);
    }
  });
});
