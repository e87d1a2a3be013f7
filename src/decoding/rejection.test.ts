import { describe, expect, test } from "vitest";
import { type DrawnPass, verifyBlock, verifyByRejection } from "./rejection.js";

const VOCAB = 5;
const LENGTH = 3;
const RUNS = 60_000;

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A toy language model: a table of logits by the tokens so far, at a temperature. */
function toyModel(seed: number, temperature: number): (text: readonly number[]) => Float64Array {
  return (text) => {
    const uniform = random(text.reduce((h, token) => Math.imul(h ^ (token + 1), 0x9e3779b1), seed));
    const logits = Array.from({ length: VOCAB }, () => (4 * uniform()) / temperature);
    const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
    return Float64Array.from(logits, (logit) => Math.exp(logit) / sum);
  };
}

function pickFrom(p: Float64Array, uniform: number): number {
  let left = uniform;
  for (let token = 0; token < VOCAB - 1; token++) {
    left -= p[token]!;
    if (left < 0) return token;
  }
  return VOCAB - 1;
}

type Shape = "drawn chain" | "fixed chain" | "fixed tree" | "drawn siblings";

/** Draws `LENGTH` tokens, pass by pass, and counts the drafts that were accepted. */
function sample(
  p: (text: readonly number[]) => Float64Array,
  q: (text: readonly number[]) => Float64Array,
  shape: Shape,
  uniform: () => number,
  verify: typeof verifyByRejection,
): { text: number[]; accepted: number } {
  const text: number[] = [];
  let accepted = 0;
  while (text.length < LENGTH) {
    const tokens = [0];
    const parents = [-1];
    const paths: number[][] = [[...text]];
    const proposals: (Float64Array | undefined)[] = [undefined];
    const add = (parent: number, token: number, proposal?: Float64Array) => {
      tokens.push(token);
      parents.push(parent);
      paths.push([...paths[parent]!, token]);
      proposals.push(proposal);
      return tokens.length - 1;
    };
    if (shape === "fixed tree") {
      for (const token of [1, 3]) {
        const child = add(0, token);
        add(child, 2);
        add(child, 4);
      }
    } else if (shape === "drawn siblings") {
      for (let i = 0; i < 3; i++) add(0, pickFrom(q(text), uniform()), q(text));
    } else {
      for (let parent = 0; parent < 2; ) {
        const proposal = q(paths[parent]!);
        parent =
          shape === "fixed chain"
            ? add(parent, parent + 1)
            : add(parent, pickFrom(proposal, uniform()), proposal);
      }
    }
    const pass: DrawnPass = {
      tokens,
      parents,
      probabilities: (row) => p(paths[row]!),
      proposal: (node) => proposals[node],
      uniform,
    };
    const { tokens: emitted, path } = verify(pass, new Set());
    expect(path.length).toBe(emitted.length);
    accepted += path.length - 1;
    text.push(...emitted);
  }
  return { text: text.slice(0, LENGTH), accepted };
}

/** Pearson's statistic over all texts of `LENGTH` tokens, in standard deviations above its mean. */
function deviation(counts: Map<string, number>, p: (text: readonly number[]) => Float64Array): number {
  let statistic = 0;
  let cells = -1;
  const visit = (text: number[], probability: number) => {
    if (text.length < LENGTH) {
      const next = p(text);
      for (let token = 0; token < VOCAB; token++) visit([...text, token], probability * next[token]!);
      return;
    }
    const expected = RUNS * probability;
    if (expected < 5) return;
    cells++;
    statistic += ((counts.get(text.join()) ?? 0) - expected) ** 2 / expected;
  };
  visit([], 1);
  return (statistic - cells) / Math.sqrt(2 * cells);
}

function run(shape: Shape, temperature: number, verify: typeof verifyByRejection, width = VOCAB) {
  const p = toyModel(11, temperature);
  const draft = toyModel(77, 2 * temperature);
  const q = (text: readonly number[]) => {
    const narrow = draft(text).slice(0, width);
    const sum = narrow.reduce((total, x) => total + x, 0);
    return narrow.map((x) => x / sum);
  };
  const uniform = random(5);
  const counts = new Map<string, number>();
  let accepted = 0;
  for (let i = 0; i < RUNS; i++) {
    const result = sample(p, q, shape, uniform, verify);
    const key = result.text.join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
    accepted += result.accepted;
  }
  return { deviation: deviation(counts, p), accepted: accepted / RUNS };
}

const shapes: Shape[] = ["drawn chain", "fixed chain", "fixed tree", "drawn siblings"];

describe.each([0.5, 1, 2])("temperature %d", (temperature) => {
  test.each(shapes)("texts are distributed as the model's own: %s", (shape) => {
    expect(run(shape, temperature, verifyByRejection).deviation).toBeLessThan(4);
  });

  test("block verification too, and it accepts no less", () => {
    const block = run("drawn chain", temperature, verifyBlock);
    expect(block.deviation).toBeLessThan(4);
    expect(block.accepted).toBeGreaterThan(
      run("drawn chain", temperature, verifyByRejection).accepted - 0.01,
    );
    expect(run("fixed chain", temperature, verifyBlock).deviation).toBeLessThan(4);
  });
});

test.each([verifyByRejection, verifyBlock])("a draft model may know fewer tokens: %o", (verify) => {
  expect(run("drawn chain", 1, verify, VOCAB - 1).deviation).toBeLessThan(4);
});

test("a verifier that takes the child with the best chance first is noticed", () => {
  const greedyFirst: typeof verifyByRejection = (pass, endIds) => {
    const p = pass.probabilities(0);
    const best = [...pass.tokens.keys()]
      .slice(1)
      .sort((a, b) => p[pass.tokens[b]!]! - p[pass.tokens[a]!]!)[0]!;
    return pass.uniform() < 1.3 * p[pass.tokens[best]!]! && pass.parents[best] === 0
      ? { tokens: [pass.tokens[best]!], path: [0] }
      : verifyByRejection(pass, endIds);
  };
  expect(run("fixed tree", 1, greedyFirst).deviation).toBeGreaterThan(10);
});

test("an end token inside the draft ends the text", () => {
  const pass: DrawnPass = {
    tokens: [0, 1, 2],
    parents: [-1, 0, 1],
    probabilities: (row) => Float64Array.from({ length: VOCAB }, (_, t) => (t === row + 1 ? 1 : 0)),
    uniform: () => 0.5,
  };
  for (const verify of [verifyByRejection, verifyBlock]) {
    expect(verify(pass, new Set([1]))).toEqual({ tokens: [1], path: [0] });
    expect(verify(pass, new Set())).toEqual({ tokens: [1, 2, 3], path: [0, 1, 2] });
  }
});
