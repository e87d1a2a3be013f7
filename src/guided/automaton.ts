// Runs a network over bytes: the states it may be in after some text, with the calls to return to, are a configuration.
// Equal configurations are one object, so that what is computed of one (its next configurations, its token mask) is
// computed once. This is a pushdown automaton made deterministic as it runs.
import { grammarError, maxStates, type Network } from "./grammar.js";

/** A state and where to return to when its rule ends. Equal frames are one object. */
export interface Frame {
  readonly id: number;
  readonly state: number;
  readonly caller: Frame | undefined;
}

export interface Configuration {
  /** Frames whose states have edges. */
  readonly frames: readonly Frame[];
  /** The text may end here. */
  readonly isComplete: boolean;
  /** By class of byte: the next one, undefined while it is not known, null where the byte may not follow. */
  readonly next: (Configuration | null | undefined)[];
}

// A text for which a grammar has more than so many readings at once cannot be followed at a bounded cost.
const maxFrames = 2000;
// With their ways on some 30 MB; a text of a thousand tokens leaves a tenth.
const maxConfigurations = 50_000;

export class Automaton {
  readonly #network: Network;
  /** [256] bytes that no edge tells apart are of one class. */
  readonly #classOf = new Uint8Array(256);
  readonly #frames = new Map<number, Frame>();
  readonly #configurations = new Map<string, Configuration>();
  #serial = 0;

  constructor(network: Network) {
    this.#network = network;
    const begins = new Uint8Array(257);
    for (const edges of network.edges)
      for (const { low, high } of edges) {
        begins[low] = 1;
        begins[high + 1] = 1;
      }
    for (let byte = 1; byte < 256; byte++) this.#classOf[byte] = this.#classOf[byte - 1]! + begins[byte]!;
  }

  get start(): Configuration {
    return this.configuration([this.frame(this.#network.start, undefined)]);
  }

  frame(state: number, caller: Frame | undefined): Frame {
    const key = ((caller?.id ?? -1) + 1) * maxStates + state;
    let frame = this.#frames.get(key);
    if (!frame) {
      frame = { id: this.#serial++, state, caller };
      this.#frames.set(key, frame);
    }
    return frame;
  }

  /** The configuration after `seeds`: everything that is reached from them without a byte. */
  configuration(seeds: readonly Frame[]): Configuration {
    const { edges, calls, jumps, isEnd } = this.#network;
    const seen = new Set<Frame>(seeds);
    const stack = [...seeds];
    const frames: Frame[] = [];
    let isComplete = false;
    const push = (frame: Frame) => {
      if (seen.has(frame)) return;
      seen.add(frame);
      stack.push(frame);
    };
    while (stack.length > 0) {
      const frame = stack.pop()!;
      const { state, caller } = frame;
      if (edges[state]!.length > 0) frames.push(frame);
      for (const to of jumps[state]!) push(this.frame(to, caller));
      for (const { start, to } of calls[state]!) {
        // A call that has nothing left to do behind it is not returned to: lists do not grow with their length.
        push(this.frame(start, isEnd[to] ? caller : this.frame(to, caller)));
      }
      if (isEnd[state]) {
        if (caller) push(caller);
        else isComplete = true;
      }
    }
    if (seen.size > maxFrames)
      throw grammarError(`the grammar is too ambiguous: more than ${maxFrames} readings of the text at once`);
    frames.sort((a, b) => a.id - b.id);
    const key = `${isComplete ? 1 : 0}:${frames.map((f) => f.id).join()}`;
    let found = this.#configurations.get(key);
    if (!found) {
      if (this.#configurations.size >= maxConfigurations) this.#forget();
      found = { frames, isComplete, next: [] };
      this.#configurations.set(key, found);
    }
    return found;
  }

  /** After one more byte; undefined where the byte may not follow. */
  step(from: Configuration, byte: number): Configuration | undefined {
    const known = from.next[this.#classOf[byte]!];
    if (known !== undefined) return known ?? undefined;
    const seeds: Frame[] = [];
    for (const { state, caller } of from.frames)
      for (const edge of this.#network.edges[state]!)
        if (byte >= edge.low && byte <= edge.high) seeds.push(this.frame(edge.to, caller));
    const to = seeds.length === 0 ? undefined : this.configuration(seeds);
    from.next[this.#classOf[byte]!] = to ?? null;
    return to;
  }

  /** Equal configurations from before and from now on are two objects; that costs time, no more. */
  #forget(): void {
    for (const { next } of this.#configurations.values()) next.length = 0;
    this.#configurations.clear();
    this.#frames.clear();
  }

  /** The bytes that may follow one by one, not as part of a range. */
  singleBytes(from: Configuration): number[] {
    const bytes = new Set<number>();
    for (const { state } of from.frames)
      for (const { low, high } of this.#network.edges[state]!) if (low === high) bytes.add(low);
    return [...bytes];
  }

  /** The only byte that may follow, if there is just one and the text may not end here. */
  forcedByte(from: Configuration): number | undefined {
    if (from.isComplete) return undefined;
    let forced: number | undefined;
    for (const { state } of from.frames)
      for (const { low, high } of this.#network.edges[state]!) {
        if (low !== high || (forced !== undefined && forced !== low)) return undefined;
        forced = low;
      }
    return forced;
  }
}
