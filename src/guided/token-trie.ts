/** The tokens of a vocabulary by their bytes. Nodes are numbers, 0 is the root; children stand in byte order. */
export class TokenTrie {
  readonly vocabSize: number;
  readonly firstChild: Int32Array;
  readonly sibling: Int32Array;
  readonly byte: Uint8Array;
  /** Of every node, where its tokens begin in `tokens`; they end where the next node's begin. */
  readonly tokensAt: Int32Array;
  readonly tokens: Int32Array;
  /** Longest first, with their lengths in bytes. */
  readonly #byLength: readonly { readonly id: number; readonly length: number }[];
  readonly #longer = new Map<number, readonly number[]>();

  /** `bytes(id)`: what token `id` adds to a text; empty: it is not in the trie. */
  constructor(vocabSize: number, bytes: (id: number) => Uint8Array) {
    this.vocabSize = vocabSize;
    const words = Array.from({ length: vocabSize }, (_, id) => ({ id, bytes: bytes(id) }))
      .filter((word) => word.bytes.length > 0)
      .sort((a, b) => Buffer.compare(a.bytes, b.bytes));
    this.#byLength = words
      .map(({ id, bytes: b }) => ({ id, length: b.length }))
      .sort((a, b) => b.length - a.length);
    const first: number[] = [-1];
    const sibling: number[] = [-1];
    const byte: number[] = [0];
    const ends: number[][] = [[]];
    const path = [0]; // nodes along the word before
    let before: Uint8Array = new Uint8Array(0);
    for (const word of words) {
      let shared = 0;
      while (shared < before.length && shared < word.bytes.length && before[shared] === word.bytes[shared])
        shared++;
      for (let depth = shared; depth < word.bytes.length; depth++) {
        const node = first.length;
        first.push(-1);
        sibling.push(-1);
        byte.push(word.bytes[depth]!);
        ends.push([]);
        const older = path[depth + 1];
        if (depth === shared && older !== undefined && depth < before.length) sibling[older] = node;
        else first[path[depth]!] = node;
        path[depth + 1] = node;
        path.length = depth + 2;
      }
      path.length = word.bytes.length + 1;
      ends[path.at(-1)!]!.push(word.id);
      before = word.bytes;
    }
    this.firstChild = Int32Array.from(first);
    this.sibling = Int32Array.from(sibling);
    this.byte = Uint8Array.from(byte);
    this.tokensAt = new Int32Array(ends.length + 1);
    ends.forEach((list, node) => {
      this.tokensAt[node + 1] = this.tokensAt[node]! + list.length;
    });
    this.tokens = Int32Array.from(ends.flat());
  }

  /** The tokens of more than so many bytes. */
  longerThan(bytes: number): readonly number[] {
    let found = this.#longer.get(bytes);
    if (!found) {
      const end = this.#byLength.findIndex(({ length }) => length <= bytes);
      found = this.#byLength.slice(0, end < 0 ? undefined : end).map(({ id }) => id);
      this.#longer.set(bytes, found);
    }
    return found;
  }
}
