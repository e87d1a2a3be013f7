// A grammar over bytes: rules whose right-hand sides are regular expressions that may call rules. It is compiled to one
// network of states (Woods 1970, "Transition network grammars for natural language analysis") that automaton.ts runs.
import { OutriderError } from "../errors.js";

/** The right-hand side of a rule. Text is UTF-8; a byte set matches one byte. */
export type Expression =
  | { readonly kind: "bytes"; readonly ranges: readonly (readonly [number, number])[] }
  | { readonly kind: "sequence"; readonly parts: readonly Expression[] }
  | { readonly kind: "choice"; readonly options: readonly Expression[] }
  /** `most` may be Infinity. */
  | { readonly kind: "repeat"; readonly part: Expression; readonly least: number; readonly most: number }
  | { readonly kind: "rule"; readonly name: string };

export const empty: Expression = { kind: "sequence", parts: [] };
export const sequence = (...parts: Expression[]): Expression =>
  parts.length === 1 ? parts[0]! : { kind: "sequence", parts };
export const choice = (...options: Expression[]): Expression =>
  options.length === 1 ? options[0]! : { kind: "choice", options };
export const repeat = (part: Expression, least: number, most: number): Expression => ({
  kind: "repeat",
  part,
  least,
  most,
});
export const rule = (name: string): Expression => ({ kind: "rule", name });
export const literal = (text: string): Expression =>
  sequence(
    ...Array.from(new TextEncoder().encode(text), (b): Expression => ({ kind: "bytes", ranges: [[b, b]] })),
  );

/** States by number; a rule is the part of the network between its `start` and its `end`. */
export interface Network {
  readonly start: number;
  /** Ranges of bytes and where they lead. */
  readonly edges: readonly (readonly {
    readonly low: number;
    readonly high: number;
    readonly to: number;
  }[])[];
  /** Rules to call, by their first state, and where to go on afterwards. */
  readonly calls: readonly (readonly { readonly start: number; readonly to: number }[])[];
  readonly jumps: readonly (readonly number[])[];
  readonly isEnd: readonly boolean[];
  /**
   * States in the optional part of a bounded repetition: how many repetitions are left, and the state from which there
   * are ever so many. For texts of no more bytes than are left the two are the same.
   */
  readonly counted: ReadonlyMap<number, { readonly left: number; readonly unbounded: number }>;
  /**
   * What is left of the state's rule, as a name that states of other networks have too where the same is left of theirs;
   * undefined where it would be long.
   */
  meaning(state: number): string | undefined;
}

/** What is left of a rule: one thing and then others. */
interface Rest {
  readonly expression: Expression;
  readonly next: Rest | undefined;
}

export const maxStates = 100_000;
const worthCounting = 8;

export function grammarError(what: string): OutriderError {
  return new OutriderError("ERR_GRAMMAR", what);
}

/**
 * Compiles `rules`, beginning with `root`. Throws `ERR_GRAMMAR` for an undefined rule, left recursion, a grammar that
 * no text satisfies, or one of more than 100,000 states.
 */
export function compile(rules: ReadonlyMap<string, Expression>, root: string): Network {
  const edges: { low: number; high: number; to: number }[][] = [];
  const calls: { rule: string; to: number }[][] = [];
  const jumps: number[][] = [];
  const counted = new Map<number, { left: number; unbounded: number }>();
  const rests: (Rest | undefined)[] = [];
  const loopTo = (part: Expression, to: number): number => {
    const rest = { expression: repeat(part, 0, Number.POSITIVE_INFINITY), next: rests[to] };
    const loop = state(rest);
    const back = state(rest);
    build(part, loop, back);
    jumps[back]!.push(loop);
    jumps[loop]!.push(to);
    return loop;
  };
  const state = (rest: Rest | undefined) => {
    if (edges.length >= maxStates)
      throw grammarError(`the grammar has more than ${maxStates} states; shorten its repetitions`);
    calls.push([]);
    jumps.push([]);
    rests.push(rest);
    return edges.push([]) - 1;
  };
  const build = (e: Expression, from: number, to: number): void => {
    switch (e.kind) {
      case "bytes":
        for (const [low, high] of e.ranges) edges[from]!.push({ low, high, to });
        return;
      case "sequence": {
        const after: (Rest | undefined)[] = [];
        for (let i = e.parts.length - 1, rest = rests[to]; i > 0; i--) {
          rest = { expression: e.parts[i]!, next: rest };
          after[i - 1] = rest;
        }
        let at = from;
        e.parts.forEach((part, i) => {
          const next = i === e.parts.length - 1 ? to : state(after[i]);
          build(part, at, next);
          at = next;
        });
        if (e.parts.length === 0) jumps[from]!.push(to);
        return;
      }
      case "choice":
        for (const option of e.options) build(option, from, to);
        return;
      case "repeat": {
        let at = from;
        const after = (i: number) => ({
          expression: repeat(e.part, Math.max(0, e.least - i), e.most - i),
          next: rests[to],
        });
        for (let i = 0; i < e.least; i++) {
          const next = state(after(i + 1));
          build(e.part, at, next);
          at = next;
        }
        if (e.most === Number.POSITIVE_INFINITY) {
          jumps[at]!.push(loopTo(e.part, to));
          return;
        }
        const unbounded = e.most - e.least >= worthCounting ? loopTo(e.part, to) : undefined;
        for (let i = e.least; i < e.most; i++) {
          jumps[at]!.push(to);
          if (unbounded !== undefined) counted.set(at, { left: e.most - i, unbounded });
          const next = state(after(i + 1));
          build(e.part, at, next);
          at = next;
        }
        jumps[at]!.push(to);
        return;
      }
      case "rule":
        if (!rules.has(e.name)) throw grammarError(`the rule "${e.name}" is not defined`);
        calls[from]!.push({ rule: e.name, to });
    }
  };
  const bounds = new Map<string, { start: number; end: number }>();
  for (const [name, body] of rules) {
    const start = state({ expression: body, next: undefined });
    const end = state(undefined);
    bounds.set(name, { start, end });
    build(body, start, end);
  }
  const top = bounds.get(root);
  if (!top) throw grammarError(`the rule "${root}" is not defined`);
  const ruleStarts = [...bounds];
  prune(edges, calls, jumps, bounds, root);
  refuseLeftRecursion(calls, jumps, bounds);
  const isEnd = new Array<boolean>(edges.length).fill(false);
  for (const [, { end }] of ruleStarts) isEnd[end] = true;
  return {
    start: top.start,
    edges,
    calls: calls.map((list) => list.map(({ rule: name, to }) => ({ start: bounds.get(name)!.start, to }))),
    jumps,
    isEnd,
    counted,
    meaning: (s) => {
      let name = "";
      for (let rest = rests[s]; rest; rest = rest.next) {
        name += nameOf(rest.expression, rules);
        if (name.length > longestMeaning) return undefined;
      }
      return name;
    },
  };
}

const longestMeaning = 400;
const longestName = 80;
const names = new WeakMap<Expression, string>();
let unnamed = 0;

/**
 * The same for equal expressions that are short; large ones, and rules, are known by their object. So an expression that
 * calls rules must not be part of grammars in which these are different ones.
 */
function nameOf(e: Expression, rules: ReadonlyMap<string, Expression>): string {
  let name = names.get(e);
  if (name !== undefined) return name;
  const list = (parts: readonly Expression[], mark: string) =>
    parts.map((part) => nameOf(part, rules)).join(mark);
  switch (e.kind) {
    case "bytes":
      name = `[${e.ranges.map((range) => range.join("-")).join()}]`;
      break;
    case "sequence":
      name = `(${list(e.parts, "")})`;
      break;
    case "choice":
      name = `<${list(e.options, "|")}>`;
      break;
    case "repeat":
      name = `${nameOf(e.part, rules)}{${e.least},${e.most}}`;
      break;
    case "rule":
      name = bodyName(rules.get(e.name)!);
  }
  if (name.length > longestName) name = bodyName(e);
  names.set(e, name);
  return name;
}

const bodies = new WeakMap<Expression, string>();

function bodyName(e: Expression): string {
  let name = bodies.get(e);
  if (name === undefined) {
    name = `#${unnamed++}`;
    bodies.set(e, name);
  }
  return name;
}

type Bounds = ReadonlyMap<string, { readonly start: number; readonly end: number }>;

/** Takes away every way that cannot be finished, so that a text on its way can always be completed. */
function prune(
  edges: { low: number; high: number; to: number }[][],
  calls: { rule: string; to: number }[][],
  jumps: number[][],
  bounds: Bounds,
  root: string,
): void {
  const finite = new Set<string>(); // rules that some text satisfies
  const alive = new Uint8Array(edges.length);
  for (const { end } of bounds.values()) alive[end] = 1;
  // Backwards from the ends, again whenever a rule proves finite and its calls become usable.
  const before: { from: number; rule?: string }[][] = edges.map(() => []);
  for (let s = 0; s < edges.length; s++) {
    for (const { to } of edges[s]!) before[to]!.push({ from: s });
    for (const to of jumps[s]!) before[to]!.push({ from: s });
    for (const call of calls[s]!) before[call.to]!.push({ from: s, rule: call.rule });
  }
  const ruleOf = new Map([...bounds].map(([name, { start }]) => [start, name]));
  const waiting = new Map<string, number[]>(); // states that live as soon as the rule is finite
  const queue = [...bounds.values()].map(({ end }) => end);
  const revive = (s: number) => {
    if (alive[s]) return;
    alive[s] = 1;
    queue.push(s);
  };
  const settle = (s: number) => {
    const name = ruleOf.get(s);
    if (name === undefined || finite.has(name)) return;
    finite.add(name);
    for (const from of waiting.get(name) ?? []) revive(from);
  };
  while (queue.length > 0) {
    const s = queue.pop()!;
    settle(s);
    for (const { from, rule: name } of before[s]!) {
      if (name === undefined || finite.has(name)) revive(from);
      else waiting.set(name, [...(waiting.get(name) ?? []), from]);
    }
  }
  if (!finite.has(root)) throw grammarError("no text satisfies it");
  for (let s = 0; s < edges.length; s++) {
    edges[s] = edges[s]!.filter(({ to }) => alive[to]);
    jumps[s] = jumps[s]!.filter((to) => alive[to]);
    calls[s] = calls[s]!.filter(({ rule: name, to }) => alive[to] && finite.has(name));
  }
}

function refuseLeftRecursion(
  calls: readonly (readonly { rule: string; to: number }[])[],
  jumps: readonly (readonly number[])[],
  bounds: Bounds,
): void {
  const nullable = new Set<string>();
  /** Rules called before any byte is consumed; whether the rule's end is reached so. */
  const firstCalls = (name: string) => {
    const { start, end } = bounds.get(name)!;
    const seen = new Set([start]);
    const stack = [start];
    const called = new Set<string>();
    while (stack.length > 0) {
      const s = stack.pop()!;
      const next = [...jumps[s]!];
      for (const call of calls[s]!) {
        called.add(call.rule);
        if (nullable.has(call.rule)) next.push(call.to);
      }
      for (const to of next)
        if (!seen.has(to)) {
          seen.add(to);
          stack.push(to);
        }
    }
    return { called, isNullable: seen.has(end) };
  };
  for (let before = -1; before !== nullable.size; ) {
    before = nullable.size;
    for (const name of bounds.keys()) if (firstCalls(name).isNullable) nullable.add(name);
  }
  const first = new Map([...bounds.keys()].map((name) => [name, [...firstCalls(name).called]]));
  const done = new Set<string>();
  for (const root of first.keys()) {
    const path: { name: string; next: number }[] = [{ name: root, next: 0 }];
    const open = new Set([root]);
    while (path.length > 0) {
      const here = path.at(-1)!;
      const next = first.get(here.name)![here.next++];
      if (next === undefined) {
        done.add(here.name);
        open.delete(here.name);
        path.pop();
      } else if (open.has(next)) throw grammarError(`the rule "${next}" begins with itself (left recursion)`);
      else if (!done.has(next)) {
        open.add(next);
        path.push({ name: next, next: 0 });
      }
    }
  }
}
