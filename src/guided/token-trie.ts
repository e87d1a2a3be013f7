/**
 * The tokens of a vocabulary by their bytes. Nodes are numbers in the order of the bytes that they stand for, so that what
 * begins with node n's bytes are the nodes from n to `end[n]` and the tokens from `tokensAt[n]` to `tokensAt[end[n]]`.
 * Node 0 is the root.
 */
export class TokenTrie {
  /** [nodes] the first node behind this one's subtree. */
  readonly end: Int32Array;
  /** [nodes] how many bytes the node stands for. */
  readonly depth: Uint16Array;
  /** [nodes] the largest depth in the node's subtree. */
  readonly deepest: Uint16Array;
  /** [nodes] the last byte. */
  readonly byte: Uint8Array;
  /** [nodes + 1] where the tokens of a node begin in `tokens`; they end where the next node's begin. */
  readonly tokensAt: Int32Array;
  readonly tokens: Int32Array;

  /** `bytes(id)`: what token `id` adds to a text; empty, or longer than 65,535: it is not in the trie. */
  constructor(vocabSize: number, bytes: (id: number) => Uint8Array) {
    const words: string[] = [];
    for (let id = 0; id < vocabSize; id++) words.push(latin1(bytes(id)));
    const ids = Int32Array.from(words.keys()).filter((id) => {
      const { length } = words[id]!;
      return length > 0 && length < 1 << 16;
    });
    ids.sort((a, b) => (words[a]! < words[b]! ? -1 : words[a]! > words[b]! ? 1 : a - b));
    let most = 1;
    let before = "";
    for (const id of ids) {
      most += words[id]!.length - sharedLength(before, words[id]!);
      before = words[id]!;
    }
    this.end = new Int32Array(most);
    this.depth = new Uint16Array(most);
    this.deepest = new Uint16Array(most);
    this.byte = new Uint8Array(most);
    this.tokensAt = new Int32Array(most + 1);
    this.tokens = ids;
    const path = [0]; // nodes along the word before
    let nodes = 1;
    const close = (length: number) => {
      while (path.length > length) {
        const node = path.pop()!;
        this.end[node] = nodes;
        this.deepest[node] = Math.max(this.deepest[node]!, this.depth[node]!);
        const parent = path.at(-1);
        if (parent !== undefined) this.deepest[parent] = Math.max(this.deepest[parent]!, this.deepest[node]!);
      }
    };
    before = "";
    for (const [i, id] of ids.entries()) {
      const word = words[id]!;
      const shared = sharedLength(before, word);
      close(shared + 1);
      for (let depth = shared; depth < word.length; depth++) {
        this.byte[nodes] = word.charCodeAt(depth);
        this.depth[nodes] = depth + 1;
        this.tokensAt[nodes] = i;
        path.push(nodes++);
      }
      before = word;
    }
    close(0);
    this.tokensAt[nodes] = ids.length;
  }
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode.apply(null, bytes as unknown as number[]);
}

function sharedLength(a: string, b: string): number {
  let shared = 0;
  while (shared < a.length && shared < b.length && a.charCodeAt(shared) === b.charCodeAt(shared)) shared++;
  return shared;
}
