import { blockSize } from "../runtime/kv-cache.js";
import type { BlockPool } from "./block-table.js";

/** Beside a position so far back, attention costs about as much as all of the model's products. */
const EQUAL_POSITION = 4096;

interface Node {
  readonly parent: Node | undefined;
  /** Token ids of the block's positions; fewer than `blockSize` only in a leaf. */
  tokens: readonly number[];
  block: number;
  /** By their first token. */
  readonly children: Map<number, Node[]>;
  /** Blocks before this one. */
  readonly depth: number;
  /** Texts that left or found this block. */
  uses: number;
  priority: number;
}

/**
 * The cached positions of finished texts: a radix tree over token ids, an edge a block of the key/value cache (as in
 * SGLang's RadixAttention, Zheng et al. 2024). The tree has one use of each of its blocks; whoever finds a prefix gets
 * uses of its own, so a block is never taken from an open sequence.
 *
 * What is evicted is predicted to be missed least: GreedyDual-Size-Frequency (Cherkasova 1998), where a block's worth is
 * its number of uses times the cost of computing it again, over a clock that rises with every eviction, so that old fame
 * fades. Only leaves go, since a block is of no use without those before it.
 */
export class PrefixTree {
  readonly #blocks: BlockPool;
  readonly #most: number;
  readonly #root: Node;
  readonly #nodes = new Set<Node>();
  #clock = 0;

  /** `most`: blocks that the tree may hold while nobody else uses them. */
  constructor(blocks: BlockPool, most: number) {
    this.#blocks = blocks;
    this.#most = most;
    this.#root = newNode(undefined, [], -1, -1);
  }

  /** Blocks of the tree. */
  get size(): number {
    return this.#nodes.size;
  }

  /** Blocks of the tree that no open sequence uses: eviction can free them all. */
  get evictable(): number {
    let count = 0;
    for (const { block } of this.#nodes) if (!this.#blocks.isShared(block)) count++;
    return count;
  }

  /** The longest known prefix of at most `most` tokens: its length, and its blocks with a use of each for the caller. */
  find(tokens: readonly number[], most: number): { readonly length: number; readonly table: number[] } {
    const table: number[] = [];
    let length = 0;
    let node = this.#root;
    while (length < most) {
      let best: Node | undefined;
      let matched = 0;
      for (const child of node.children.get(tokens[length]!) ?? []) {
        const same = commonPrefix(child.tokens, tokens, length, most);
        if (same > matched) [best, matched] = [child, same];
      }
      if (best === undefined) break;
      this.#use(best);
      this.#blocks.share(best.block);
      table.push(best.block);
      length += matched;
      if (matched < blockSize) break;
      node = best;
    }
    return { length, table };
  }

  /**
   * Takes over a finished text's blocks, with the caller's use of each. Blocks of known positions are freed. Others make
   * room for it, however famous: a conversation that goes on at once finds all of itself.
   */
  insert(tokens: readonly number[], table: readonly number[]): void {
    let node = this.#root;
    const path = new Set<Node>();
    for (const [i, block] of table.entries()) {
      const own = tokens.slice(i * blockSize, (i + 1) * blockSize);
      const siblings = node.children.get(own[0]!) ?? [];
      const known = siblings.find((child) => {
        const same = commonPrefix(child.tokens, own, 0, own.length);
        return same === child.tokens.length || same === own.length;
      });
      if (known === undefined) {
        const child = newNode(node, own, block, i);
        node.children.set(own[0]!, [...siblings, child]);
        this.#nodes.add(child);
        node = child;
      } else {
        // The same positions, perhaps fewer of them: the same bits in every block.
        const longer = own.length > known.tokens.length;
        this.#blocks.release(longer ? known.block : block);
        if (longer) [known.block, known.tokens] = [block, own];
        node = known;
      }
      path.add(node);
    }
    this.evict(this.evictable - this.#most, path);
    for (const own of path) this.#use(own);
    this.evict(this.evictable - this.#most);
  }

  /** Frees so many blocks, or as many as it can without those spared. */
  evict(count: number, spared: ReadonlySet<Node> = new Set()): void {
    for (; count > 0; count--) {
      let worst: Node | undefined;
      for (const node of this.#nodes)
        if (
          node.children.size === 0 &&
          (worst === undefined || node.priority < worst.priority) &&
          !this.#blocks.isShared(node.block) &&
          !spared.has(node)
        )
          worst = node;
      if (worst === undefined) return;
      this.#remove(worst);
    }
  }

  clear(): void {
    // The last first: what is released last is taken next, and a text reads fastest whose blocks follow each other.
    for (const { block } of [...this.#nodes].reverse()) this.#blocks.release(block);
    this.#nodes.clear();
    this.#root.children.clear();
  }

  #use(node: Node): void {
    node.uses++;
    node.priority = this.#clock + node.uses * (1 + (node.depth * blockSize) / EQUAL_POSITION);
  }

  #remove(node: Node): void {
    const key = node.tokens[0]!;
    const siblings = node.parent!.children;
    const others = siblings.get(key)!.filter((child) => child !== node);
    if (others.length > 0) siblings.set(key, others);
    else siblings.delete(key);
    this.#nodes.delete(node);
    this.#blocks.release(node.block);
    this.#clock = Math.max(this.#clock, node.priority);
  }
}

function newNode(parent: Node | undefined, tokens: readonly number[], block: number, depth: number): Node {
  return { parent, tokens, block, children: new Map(), depth, uses: 0, priority: 0 };
}

/** How many of a block's tokens stand in `text` from `from` on, before `to`. */
function commonPrefix(block: readonly number[], text: readonly number[], from: number, to: number): number {
  const most = Math.min(block.length, to - from);
  let n = 0;
  while (n < most && block[n] === text[from + n]) n++;
  return n;
}
