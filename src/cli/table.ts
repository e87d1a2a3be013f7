/** Of a line: 80 characters, or a terminal's where it is narrower. */
const fitting = (): number => Math.min(80, (process.stdout.isTTY && process.stdout.columns) || 80);

/**
 * Lines of a table at most `width` characters wide. `align` has one letter a column: l or r. Where the whole would be
 * too wide, the widest column on the left side gives way: its cells go on in further lines, words are never cut.
 */
export function table(
  align: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  width = fitting(),
): string[] {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const total = () => widths.reduce((sum, w) => sum + w, 2 * (widths.length - 1));
  const elastic = widths.reduce(
    (best, w, i) => (align[i] === "l" && (best === undefined || w > widths[best]!) ? i : best),
    undefined as number | undefined,
  );
  const excess = total() - width;
  if (elastic !== undefined && excess > 0) widths[elastic] = Math.max(8, widths[elastic]! - excess);
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => (align[i] === "r" ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd();
  return [head, ...rows].flatMap((cells) => {
    const parts = elastic === undefined ? [""] : wrap(cells[elastic]!, widths[elastic]!);
    return parts.map((part, n) => line(cells.map((cell, i) => (i === elastic ? part : n > 0 ? "" : cell))));
  });
}

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
