import { Component, type ComponentChildren, createElement } from "preact";
import { type Block, blocksOf, type Node, nodesOf } from "./markdown.js";
import type { Pass } from "./passes.js";
import { sourceClass } from "./tokens.js";

/** A token of the answer's text. */
interface Piece {
  readonly at: number;
  readonly text: string;
  readonly source: string;
  readonly pass: Pass;
}

/** An answer as Markdown; each token keeps the mark of who drafted it, and its pass. */
export function FormattedPasses({ passes }: { passes: readonly Pass[] }) {
  const pieces: Piece[] = [];
  let source = "";
  for (const pass of passes)
    for (const { text, source: by, end } of pass.tokens)
      if (!end && text !== "") {
        pieces.push({ at: source.length, text, source: by, pass });
        source += text;
      }
  return (
    <>
      {blocksOf(source).map((block) => (
        <BlockView key={block.at} block={block} pieces={pieces} />
      ))}
    </>
  );
}

/** What was written is not drawn again. */
class BlockView extends Component<{ block: Block; pieces: readonly Piece[] }> {
  override shouldComponentUpdate(next: { block: Block }) {
    return next.block.source !== this.props.block.source;
  }
  render({ block, pieces }: { block: Block; pieces: readonly Piece[] }) {
    const told = new Set(begunBefore(block.at, pieces));
    return nodesOf(block).map((node) => view(node, pieces, told));
  }
}

/** The pass that has the piece at `at`, if it has words before it. */
function begunBefore(at: number, pieces: readonly Piece[]): Pass[] {
  const pass = pieces[pieceAt(pieces, at)]?.pass;
  const before = pieces.filter((piece) => piece.pass === pass && piece.at < at);
  const text = before.map(({ text, at: from }) => text.slice(0, at - from)).join("");
  return pass && text.trim() !== "" ? [pass] : [];
}

/** `told`: passes whose beginning was shown. */
function view(node: Node, pieces: readonly Piece[], told: Set<Pass>): ComponentChildren {
  if (!("tag" in node)) return node.at === undefined ? node.text : marks(node.text, node.at, pieces, told);
  const children = node.children.map((child) => view(child, pieces, told));
  switch (node.tag) {
    case "a":
      return (
        <a href={node.href} target="_blank" rel="noopener noreferrer nofollow">
          {children}
        </a>
      );
    case "table":
      return (
        <div class="scrolls">
          <table>{children}</table>
        </div>
      );
    default:
      return createElement(node.tag, { start: node.start, "data-language": node.language }, ...children);
  }
}

/** The tokens that `text` is made of, grouped by their passes; the first and the last may be cut by markup. */
function marks(text: string, at: number, pieces: readonly Piece[], told: Set<Pass>): ComponentChildren[] {
  const groups: ComponentChildren[] = [];
  const end = at + text.length;
  for (let i = pieceAt(pieces, at); i < pieces.length && pieces[i]!.at < end; ) {
    const { pass } = pieces[i]!;
    const parts: ComponentChildren[] = [];
    for (; i < pieces.length && pieces[i]!.pass === pass && pieces[i]!.at < end; i++) {
      const piece = pieces[i]!;
      const shown = piece.text.slice(Math.max(0, at - piece.at), end - piece.at);
      parts.push(<span class={sourceClass(piece.source)}>{shown}</span>);
    }
    const kind = `${pass.rejected.length > 0 ? "pass missed" : "pass"}${told.has(pass) ? " more" : ""}`;
    told.add(pass);
    groups.push(
      <span class={kind} data-pass={pass.index} tabIndex={-1}>
        {parts}
      </span>,
    );
  }
  return groups;
}

/** The last piece that begins at `at` or before. */
function pieceAt(pieces: readonly Piece[], at: number): number {
  let [low, high] = [0, pieces.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (pieces[middle]!.at <= at) low = middle;
    else high = middle;
  }
  return low;
}
