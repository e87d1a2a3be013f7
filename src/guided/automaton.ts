// Runs a network over bytes: the states it may be in after some text, with the calls to return to, are a configuration.
// Equal configurations are one object, so that what is computed of one (its next configurations, its token mask) is
// computed once. This is a pushdown automaton made deterministic as it runs.
import { grammarError, type Network } from "./grammar.js";

/** A state and where to return to when its rule ends. Equal frames are one object. */
export interface Frame {
  readonly id: number;
  readonly state: number;
  readonly caller: Frame | undefined;
}

export interface Configuration {
  readonly id: number;
  /** Frames whose states have edges. */
  readonly frames: readonly Frame[];
  /** The text may end here. */
  readonly isComplete: boolean;
  /** By byte, as far as known. */
  readonly next: Map<number, Configuration | undefined>;
}

// A text for which a grammar has more than so many readings at once cannot be followed at a bounded cost.
const maxFrames = 2000;

export class Automaton {
  readonly #network: Network;
  readonly #frames = new Map<string, Frame>();
  readonly #configurations = new Map<string, Configuration>();

  constructor(network: Network) {
    this.#network = network;
  }

  get start(): Configuration {
    return this.configuration([this.frame(this.#network.start, undefined)]);
  }

  frame(state: number, caller: Frame | undefined): Frame {
    const key = `${state},${caller?.id ?? -1}`;
    let frame = this.#frames.get(key);
    if (!frame) {
      frame = { id: this.#frames.size, state, caller };
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
      found = { id: this.#configurations.size, frames, isComplete, next: new Map() };
      this.#configurations.set(key, found);
    }
    return found;
  }

  /** After one more byte; undefined where the byte may not follow. */
  step(from: Configuration, byte: number): Configuration | undefined {
    const { next } = from;
    if (next.has(byte)) return next.get(byte);
    const seeds: Frame[] = [];
    for (const { state, caller } of from.frames)
      for (const edge of this.#network.edges[state]!)
        if (byte >= edge.low && byte <= edge.high) seeds.push(this.frame(edge.to, caller));
    const to = seeds.length === 0 ? undefined : this.configuration(seeds);
    next.set(byte, to);
    return to;
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
