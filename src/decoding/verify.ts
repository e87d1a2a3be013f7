/** A verified pass: what it says, and which of its tokens the text keeps. */
export interface Verified {
  /** The emitted tokens, at least one: the accepted drafts, then the model's own pick after them. */
  readonly tokens: number[];
  /** The pass index of the row that drew each emitted token; also the path of pass tokens to keep. */
  readonly path: number[];
}

/**
 * Walks a verified chain or tree from its root, always to the child that holds the token its parent's row drew. Each
 * emitted token is thus the one that plain decoding draws at its position. Stops after an end token, whose row is
 * kept while the token itself is not.
 *
 * `tokens`, `parents`: [n] the pass, root first, parents before children; `picks`: [n] what each row drew. The last
 * `padding` tokens of the pass are never accepted.
 */
export function verify(
  tokens: readonly number[],
  parents: readonly number[],
  picks: ArrayLike<number>,
  endIds: ReadonlySet<number>,
  padding = 0,
): Verified {
  const emitted = [picks[0]!];
  const path = [0];
  let row = 0;
  // Children stand behind their parents, so one sweep over the pass meets the whole path.
  const end = tokens.length - padding;
  for (let node = 1; node < end && !endIds.has(picks[row]!); node++) {
    if (parents[node] !== row || tokens[node] !== picks[row]) continue;
    row = node;
    path.push(node);
    emitted.push(picks[node]!);
  }
  return { tokens: emitted, path };
}
