/** One step of the trie: what may follow, and the token that ends here. */
interface Node {
  readonly next: Map<number, Node>;
  id: number | undefined;
}

/**
 * Finds tokens that stand in text as a whole, such as `<|im_end|>`.
 * A trie instead of one regular expression: a file may declare a million of them.
 */
export class SpecialTokens {
  readonly #root: Node = { next: new Map(), id: undefined };

  /** @param entries texts (not empty) and their token ids */
  constructor(entries: Iterable<readonly [text: string, id: number]>) {
    for (const [text, id] of entries) {
      let node = this.#root;
      for (let i = 0; i < text.length; i++) {
        const unit = text.charCodeAt(i);
        const child: Node = node.next.get(unit) ?? { next: new Map(), id: undefined };
        node.next.set(unit, child);
        node = child;
      }
      node.id = id;
    }
  }

  /** `text` cut at its special tokens, leftmost first, the longest at each place: plain pieces and token ids. */
  split(text: string): (string | number)[] {
    const parts: (string | number)[] = [];
    let plain = 0;
    for (let i = 0; i < text.length; ) {
      const { id, end } = this.#match(text, i);
      if (id === undefined) {
        i++;
        continue;
      }
      if (plain < i) parts.push(text.slice(plain, i));
      parts.push(id);
      plain = i = end;
    }
    if (plain < text.length) parts.push(text.slice(plain));
    return parts;
  }

  /**
   * `text` with `mark` inside everything that is a special token, and inside an end that text after it could
   * complete to one; so `split` finds none that begins here. Undone by removing every `mark`.
   */
  guard(text: string, mark: string): string {
    let guarded = "";
    let done = 0;
    for (let i = 0; i < text.length; i++) {
      const { id, open } = this.#match(text, i);
      if (id === undefined && !open) continue;
      guarded += text.slice(done, i + 1) + mark;
      done = i + 1;
    }
    return guarded + text.slice(done);
  }

  /** The longest token at `start`; `open`: the text ends inside a token. */
  #match(text: string, start: number): { id: number | undefined; end: number; open: boolean } {
    let node: Node | undefined = this.#root.next.get(text.charCodeAt(start));
    if (node === undefined) return NONE;
    let id: number | undefined;
    let end = start;
    for (let i = start + 1; ; i++) {
      if (node.id !== undefined) {
        id = node.id;
        end = i;
      }
      if (i === text.length) return { id, end, open: node.next.size > 0 };
      node = node.next.get(text.charCodeAt(i));
      if (node === undefined) return { id, end, open: false };
    }
  }
}

const NONE = { id: undefined, end: 0, open: false } as const;
