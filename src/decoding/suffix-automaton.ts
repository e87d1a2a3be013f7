/** The state of the empty string. */
export const ROOT = 0;
const NONE = -1;

/**
 * How far up the suffix links an append carries "seen here last". Ordinary text has shorter chains (SmolLM2 texts:
 * about 3); without a bound a text of one repeated token would cost a walk as long as itself for every token.
 */
const REFRESHED_LINKS = 32;

/**
 * The online suffix automaton of a growing text (Blumer et al. 1985). Every substring of the text leads from `ROOT` to
 * one state; a state stands for substrings that end at the same places. Appending costs amortised constant time and
 * memory: at most two states and three edges a token, in typed arrays that double when they are full.
 */
export class SuffixAutomaton {
  #tokens = new Int32Array(256);
  #size = 0;

  // One entry a state.
  #length = new Int32Array(512);
  #link = new Int32Array(512);
  #firstEdge = new Int32Array(512);
  #lastEnd = new Int32Array(512);
  #states = 0;
  #last = ROOT;

  // One entry an edge; the edges of a state form a list. An edge is found through an open-addressed hash table.
  #edgeFrom = new Int32Array(1024);
  #edgeToken = new Int32Array(1024);
  #edgeTo = new Int32Array(1024);
  #edgeNext = new Int32Array(1024);
  #edges = 0;
  #slots = new Int32Array(2048);

  #match = ROOT;
  #matchEnd = 0;
  #steps = 0;

  constructor() {
    this.clear();
  }

  /** Tokens appended so far. */
  get size(): number {
    return this.#size;
  }

  /** The state of the longest suffix of the text that also ends at an earlier place; `ROOT` if there is none. */
  get match(): number {
    return this.#match;
  }

  /** Where the match's latest earlier occurrence ends: the index of the token after it. */
  get matchEnd(): number {
    return this.#matchEnd;
  }

  /** Elementary operations so far; grows in proportion to `size`. */
  get steps(): number {
    return this.#steps;
  }

  clear(): void {
    this.#size = 0;
    this.#states = 0;
    this.#edges = 0;
    this.#steps = 0;
    this.#slots.fill(NONE);
    this.#last = this.#addState(0, NONE);
    this.#match = ROOT;
    this.#matchEnd = 0;
  }

  tokenAt(position: number): number {
    return this.#tokens[position]!;
  }

  /** The length of the longest substring of the state. */
  lengthOf(state: number): number {
    return this.#length[state]!;
  }

  /** The state of the longest suffix with more occurrences. `state` is not `ROOT`. */
  linkOf(state: number): number {
    return this.#link[state]!;
  }

  /** Where an occurrence of the state's substrings ends, as a rule the latest: the index of the token after it. */
  lastEndOf(state: number): number {
    return this.#lastEnd[state]!;
  }

  /** Whether the text continues the state's substrings in one way only. */
  isUnanimous(state: number): boolean {
    const edge = this.#firstEdge[state]!;
    return edge !== NONE && this.#edgeNext[edge] === NONE;
  }

  /** Whether nothing ever followed the state's substrings: the text ends with them, and only there. */
  isLeaf(state: number): boolean {
    return this.#firstEdge[state]! === NONE;
  }

  /** The tokens that followed the state's substrings, at most as many as fit: the one at `from` first, then the newest. */
  continuations(state: number, from: number, into: { count: number; readonly tokens: Int32Array }): void {
    const { tokens } = into;
    let count = 0;
    const first = from < this.#size ? this.#tokens[from]! : NONE;
    if (first !== NONE) tokens[count++] = first;
    for (
      let edge = this.#firstEdge[state]!;
      edge !== NONE && count < tokens.length;
      edge = this.#edgeNext[edge]!
    )
      if (this.#edgeToken[edge] !== first) tokens[count++] = this.#edgeToken[edge]!;
    into.count = count;
  }

  /** The state of the substring extended by a token; undefined when the text does not contain that. */
  next(state: number, token: number): number | undefined {
    const edge = this.#find(state, token);
    return edge === NONE ? undefined : this.#edgeTo[edge]!;
  }

  append(token: number): void {
    if (this.#size === this.#tokens.length) this.#tokens = grown(this.#tokens);
    this.#tokens[this.#size++] = token;

    const added = this.#addState(this.#size, NONE);
    let state = this.#last;
    let edge = NONE;
    while (state !== NONE) {
      edge = this.#find(state, token);
      if (edge !== NONE) break;
      this.#addEdge(state, token, added);
      state = this.#link[state]!;
    }
    // First the target, then the store: finding it may replace the arrays by grown ones.
    const link = state === NONE ? ROOT : this.#linkTarget(state, token, edge);
    this.#link[added] = link;
    this.#last = added;

    this.#match = this.#link[added]!;
    this.#matchEnd = this.#lastEnd[this.#match]!;
    let seen = added;
    for (let i = 0; i < REFRESHED_LINKS && seen !== ROOT; i++) {
      this.#lastEnd[seen] = this.#size;
      seen = this.#link[seen]!;
      this.#steps++;
    }
  }

  /** The state of exactly the longest substring of `state` and `token`: the edge's end, or a split-off part of it. */
  #linkTarget(state: number, token: number, edge: number): number {
    const target = this.#edgeTo[edge]!;
    const length = this.#length[state]! + 1;
    if (this.#length[target] === length) return target;

    const clone = this.#addState(length, this.#link[target]!);
    this.#lastEnd[clone] = this.#lastEnd[target]!;
    for (let e = this.#firstEdge[target]!; e !== NONE; e = this.#edgeNext[e]!) {
      this.#addEdge(clone, this.#edgeToken[e]!, this.#edgeTo[e]!);
    }
    this.#link[target] = clone;
    let from = state;
    while (from !== NONE) {
      const shared = this.#find(from, token);
      if (shared === NONE || this.#edgeTo[shared] !== target) break;
      this.#edgeTo[shared] = clone;
      from = this.#link[from]!;
    }
    return clone;
  }

  #addState(length: number, link: number): number {
    if (this.#states === this.#length.length) {
      this.#length = grown(this.#length);
      this.#link = grown(this.#link);
      this.#firstEdge = grown(this.#firstEdge);
      this.#lastEnd = grown(this.#lastEnd);
    }
    const state = this.#states++;
    this.#length[state] = length;
    this.#link[state] = link;
    this.#firstEdge[state] = NONE;
    this.#lastEnd[state] = 0;
    return state;
  }

  #addEdge(from: number, token: number, to: number): void {
    if (this.#edges === this.#edgeTo.length) {
      this.#edgeFrom = grown(this.#edgeFrom);
      this.#edgeToken = grown(this.#edgeToken);
      this.#edgeTo = grown(this.#edgeTo);
      this.#edgeNext = grown(this.#edgeNext);
      this.#slots = new Int32Array(2 * this.#edgeTo.length).fill(NONE);
      for (let edge = 0; edge < this.#edges; edge++) this.#enter(edge);
    }
    this.#steps++;
    const edge = this.#edges++;
    this.#edgeFrom[edge] = from;
    this.#edgeToken[edge] = token;
    this.#edgeTo[edge] = to;
    this.#edgeNext[edge] = this.#firstEdge[from]!;
    this.#firstEdge[from] = edge;
    this.#enter(edge);
  }

  #enter(edge: number): void {
    let slot = this.#slot(this.#edgeFrom[edge]!, this.#edgeToken[edge]!);
    while (this.#slots[slot] !== NONE) slot = this.#after(slot);
    this.#slots[slot] = edge;
  }

  #find(state: number, token: number): number {
    for (let slot = this.#slot(state, token); ; slot = this.#after(slot)) {
      this.#steps++;
      const edge = this.#slots[slot]!;
      if (edge === NONE || (this.#edgeFrom[edge] === state && this.#edgeToken[edge] === token)) return edge;
    }
  }

  #slot(state: number, token: number): number {
    let hash = Math.imul(state, 0x9e3779b1) ^ Math.imul(token, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    return (hash ^ (hash >>> 13)) & (this.#slots.length - 1);
  }

  #after(slot: number): number {
    return (slot + 1) & (this.#slots.length - 1);
  }
}

function grown(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(2 * array.length);
  larger.set(array);
  return larger;
}
