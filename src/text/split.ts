import type { Pattern } from "./oniguruma.js";

/** What becomes of the characters that separate, in the words of tokenizer.json. */
export type SplitBehavior = "Isolated" | "Removed" | "MergedWithPrevious" | "MergedWithNext" | "Contiguous";

/** One way of cutting text into pieces. */
export interface SplitRule {
  /** The pattern as sticky and as global expression. */
  readonly sticky: RegExp;
  readonly search: RegExp;
  readonly behavior: SplitBehavior;
  /** Matches are what is between separators. */
  readonly invert: boolean;
}

export function splitRule(
  { source, flag }: Pattern,
  behavior: SplitBehavior = "Isolated",
  invert = false,
): SplitRule {
  return {
    sticky: new RegExp(source, `${flag}y`),
    search: new RegExp(source, `${flag}g`),
    behavior,
    invert,
  };
}

/** A rule, or a change of each piece; `first`: it begins the text. */
export type Cut = SplitRule | ((piece: string, first: boolean) => string);

/** The pieces of `text`, cut by one rule after the other. No piece is empty. `first`: the text begins here. */
export function* pieces(
  text: string,
  cuts: readonly Cut[],
  first = true,
  from = 0,
): Generator<string, void, undefined> {
  const next = cuts[from];
  if (text === "") return;
  if (next === undefined) yield text;
  else if (typeof next === "function") yield* pieces(next(text, first), cuts, first, from + 1);
  else if (from === cuts.length - 1) yield* cut(text, next);
  else {
    for (const piece of cut(text, next)) {
      yield* pieces(piece, cuts, first, from + 1);
      first = false;
    }
  }
}

function cut(text: string, rule: SplitRule): Generator<string, void, undefined> {
  const { behavior, invert } = rule;
  if (behavior === "Isolated") return isolated(text, rule);
  return merged(text, rule, behavior, invert);
}

/** Matches and what lies between them. */
function* isolated(text: string, rule: SplitRule): Generator<string, void, undefined> {
  for (let start = 0; start < text.length; ) {
    let end = matchEnd(rule.sticky, text, start);
    if (end <= start) end = nextMatch(rule.search, text, start);
    yield text.slice(start, end);
    start = end;
  }
}

/** Where the match at `at` ends; -1 if there is none. */
function matchEnd(sticky: RegExp, text: string, at: number): number {
  sticky.lastIndex = at;
  return sticky.test(text) ? sticky.lastIndex : -1;
}

/** Where the next match behind `at` begins, or the text ends. */
function nextMatch(search: RegExp, text: string, at: number): number {
  search.lastIndex = at + (text.codePointAt(at)! > 0xffff ? 2 : 1);
  return search.exec(text)?.index ?? text.length;
}

function* merged(
  text: string,
  rule: SplitRule,
  behavior: SplitBehavior,
  invert: boolean,
): Generator<string, void, undefined> {
  let held = "";
  let before: boolean | undefined;
  for (let start = 0; start < text.length; ) {
    let end = matchEnd(rule.sticky, text, start);
    const matched = end > start;
    if (!matched) end = nextMatch(rule.search, text, start);
    const piece = text.slice(start, end);
    const separates = matched !== invert;
    start = end;
    if (behavior === "Removed") {
      if (!separates) yield piece;
      continue;
    }
    const joins =
      behavior === "Contiguous"
        ? separates === before
        : behavior === "MergedWithPrevious"
          ? separates && before === false
          : !separates && before === true;
    if (joins) held += piece;
    else {
      if (held !== "") yield held;
      held = piece;
    }
    before = separates;
  }
  if (held !== "") yield held;
}
