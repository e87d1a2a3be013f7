import { Lexer, type MarkedToken, type Token } from "marked";

/** Text that is shown, and where it stands in the source; undefined where that is not the same letter for letter. */
export interface Run {
  readonly text: string;
  readonly at: number | undefined;
}

/** What an answer in Markdown says, for a page that shows no one's markup but its own: HTML is text like any other. */
export type Node =
  | Run
  | {
      readonly tag: Tag;
      readonly children: readonly Node[];
      readonly href?: string;
      readonly start?: number;
      readonly language?: string;
    };

export type Tag =
  | ("p" | "h3" | "h4" | "h5" | "h6" | "ul" | "ol" | "li" | "blockquote" | "pre" | "hr" | "br")
  | ("table" | "thead" | "tbody" | "tr" | "th" | "td" | "strong" | "em" | "del" | "code" | "a");

/** A part of the source between blank lines, parsed on its own; while an answer grows only the last one changes. */
export interface Block {
  readonly source: string;
  readonly at: number;
  readonly token: Token;
}

/** Beyond this an answer is shown as it is: it would be parsed again with every picture on the screen. */
const mostCharacters = 60_000;
const mostDepth = 64;

export function blocksOf(source: string): Block[] {
  const blocks: Block[] = [];
  let at = 0;
  for (const token of lex(source)) {
    // Line ends are made alike by the parser; else a token's text is the source's.
    at = Math.max(at, source.indexOf(token.raw, at));
    if (token.type !== "space") blocks.push({ source: token.raw, at, token });
    at += token.raw.length;
  }
  return blocks;
}

function lex(source: string): Token[] {
  try {
    if (source.length <= mostCharacters) return new Lexer({ gfm: true }).lex(source);
  } catch {
    // nested so deeply that the parser's stack overflows
  }
  return [{ type: "html", raw: source, text: source }];
}

/** The block's nodes, in a source of which `block.source` begins at `block.at`. */
export function nodesOf({ token, source, at }: Block): Node[] {
  const found = nodes([token], new Place(source, at, 0));
  return found.some((node) => !("tag" in node)) ? [{ tag: "p", children: found }] : found;
}

/** Where in the source the parser's tokens were found so far. */
class Place {
  #next = 0;
  constructor(
    readonly source: string,
    readonly at: number,
    readonly depth: number,
  ) {}

  /** The place of a token, whose own tokens lie within it; the next is looked for behind it. */
  within(raw: string): Place {
    const found = this.source.indexOf(raw, this.#next);
    // A text of several lines loses what stands before them in lists and quotations: its lines are found one by one.
    if (found < 0) return this;
    this.#next = found + raw.length;
    return new Place(raw, this.at + found, this.depth + 1);
  }

  /** Where `text` stands, line by line. */
  *runs(text: string): Generator<Run> {
    for (const line of text.split(/(?<=\n)/)) {
      const found = this.source.indexOf(line, this.#next);
      if (found >= 0) this.#next = found + line.length;
      yield { text: line, at: found < 0 ? undefined : this.at + found };
    }
  }
}

const nodes = (tokens: readonly Token[], place: Place): Node[] =>
  tokens.flatMap((token) => [...nodesOfToken(token as MarkedToken, place.within(token.raw))]);

function* nodesOfToken(token: MarkedToken, place: Place): Generator<Node> {
  if (place.depth > mostDepth) return yield* place.runs(token.raw);
  const inner = () => nodes("tokens" in token ? (token.tokens ?? []) : [], place);
  switch (token.type) {
    case "space":
      return;
    case "def":
      return yield { tag: "p", children: [...place.runs(token.raw)] };
    case "paragraph":
      return yield { tag: "p", children: inner() };
    case "heading":
      if (token.text === "") return yield { tag: "p", children: [...place.runs(token.raw.trim())] };
      // The page has the levels above.
      return yield { tag: `h${Math.min(6, token.depth + 2)}` as "h3", children: inner() };
    case "blockquote":
    case "strong":
    case "em":
    case "del":
      return yield { tag: token.type, children: inner() };
    case "hr":
    case "br":
      return yield { tag: token.type, children: [] };
    case "list": {
      const children = token.items.map(
        (item): Node => ({ tag: "li", children: nodes(item.tokens, place.within(item.raw)) }),
      );
      const start = typeof token.start === "number" && token.start !== 1 ? { start: token.start } : {};
      return yield { tag: token.ordered ? "ol" : "ul", children, ...start };
    }
    case "checkbox":
      return yield { text: token.checked ? "☑ " : "☐ ", at: undefined };
    case "code": {
      const children = [...place.runs(token.text)];
      const language = token.lang ? { language: token.lang } : {};
      return yield { tag: "pre", children: [{ tag: "code", children }], ...language };
    }
    case "codespan":
      return yield { tag: "code", children: [...place.runs(token.text)] };
    case "link":
    case "image": {
      const children = inner();
      return yield safe(token.href) ? { tag: "a", href: token.href, children } : { tag: "em", children };
    }
    case "table": {
      const row = (cells: typeof token.header, tag: "th" | "td"): Node => ({
        tag: "tr",
        children: cells.map((cell) => ({ tag, children: nodes(cell.tokens, place) })),
      });
      const head = row(token.header, "th");
      return yield {
        tag: "table",
        children: [
          { tag: "thead", children: [head] },
          { tag: "tbody", children: token.rows.map((cells) => row(cells, "td")) },
        ],
      };
    }
    case "text":
      if (token.tokens) return yield* inner();
      return yield* place.runs(token.text);
    default:
      // HTML, escapes: as text.
      yield* place.runs(token.text);
  }
}

/** Nothing that runs, and nothing of this server. */
const safe = (href: string) => /^(https?:\/\/|mailto:)/i.test(href);
