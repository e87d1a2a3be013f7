import type { PassTrace } from "../index.js";

/** What is to be drawn: passes in order, and the text of every token of the answer. */
export interface TracedText {
  readonly title: string;
  readonly passes: readonly PassTrace[];
  readonly tokens: readonly { readonly id: number; readonly text: string }[];
}

/** What a pass held at one place of the answer. */
export type Cell =
  /** The model's own token. */
  | "own"
  /** A drafted token that was verified and stayed. */
  | "accepted"
  /** The right token in its place, behind a wrong one: it had to be guessed again. */
  | "early"
  | "wrong";

/**
 * Which token was known in which pass: the matrix of decoding dependency graphs (Santilli et al. 2023). Row: pass,
 * column: place in the answer. Of a tree's branches the best guess at a place counts.
 */
export function dependencyMatrix({ passes, tokens }: TracedText): Map<number, Cell>[] {
  let from = 0;
  return passes.map((pass) => {
    const row = new Map<number, Cell>();
    const depths: number[] = [];
    for (const [i, token] of pass.drafted.entries()) {
      const parent = pass.parents[i]!;
      const depth = parent < 0 ? 0 : depths[parent]! + 1;
      depths.push(depth);
      const right = tokens[from + depth]?.id === token;
      if (right) row.set(from + depth, depth < pass.accepted ? "accepted" : "early");
      else if (!row.has(from + depth)) row.set(from + depth, "wrong");
    }
    row.set(from + pass.accepted, "own");
    from += pass.tokens.length;
    return row;
  });
}

const COLOURS: Record<Cell, string> = {
  own: "#1f4e79",
  accepted: "#2e8b57",
  early: "#e0a030",
  wrong: "#d9d9d9",
};
const LEGEND: readonly (readonly [Cell, string])[] = [
  ["own", "the model's own token of the pass"],
  ["accepted", "drafted and accepted: known in the same pass"],
  ["early", "right, but behind a wrong token"],
  ["wrong", "wrong"],
];
const SIDE = 14;
const LEFT = 60;
const LABELS = 120;

/** A picture of its own: no script, no font, no link. */
export function dependencySvg(text: TracedText): string {
  const matrix = dependencyMatrix(text);
  const top = 50 + LABELS;
  const width = Math.max(620, LEFT + SIDE * text.tokens.length + 20);
  const height = top + SIDE * matrix.length + 20;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="10">`,
    `<rect width="100%" height="100%" fill="#ffffff"/>`,
    `<text x="8" y="16" font-size="13">${escaped(text.title)}</text>`,
    ...LEGEND.map(
      ([cell, label], i) =>
        `<rect x="${8 + 150 * i}" y="26" width="10" height="10" fill="${COLOURS[cell]}"/><text x="${22 + 150 * i}" y="35" font-size="8">${label}</text>`,
    ),
    ...text.tokens.map(({ text: label }, i) => {
      const x = LEFT + SIDE * i + SIDE - 4;
      return `<text x="${x}" y="${top - 6}" transform="rotate(-90 ${x} ${top - 6})">${escaped(visible(label))}</text>`;
    }),
  ];
  for (const [row, cells] of matrix.entries()) {
    const y = top + SIDE * row;
    parts.push(`<text x="${LEFT - 8}" y="${y + SIDE - 4}" text-anchor="end">${row + 1}</text>`);
    for (const [column, cell] of cells)
      if (column < text.tokens.length)
        parts.push(
          `<rect x="${LEFT + SIDE * column}" y="${y}" width="${SIDE - 1}" height="${SIDE - 1}" fill="${COLOURS[cell]}"><title>${escaped(`pass ${row + 1}, token ${column + 1} ${visible(text.tokens[column]!.text)}: ${cell}`)}</title></rect>`,
        );
  }
  return `${parts.join("\n")}\n</svg>\n`;
}

export function dependencyHtml(text: TracedText): string {
  return `<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>${escaped(text.title)}</title></head>\n<body style="overflow:auto">\n${dependencySvg(text)}</body></html>\n`;
}

/** Spaces and line ends as signs, long tokens cut. */
function visible(text: string): string {
  const shown = text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll(/\p{C}/gu, "·");
  return [...shown].length > 16 ? `${[...shown].slice(0, 15).join("")}…` : shown;
}

function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
