// Exactness, end to end: token ids and the bits of their log-probabilities do not depend on how a text was computed.
//   OUTRIDER_EXACT_CASES=5000 npx vitest run test/exact.test.ts     more cases (npm run test:exact)
//   OUTRIDER_EXACT_FIRST=137 OUTRIDER_EXACT_CASES=1 npx vitest run test/exact.test.ts     one case again
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { CostModel } from "../src/decoding/cost-model.js";
import { decode } from "../src/decoding/decode.js";
import type { Drafter } from "../src/decoding/drafter.js";
import { fixedLength } from "../src/decoding/plan.js";
import { type OpenStrategy, openStrategy, type Strategy } from "../src/decoding/strategies.js";
import type { Engine, EngineOptions } from "../src/engine/engine.js";
import {
  firstCode,
  nextCode,
  resolveSampling,
  type Sampling,
  type SamplingOptions,
} from "../src/engine/sampling.js";
import type { Sequence } from "../src/engine/sequence.js";
import { architectures } from "../src/models/architectures.js";
import type { InstructionSet } from "../src/runtime/core.js";
import { coreInfo } from "../src/runtime/native.js";
import type { Quantization } from "../src/weights/quantise.js";
import { embeddedGoldens, embeddedModel, goldenFolder, goldenModel, loadEngine } from "./support/engines.js";
import { describeGguf, type Tensor, writeGguf } from "./support/gguf-writer.js";
import { Seeded } from "./support/seeded.js";

const numCases = Number(process.env.OUTRIDER_EXACT_CASES ?? 200);
const firstCase = Number(process.env.OUTRIDER_EXACT_FIRST ?? 0);
const longest = 24;
const top = 3;

interface Model {
  readonly name: string;
  readonly file: string;
  readonly vocab: number;
  readonly context: number;
  readonly quantize?: Quantization | undefined;
  readonly prompts: readonly (readonly number[])[];
}

const goldenPrompts = readFileSync(embeddedGoldens, "utf8")
  .trimEnd()
  .split("\n")
  .map((line): number[] => JSON.parse(line).prompt_tokens);
const embedded: Model = {
  name: "embedded",
  file: embeddedModel,
  vocab: 49152,
  context: 256,
  // Ends of blocks of 16 positions, and all but ends.
  prompts: [20, 32, 49, 64, 95, 114].map((length, i) => goldenPrompts[14 - i]!.slice(0, length)),
};
const weightGoldens = readdirSync(goldenFolder)
  .filter((file) => /^quant-.*\.gguf$/.test(file))
  .map((file) => file.slice(0, -".gguf".length));
// Random weights of every architecture, as they are or in blocks where their widths allow that, and of every weight type:
// cheap enough for the scalar operators.
const small = [
  "llama-gqa-untied",
  "qwen2",
  "qwen3",
  "qwen3moe",
  "llama-moe",
  "gemma2",
  "gemma3-linear",
  "phi3-longrope",
  "granite",
  "olmo2",
  "gpt2",
  "starcoder2",
  "smollm3",
  "cohere2",
  "qwen2 q8_0",
  "qwen3moe q4_1",
  "qwen3moe q8_0",
  "llama-moe q8_0",
  "gemma3 q4_1",
  "phi3 q8_0",
  "granite q8_0",
  "olmo2 q8_0",
  "gpt2 q4_1",
  "starcoder2 q8_0",
  "smollm3 q8_0",
  "cohere2 q8_0",
  ...weightGoldens,
].map((name, i): Model => {
  const random = new Seeded(i);
  const [file, quantize] = name.split(" ") as [string, Quantization | undefined];
  const context = file === "gpt2" ? 128 : 256;
  const prompts = [20, 47, 64, context - 32].map((n) =>
    Array.from({ length: n }, () => random.integer(0, 279)),
  );
  return { name, file: goldenModel(file), vocab: 280, context, quantize, prompts };
});

const samplings: readonly SamplingOptions[] = [
  {},
  { repetitionPenalty: 1.3, logitBias: { 30: -100, 198: 2 } },
  { temperature: 0.8, seed: 1 },
  { temperature: 1, topK: 40, seed: 2 ** 53 - 1 },
  { temperature: 1.3, topP: 0.9, seed: 3 },
  { temperature: 0.7, minP: 0.05, presencePenalty: 0.5, seed: 4 },
  { temperature: 1, topK: 20, topP: 0.8, minP: 0.02, frequencyPenalty: 0.4, repetitionPenalty: 1.1, seed: 5 },
  { temperature: 0.9, code: 0.37, seed: 6 },
  { temperature: 1.2, topP: 0.9, code: 0.7, repetitionPenalty: 1.1, seed: 7 },
];

/** What a user can see of a text: three arrays of one number a token, or of `top`. */
interface Text {
  readonly tokens: readonly number[];
  readonly logprobs: Float32Array;
  readonly topTokens: Int32Array;
  readonly topLogprobs: Float32Array;
}

interface Steps {
  readonly tokens: number[];
  readonly logprobs: number[];
  readonly topTokens: number[];
  readonly topLogprobs: number[];
}
const noSteps = (): Steps => ({ tokens: [], logprobs: [], topTokens: [], topLogprobs: [] });
const text = (steps: Steps, count: number): Text => ({
  tokens: steps.tokens.slice(0, count),
  logprobs: Float32Array.from(steps.logprobs.slice(0, count)),
  topTokens: Int32Array.from(steps.topTokens.slice(0, count * top)),
  topLogprobs: Float32Array.from(steps.topLogprobs.slice(0, count * top)),
});

/** The first thing that differs, bit for bit; undefined where nothing does. */
function difference(expected: Text, found: Text): string | undefined {
  const bits = (numbers: Float32Array) => new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);
  const lists: [string, ArrayLike<number>, ArrayLike<number>][] = [
    ["token", expected.tokens, found.tokens],
    ["log-probability bits", bits(expected.logprobs), bits(found.logprobs)],
    ["best token", expected.topTokens, found.topTokens],
    ["best log-probability bits", bits(expected.topLogprobs), bits(found.topLogprobs)],
  ];
  for (const [what, a, b] of lists) {
    if (a.length !== b.length) return `${a.length} and ${b.length} times ${what}`;
    for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return `${what} ${i}: ${a[i]} and ${b[i]}`;
  }
  return undefined;
}

const engines = new Map<string, Promise<Engine>>();
afterAll(async () => {
  for (const engine of engines.values()) await (await engine)[Symbol.asyncDispose]();
});

function engineOf(model: Model, options: EngineOptions): Promise<Engine> {
  const key = JSON.stringify([model.name, options]);
  let engine = engines.get(key);
  if (!engine) {
    engine = loadEngine(model.file, { context: model.context, ...options }, model.quantize);
    engines.set(key, engine);
  }
  return engine;
}

const references = new Map<string, Promise<Steps>>();

/** One token at a time in a fresh cache, the best operators of this processor, the whole prompt in one pass. */
function reference(model: Model, prompt: number, sampling: number): Promise<Steps> {
  const key = [model.name, prompt, sampling].join();
  let made = references.get(key);
  if (!made) {
    made = plainText(model, model.prompts[prompt]!, samplingOf(model, prompt, sampling));
    references.set(key, made);
  }
  return made;
}

async function plainText(model: Model, prompt: readonly number[], sampling: Sampling): Promise<Steps> {
  const engine = await engineOf(model, { threads: 2 });
  engine.forget();
  using sequence = engine.open();
  await sequence.prefill(prompt.slice(0, -1));
  const steps = noSteps();
  let code = firstCode(sampling);
  for (let last = prompt.at(-1)!; steps.tokens.length < longest; last = steps.tokens.at(-1)!) {
    const { picks, logprobs, topTokens, topLogprobs, codes } = await sequence.step([last], {
      sampling,
      code,
      top,
    });
    sequence.keep([0]);
    code = nextCode(codes, 0);
    steps.tokens.push(...picks);
    steps.logprobs.push(...logprobs);
    steps.topTokens.push(...topTokens);
    steps.topLogprobs.push(...topLogprobs);
  }
  return steps;
}

function samplingOf(model: Model, prompt: number, sampling: number): Sampling {
  return resolveSampling(samplings[sampling]!, model.vocab, model.prompts[prompt]!.length);
}

const drafts = [
  ...[
    "none",
    "lookup",
    "ngram",
    "recycle",
    "lookahead",
    "jacobi",
    "gauss-seidel",
    "self",
    "layer-parallel",
    "draft-model",
    "auto",
  ],
  ...["chain", "tree"],
] as const;
const pasts = ["fresh", "prefix", "fork", "forked from", "truncated"] as const;

interface Case {
  readonly model: Model;
  readonly prompt: number;
  readonly sampling: number;
  readonly count: number;
  readonly engine: Required<Pick<EngineOptions, "threads" | "prefillChunk" | "instructionSet">>;
  readonly past: (typeof pasts)[number];
  /** Another text is being written in the same cache meanwhile. */
  readonly company: boolean;
  readonly draft: (typeof drafts)[number];
  /** Tokens to draft, for strategies undefined: as many as pay. */
  readonly draftLength: number | undefined;
  /** How many of a known continuation's tokens are drafted wrongly. */
  readonly wrong: number;
}

const sets = coreInfo().instructionSets as InstructionSet[];
const fast = sets.filter((set) => set !== "scalar");

function randomCase(random: Seeded, model = random.chance(0.7) ? embedded : random.pick(small)): Case {
  const draft = random.pick(drafts);
  const known = draft === "chain" || draft === "tree";
  const engine =
    model === embedded
      ? // A few engines, since each holds 100 MB; the scalar operators take 0.1 s a token.
        random.chance(0.01) || fast.length === 0
        ? { threads: 2, prefillChunk: 64, instructionSet: "scalar" as const }
        : random.pick([
            { threads: 2, prefillChunk: 512, instructionSet: fast[0]! },
            { threads: 1, prefillChunk: 7, instructionSet: fast[0]! },
            { threads: 2, prefillChunk: 64, instructionSet: fast.at(-1)! },
            { threads: 1, prefillChunk: 1, instructionSet: fast.at(-1)! },
          ])
      : {
          threads: random.integer(1, 3),
          prefillChunk: random.pick([1, 7, 64, 512]),
          instructionSet: random.pick(sets),
        };
  const slow = model === embedded && engine.instructionSet === "scalar";
  return {
    model,
    prompt: slow ? 0 : random.integer(0, model.prompts.length - 1),
    sampling: random.integer(0, samplings.length - 1),
    count: slow ? 6 : random.integer(8, longest),
    engine,
    past: slow ? "fresh" : random.pick(pasts),
    company: !slow && random.chance(0.2),
    draft,
    draftLength: known ? random.integer(1, draft === "tree" ? 20 : 12) : random.pick([undefined, 1, 3, 8]),
    wrong: random.pick([0, 0, 0.2, 0.5, 1]),
  };
}

/** Knows how the text goes on, and drafts it with mistakes: a chain, or a tree with several roots and twins. */
function knowing(continuation: readonly number[], c: Case, random: Seeded): Drafter {
  let emitted = 0;
  return {
    name: "knowing",
    reset() {},
    accept(tokens) {
      emitted += tokens.length;
    },
    propose(limit) {
      const tokens: number[] = [];
      const parents: number[] = [];
      const depths: number[] = [];
      while (tokens.length < Math.min(limit, c.draftLength!)) {
        const parent = c.draft === "chain" ? tokens.length - 1 : random.integer(-1, tokens.length - 1);
        const depth = parent < 0 ? 0 : depths[parent]! + 1;
        const right = random.chance(c.wrong) ? undefined : continuation[emitted + depth];
        tokens.push(right ?? random.integer(0, c.model.vocab - 1));
        parents.push(parent);
        depths.push(depth);
      }
      return { tokens, parents, probabilities: tokens.map(() => 1) };
    },
    [Symbol.dispose]() {},
  };
}

const costs = new Map<Engine, CostModel>();

async function openDraft(
  c: Case,
  engine: Engine,
  continuation: readonly number[],
  random: Seeded,
): Promise<OpenStrategy> {
  if (c.draft === "chain" || c.draft === "tree") {
    const drafter = knowing(continuation, c, random);
    return { drafter, planner: fixedLength(c.draftLength!), [Symbol.dispose]() {} };
  }
  if (!costs.has(engine)) costs.set(engine, new CostModel(64));
  // The small models draft for themselves with exact activations, so that they are often wrong.
  const draftEngine =
    c.draft !== "draft-model" || c.model === embedded
      ? engine
      : await engineOf(c.model, { precise: true, threads: 1 });
  return openStrategy(c.draft satisfies Strategy, {
    costs: costs.get(engine)!,
    draftLength: c.draftLength,
    draftSequence: () => draftEngine.open(),
  });
}

/** A sequence that holds all of the prompt but its last token, come by in the case's way. */
async function openPast(c: Case, engine: Engine, random: Seeded): Promise<[Sequence, ...Disposable[]]> {
  const prompt = c.model.prompts[c.prompt]!;
  const cached = prompt.slice(0, -1);
  const strange = Array.from({ length: random.integer(1, 40) }, () => random.integer(0, c.model.vocab - 1));
  const shared = random.integer(1, cached.length);
  const noise = strange.slice(0, engine.context - shared);
  if (c.past === "prefix") {
    {
      using earlier = engine.open();
      await earlier.prefill([...cached.slice(0, shared), ...noise]);
    }
    const sequence = engine.open(prompt);
    expect(sequence.tokens.length).toBeGreaterThanOrEqual(Math.min(shared, cached.length));
    await sequence.prefill(cached.slice(sequence.tokens.length));
    return [sequence];
  }
  engine.forget();
  const sequence = engine.open();
  if (c.past === "fresh") {
    await sequence.prefill(cached.slice(0, shared));
    await sequence.prefill(cached.slice(shared));
    return [sequence];
  }
  if (c.past === "truncated") {
    await sequence.prefill([...cached.slice(0, shared), ...noise]);
    sequence.truncate(shared);
    await sequence.prefill(cached.slice(shared));
    return [sequence];
  }
  // Both go on in the block that they shared.
  await sequence.prefill(cached.slice(0, shared));
  const fork = sequence.fork();
  const [ours, other] = c.past === "fork" ? [fork, sequence] : [sequence, fork];
  await other.prefill(noise);
  await ours.prefill(cached.slice(shared));
  return [ours, other];
}

/** Writes and drops tokens beside the text under test. */
async function keepCompany(c: Case, engine: Engine, random: Seeded): Promise<void> {
  using sequence = engine.open();
  const sampling = resolveSampling({ temperature: 1 }, c.model.vocab, 0);
  for (let i = 0; i < 6; i++) {
    const tokens = Array.from({ length: random.integer(1, 20) }, () => random.integer(0, c.model.vocab - 1));
    await sequence.step(tokens, {
      sampling,
      parents: tokens.map((_, n) => (n === 0 ? -1 : random.integer(-1, n - 1))),
    });
    sequence.keep(random.chance(0.5) ? [0] : []);
  }
}

type Meddle = (sequence: Sequence) => Sequence;

async function runCase(c: Case, random: Seeded, meddle: Meddle = (s) => s): Promise<Text> {
  const engine = await engineOf(c.model, c.engine);
  const continuation = (await reference(c.model, c.prompt, c.sampling)).tokens;
  const [sequence, ...others] = await openPast(c, engine, random);
  using strategy = await openDraft(c, engine, continuation, random);
  const company = c.company ? keepCompany(c, engine, random) : undefined;
  const steps = noSteps();
  const last = c.model.prompts[c.prompt]!.at(-1)!;
  for await (const step of decode(meddle(sequence), last, {
    ...strategy,
    sampling: samplingOf(c.model, c.prompt, c.sampling),
    maxTokens: c.count,
    endIds: new Set(),
    top,
  })) {
    steps.tokens.push(...step.tokens);
    steps.logprobs.push(...step.logprobs);
    steps.topTokens.push(...step.topTokens);
    steps.topLogprobs.push(...step.topLogprobs);
  }
  await company;
  for (const open of [sequence, ...others]) open[Symbol.dispose]();
  return text(steps, c.count);
}

const describeCase = (c: Case, i: number) =>
  `case ${i} (OUTRIDER_EXACT_FIRST=${i} OUTRIDER_EXACT_CASES=1): ${JSON.stringify({ ...c, model: c.model.name })}`;

test(`${numCases} random ways to the same text`, { timeout: 120_000 + numCases * 1000 }, async () => {
  const seen = new Set<string>();
  for (let i = firstCase; i < firstCase + numCases; i++) {
    const random = new Seeded(i);
    const c = randomCase(random);
    const expected = text(await reference(c.model, c.prompt, c.sampling), c.count);
    expect(difference(expected, await runCase(c, random)), describeCase(c, i)).toBeUndefined();
    for (const what of [c.past, c.draft, c.engine.instructionSet, c.model.name]) seen.add(what);
  }
  if (numCases >= 200)
    expect([...pasts, ...drafts, ...sets, embedded.name].filter((what) => !seen.has(what))).toEqual([]);
});

interface Member {
  readonly case: Case;
  /** It is given up when the batch has made so many passes, and taken up again. */
  readonly abortAt: number | undefined;
  /** Chance that its reader is away for a turn of the event loop. */
  readonly slow: number;
}

/** A text among others: its share of each pass comes and goes, and it may be given up in the middle of one. */
async function runMember(m: Member, engine: Engine, random: Seeded, passes: Passes): Promise<Text> {
  const c = m.case;
  const prompt = c.model.prompts[c.prompt]!;
  const continuation = (await reference(c.model, c.prompt, c.sampling)).tokens;
  using sequence = engine.open(prompt);
  const steps = noSteps();
  const abort = new AbortController();
  if (m.abortAt !== undefined) passes.onReaching(m.abortAt, () => abort.abort());
  for (const signal of [abort.signal, undefined]) {
    const written = [...prompt, ...steps.tokens];
    using strategy = await openDraft(c, engine, continuation.slice(steps.tokens.length), random);
    try {
      await sequence.prefill(written.slice(sequence.tokens.length, -1), signal);
      for await (const step of decode(sequence, written.at(-1)!, {
        ...strategy,
        sampling: samplingOf(c.model, c.prompt, c.sampling),
        maxTokens: c.count - steps.tokens.length,
        endIds: new Set(),
        top,
        signal,
      })) {
        passes.count();
        steps.tokens.push(...step.tokens);
        steps.logprobs.push(...step.logprobs);
        steps.topTokens.push(...step.topTokens);
        steps.topLogprobs.push(...step.topLogprobs);
        if (random.chance(m.slow)) await new Promise(setImmediate);
      }
      break;
    } catch (error) {
      expect(error).toMatchObject({ code: "ERR_ABORTED" });
      // A code is told where a text begins only.
      if (samplings[c.sampling]!.code === undefined) continue;
      for (const list of Object.values(steps)) list.length = 0;
      sequence.truncate(Math.min(sequence.tokens.length, prompt.length - 1));
    }
  }
  return text(steps, c.count);
}

class Passes {
  #seen = 0;
  readonly #waiting: [number, () => void][] = [];

  onReaching(count: number, call: () => void): void {
    this.#waiting.push([count, call]);
  }

  count(): void {
    this.#seen++;
    for (const [at, call] of this.#waiting) if (at === this.#seen) call();
  }
}

const numBatches = Math.ceil(numCases / 4);
test(`${numBatches} random batches in which every text is the text alone`, {
  timeout: 120_000 + numBatches * 4000,
}, async () => {
  const sizes = new Set<number>();
  for (let i = firstCase; i < firstCase + numBatches; i++) {
    const random = new Seeded(1e6 + i);
    const first = randomCase(random);
    const slow = first.model === embedded && first.engine.instructionSet === "scalar";
    const size = slow ? 2 : 1 + (i % 8);
    const members = Array.from({ length: size }, (_, n): Member => {
      const c = n === 0 ? first : randomCase(random);
      return {
        case: {
          ...c,
          model: first.model,
          engine: first.engine,
          prompt: slow ? 0 : c.prompt % first.model.prompts.length,
          count: slow ? 6 : c.count,
        },
        abortAt: random.chance(0.3) ? random.integer(1, size * 10) : undefined,
        slow: random.pick([0, 0, 0.2, 1]),
      };
    });
    const engine = await engineOf(first.model, first.engine);
    if (random.chance(0.5)) engine.forget();
    const passes = new Passes();
    const texts = await Promise.all(
      members.map((m, n) => runMember(m, engine, new Seeded(1000 * i + n), passes)),
    );
    for (const [n, { case: c }] of members.entries()) {
      const expected = text(await reference(c.model, c.prompt, c.sampling), c.count);
      expect(difference(expected, texts[n]!), `${n} of ${size}: ${describeCase(c, i)}`).toBeUndefined();
    }
    sizes.add(size);
  }
  if (numBatches >= 50) expect(sizes.size).toBe(8);
});

const casesEach = Math.ceil(numCases / 25);

test("the small models have every architecture", () => {
  const architectureOf = (model: Model) =>
    JSON.parse(readFileSync(model.file.replace(/gguf$/, "json"), "utf8")).architecture;
  const covered = new Set(small.map(architectureOf));
  expect(architectures.filter(({ name }) => !covered.has(name)).map(({ name }) => name)).toEqual([]);
});

test.each(small)(
  `$name: ${casesEach} random ways to the same text`,
  {
    timeout: 60_000 + casesEach * 1000,
  },
  async (model) => {
    for (let i = 0; i < casesEach; i++) {
      const random = new Seeded(i);
      const c = randomCase(random, model);
      const expected = text(await reference(model, c.prompt, c.sampling), c.count);
      expect(difference(expected, await runCase(c, random)), describeCase(c, i)).toBeUndefined();
    }
  },
);

test.each(small.filter(({ name }) => !name.includes("quant-")))(
  "$name as its own drafter, whichever layers it leaves out or runs side by side",
  { timeout: 60_000 },
  async (model) => {
    const engine = await engineOf(model, plain.engine);
    const usual = engine.draftLayers;
    const last = engine.config.layers - 1;
    let drafted = 0;
    for (const sampling of [0, 2, 5]) {
      const expected = text(await reference(model, 1, sampling), plain.count);
      // The default, early exit behind the first layer, the last alone, all: what it drafts then is always right.
      const all = Array.from({ length: last + 1 }, (_, i) => i);
      for (const kept of [usual, [0], [last], all, "parallel"] as const) {
        if (kept !== "parallel") engine.draftLayers = kept;
        const draft = kept === "parallel" ? "layer-parallel" : "self";
        const c: Case = { ...plain, model, prompt: 1, sampling, draft };
        const trial = await runCase(c, new Seeded(0), (sequence) => {
          const { step } = sequence;
          sequence.step = (tokens, options) => {
            if (options.draft) drafted++;
            return step.call(sequence, tokens, options);
          };
          return sequence;
        });
        expect(difference(expected, trial), `${kept} ${sampling}`).toBeUndefined();
      }
    }
    engine.draftLayers = usual;
    expect(drafted).toBeGreaterThan(12);
  },
);

const plain: Case = {
  model: embedded,
  prompt: 0,
  sampling: 0,
  count: 12,
  engine: { threads: 2, prefillChunk: 512, instructionSet: sets[0]! },
  past: "fresh",
  company: false,
  draft: "chain",
  draftLength: 4,
  wrong: 0,
};

test("a verifier that accepts one wrong token is noticed", async () => {
  let meddled = 0;
  // The first draft's second token is wrong, and the row before it says that it drew it.
  const wrong: Meddle = (sequence) =>
    Object.create(sequence, {
      tokens: { get: () => sequence.tokens },
      context: { get: () => sequence.context },
      keep: { value: (rows: number[]) => sequence.keep(rows) },
      step: {
        value: async (tokens: number[], options: Parameters<Sequence["step"]>[1]) => {
          const altered = tokens.map((token, i) =>
            i === 2 && meddled === 0 ? (token + 1) % embedded.vocab : token,
          );
          const result = await sequence.step(altered, options);
          if (meddled++ === 0) result.picks[1] = tokens[2]!;
          return result;
        },
      },
    });
  const expected = text(await reference(embedded, 0, 0), plain.count);
  expect(difference(expected, await runCase(plain, new Seeded(0), wrong))).toMatch(
    /log-probability bits|token/,
  );
  expect(meddled).toBeGreaterThan(0);
  expect(difference(expected, await runCase(plain, new Seeded(0)))).toBeUndefined();
});

test("another order of one sum is noticed, though it changes no token", async () => {
  const model = small.find((m) => m.name === "llama-gqa-untied")!;
  const folder = mkdtempSync(path.join(tmpdir(), "outrider-exact-"));
  try {
    const file = path.join(folder, "reordered.gguf");
    writeFileSync(file, swapFeedForward(readFileSync(model.file), 0, 17));
    const reordered: Model = { ...model, name: "reordered", file };
    const c: Case = { ...plain, model, draft: "none" };
    const expected = text(await reference(model, 0, 0), c.count);
    const sums = text(await reference(reordered, 0, 0), c.count);
    expect(sums.tokens).toEqual(expected.tokens);
    for (const [i, logprob] of sums.logprobs.entries()) expect(logprob).toBeCloseTo(expected.logprobs[i]!, 3);
    expect(difference(expected, sums)).toMatch(/log-probability bits/);
    expect(difference(expected, await runCase({ ...c, model: reordered }, new Seeded(0)))).toMatch(/bits/);
    expect(difference(expected, await runCase(c, new Seeded(0)))).toBeUndefined();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/**
 * The same model with two of the first layer's inner feed-forward values in each other's place: the same products, the
 * last one of them added up in another order.
 */
function swapFeedForward(bytes: Buffer, a: number, b: number): Buffer {
  const model = describeGguf(bytes);
  const swapped = (tensor: Tensor): Tensor => {
    const [columns, rows] = tensor.shape as [number, number];
    const from = tensor.data!;
    const data = Buffer.from(from);
    const move = (at: number, to: number, count: number) => data.set(from.subarray(at, at + count), to);
    if (tensor.name === "blk.0.ffn_gate.weight" || tensor.name === "blk.0.ffn_up.weight")
      for (const [x, y] of [
        [a, b],
        [b, a],
      ] as const)
        move(x * columns * 4, y * columns * 4, columns * 4);
    else if (tensor.name === "blk.0.ffn_down.weight")
      for (let row = 0; row < rows; row++)
        for (const [x, y] of [
          [a, b],
          [b, a],
        ] as const)
          move((row * columns + x) * 4, (row * columns + y) * 4, 4);
    return { ...tensor, data };
  };
  return writeGguf({ ...model, tensors: model.tensors.map(swapped) }).bytes;
}
