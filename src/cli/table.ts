/** Of a line: 80 characters, or a terminal's where it is narrower. */
const fitting = (): number => Math.min(80, (process.stdout.isTTY && process.stdout.columns) || 80);

/**
 * Lines of a table at most `width` characters wide, if its words allow that. `align` has one letter a column: l or r.
 * Where the whole would be too wide, columns on the left side give way, the widest first: their cells go on in further
 * lines, words are never cut. Then columns stand closer.
 */
export function table(
  align: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  width = fitting(),
): string[] {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const longestWord = (i: number) =>
    Math.max(...[head, ...rows].flatMap((row) => row[i]!.split(" ").map((word) => word.length)));
  const excess = (gap: number) => widths.reduce((sum, w) => sum + w, gap * (widths.length - 1)) - width;
  const left = [...widths.keys()].filter((i) => align[i] === "l").sort((a, b) => widths[b]! - widths[a]!);
  for (const i of left)
    widths[i] = Math.min(widths[i]!, Math.max(8, longestWord(i), widths[i]! - Math.max(0, excess(2))));
  const gap = excess(2) > 0 && excess(1) <= 0 ? " " : "  ";
  return [head, ...rows].flatMap((row) => {
    const cells = row.map((cell, i) => (align[i] === "l" ? wrap(cell, widths[i]!) : [cell]));
    return Array.from({ length: Math.max(...cells.map((lines) => lines.length)) }, (_, n) =>
      cells
        .map((lines, i) => pad(lines[n] ?? "", widths[i]!, align[i]!))
        .join(gap)
        .trimEnd(),
    );
  });
}

const pad = (text: string, width: number, align: string) =>
  align === "r" ? text.padStart(width) : text.padEnd(width);

/** Lines of at most `width` characters; a longer word, a path for one, stands whole on a line of its own. */
export function wrap(text: string, width = fitting()): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** 1234567 → "1,234,567". */
export function count(n: number): string {
  return n.toLocaleString("en-US");
}

/** Three figures or so: 0.123, 1.23, 12.3, 123, 1,235. */
export function figures(x: number): string {
  if (!Number.isFinite(x)) return "–";
  if (x >= 99.95) return count(Math.round(x));
  return x.toFixed(x >= 9.995 ? 1 : x >= 0.9995 || x === 0 ? 2 : 3);
}

/** Bytes as MB (10^6), or GB. */
export function megabytes(bytes: number): string {
  return bytes >= 1e10
    ? `${figures(bytes / 1e9)} GB`
    : bytes < 1e5
      ? `${figures(bytes / 1e3)} KB`
      : `${figures(bytes / 1e6)} MB`;
}
