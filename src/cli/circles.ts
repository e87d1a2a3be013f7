const longestRun = 128;
const leastRuns = 6;
const leastTokens = 120;

/**
 * Whether a text goes in circles: its last 120 tokens or more are one run of tokens, at most 128 long, at least six
 * times over. The most likely continuation of a small model often comes to that, and never leaves it again.
 */
export function goesInCircles(tokens: readonly number[]): boolean {
  for (let run = 1; run <= longestRun; run++) {
    const from = tokens.length - Math.max(leastTokens, leastRuns * run);
    if (from < 0) return false;
    let i = tokens.length - 1;
    while (i - run >= from && tokens[i] === tokens[i - run]) i--;
    if (i - run < from) return true;
  }
  return false;
}
