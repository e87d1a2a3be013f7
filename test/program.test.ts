import { describe, expect, test } from "vitest";
import { addon, type Handle, type NativePass, type NativeProgramSpec } from "../src/runtime/native.js";
import { type WeightType, weightTypes } from "../src/runtime/weight.js";
import { layoutByType } from "../src/weights/weight-type.js";
import { Seeded } from "./support/seeded.js";

// The core believes nothing that TypeScript hands it: these tests call it without the classes of src/runtime.
const core = addon();
const vocab = 40;
const width = 32;
const cacheBlocks = 6;

/** Where a block's float16 numbers are: its scale, and its minimum or the scale of its minima. */
const halvesAt: Readonly<Record<Exclude<WeightType, "F32" | "F16" | "BF16">, readonly number[]>> = {
  Q4_0: [0],
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_0: [0],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
  IQ4_NL: [0],
  IQ4_XS: [0],
};

/** Rows in the file's layout, random but for scales and exponents, which stay small. */
function fileBytes(type: WeightType, rows: number, columns: number, random: Seeded): Uint8Array {
  const values = (bytesEach: number, set: (view: DataView, at: number) => void) => {
    const bytes = new Uint8Array(rows * columns * bytesEach);
    for (let at = 0; at < bytes.length; at += bytesEach) set(new DataView(bytes.buffer), at);
    return bytes;
  };
  if (type === "F32") return values(4, (v, at) => v.setFloat32(at, random.integer(-99, 99) / 99, true));
  if (type === "F16") return values(2, (v, at) => v.setUint16(at, 0x3000 | (random.bits() & 0x83ff), true));
  if (type === "BF16") return values(2, (v, at) => v.setUint16(at, 0x3e00 | (random.bits() & 0x807f), true));
  const { blockWeights, blockBytes } = layoutByType.get(type)!;
  const bytes = Uint8Array.from({ length: ((rows * columns) / blockWeights) * blockBytes }, () =>
    random.bits(),
  );
  for (let at = 0; at < bytes.length; at += blockBytes)
    for (const [i, half] of halvesAt[type].entries())
      new DataView(bytes.buffer).setUint16(at + half, 0x2400 | i, true);
  return bytes;
}

const emptyWeight = (type: WeightType, rows: number, columns: number): Handle => {
  const size = [weightTypes[type], rows, columns] as const;
  return core.createWeight(core.createArena(core.packedBytes(...size)), ...size);
};

async function weight(type: WeightType, rows: number, columns: number, random: Seeded): Promise<Handle> {
  const made = emptyWeight(type, rows, columns);
  await core.packWeight(made, fileBytes(type, rows, columns, random), 0);
  return made;
}

interface Parts {
  core: Handle;
  cache: Handle;
  weights: Handle[];
  spec: NativeProgramSpec;
}

/** One transformer layer that uses every operator and every weight type. */
async function goodParts(): Promise<Parts> {
  const random = new Seeded(1);
  const weights = [
    await weight("F32", vocab, width, random),
    await weight("Q4_0", width, width, random),
    await weight("F16", 16, width, random),
    await weight("BF16", 16, width, random),
    await weight("Q4_1", width, width, random),
    await weight("Q8_0", width, width, random),
    await weight("Q8_0", width, width, random),
    await weight("F32", width, width, random),
    await weight("F32", 4, width, random), // 8: scores of 4 experts
    await weight("Q8_0", 4 * 32, width, random), // 9, 10: gate and up of inner width 32
    await weight("Q8_0", 4 * 32, width, random),
    await weight("Q4_1", 4 * width, 32, random),
    await weight("F16", 64, width, random), // 12: learned positions
  ];
  const cache = core.createCache(1, 1, 16, cacheBlocks, true);
  // [quantised, one row per output, width, slots]
  const buffers = [
    [0, 0, width], // 0 residual stream
    [0, 0, width], // 1 normed
    [1, 0, width], // 2 normed, 8 bit
    [0, 0, width], // 3 queries
    [0, 0, 16], // 4 keys
    [0, 0, 16], // 5 values
    [0, 0, 16], // 6 rotary
    [0, 0, width], // 7 attended
    [1, 0, width], // 8 attended, 8 bit
    [1, 0, width], // 9 feed-forward input
    [0, 0, width], // 10 gated
    [0, 0, width], // 11 down
    [0, 1, width], // 12 selected
    [0, 1, width], // 13 normed
    [0, 1, vocab], // 14 logits
    [0, 0, width], // 15 positions
    [1, 0, width], // 16 input of the experts, 8 bit
    [0, 0, width], // 17 input of the router
    [0, 0, 4], // 18 scores
    [0, 0, 4], // 19 routes: two weights, two experts
    [0, 0, 32, 2], // 20 gated, of both experts
    [1, 0, 32, 2], // 21 gated, 8 bit
    [0, 0, width, 2], // 22 down
  ].map((buffer) => (buffer.length === 3 ? [...buffer, 1] : buffer));
  const ops = [
    [0, 0, 0, 0],
    [5, 1, 6],
    [1, 0, 0, 1],
    [2, 1, 2],
    [3, 2, 1, 3, 0, 1, 1], // with a bias and GELU
    [3, 1, 2, 4, 0],
    [3, 1, 3, 5, 0],
    [6, 3, 6, 2, 16, 1, 3], // heads normalised
    [6, 4, 6, 1, 16, 1],
    [7, 4, 5, 0],
    [8, 3, 7, 0, 2, 0, 4], // soft-capped
    [2, 7, 8],
    [3, 8, 4, 0, 1],
    [1, 0, 0, 9],
    [4, 9, 5, 6, 10],
    [3, 10, 7, 11, 0],
    [9, 0, 11, 0],
    [10, 0, 12],
    [1, 12, 0, 13],
    [3, 13, 0, 14, 0, 0, 2], // soft-capped
    // The experts, between the feed-forward part and what is selected.
    [0, 12, 15, 1],
    [9, 0, 15, 0],
    [11, 0, 0, 4, 16],
    [11, 0, 0, 4, 17],
    [3, 17, 8, 18, 0],
    [12, 18, 19, 0, 1],
    [13, 16, 19, 9, 10, 20, 1],
    [2, 20, 21],
    [14, 21, 19, 11, 22],
    [15, 22, 19, 0, 1],
    [1, 15, 0, 0, 1], // a norm that is added
  ];
  ops.splice(17, 0, ...ops.splice(20));
  return {
    core: core.createCore(2, ""),
    cache,
    weights,
    spec: {
      buffers: Int32Array.from(buffers.flat()),
      ops: Int32Array.from(ops.flatMap((op) => [...op, ...Array(8 - op.length).fill(0)])),
      scalars: Float32Array.from(ops, ([opcode]) => ({ 1: 1e-5, 6: 1e-5, 8: 0.25, 11: 1e-5 })[opcode!] ?? 1),
      weights,
      constants: [
        Float32Array.from({ length: width }, () => 1),
        Float32Array.from({ length: 8 }, (_, i) => 10000 ** (-i / 8)),
        Float32Array.from({ length: 16 }, (_, i) => 1 + i / 16),
        Float32Array.of(30),
        Float32Array.from({ length: width }, (_, i) => i / width - 0.5),
      ],
      cache,
      logits: 14,
      vocab,
      tokens: vocab,
      maxRows: 12,
      maxOutputs: 8,
      maxPosition: 64,
    },
  };
}

/** Two sequences: one of 16 cached positions with a small tree behind them, a new one with a chain. */
type WholePass = { [key in keyof NativePass]-?: NonNullable<NativePass[key]> };

function goodPass(): WholePass {
  // [token, table, position, parent, cell, wants output]
  const rows = [
    [3, 0, 16, -1, 48, 1],
    [7, 0, 17, 0, 49, 1],
    [9, 0, 17, 0, 81, 0],
    [2, 0, 18, 2, 82, 1],
    [5, 1, 0, -1, 32, 0],
    [6, 1, 1, 4, 33, 1],
  ];
  return {
    rows: Int32Array.from(rows.flat()),
    tables: Int32Array.of(1, 3, 2),
    tableOffsets: Int32Array.of(0, 2, 3),
    settings: Float64Array.from([0, 0, 1, 0, 0, 0.8, 5, 0.9, 0.01, 7, 1.5, 0, 1, 0, 8, 0, 0, 1, 0, 0]),
    scored: Int32Array.of(0, 1, 2, 39),
    codes: Float64Array.of(-1, 1, 0.3, 2 ** -53, 0.999, 1, 0, 0.1),
    adjustOffsets: Int32Array.of(0, 0, 2, 2, 3),
    adjustTokens: Int32Array.of(4, 9, 1),
    adjustRepetition: Float32Array.of(1.1, 1.2, 1),
    adjustAdd: Float32Array.of(0, -0.5, 3),
    maskOf: Int32Array.of(-1, 0, 1, 0),
    // Two masks of 40 tokens each.
    masks: Int32Array.of(0b1010, 0, -1, 0b11110000),
    top: 4,
    wantLogits: true,
    follow: 0,
    followMs: Number.POSITIVE_INFINITY,
    ends: Int32Array.of(3, -1),
  };
}

/** One row, drawn by noise, of a sequence of two blocks, and as many passes behind it as there is place for. */
function followedPass(): NativePass & Required<Pick<NativePass, "follow" | "ends">> {
  return {
    rows: Int32Array.of(3, 0, 20, -1, 52, 1),
    tables: Int32Array.of(1, 3),
    tableOffsets: Int32Array.of(0, 2),
    settings: Float64Array.of(1.5, 0, 1, 0, 8),
    top: 3,
    wantLogits: false,
    follow: 11,
    followMs: Number.POSITIVE_INFINITY,
    ends: new Int32Array(0),
  };
}

const run = async (program: Handle, pass: NativePass) => core.run(program, pass, core.createCancel());

/** The bits of all that a pass gives. */
async function bits(program: Handle, pass: NativePass): Promise<string> {
  const result = await run(program, pass);
  return [
    result.tokens,
    result.logprobs,
    result.topTokens,
    result.topLogprobs,
    result.scores,
    result.codes,
    result.logits,
  ]
    .map((a) => Buffer.from(a!.buffer, a!.byteOffset, a!.byteLength).toString("hex"))
    .join();
}

async function codeOf(call: () => unknown): Promise<unknown> {
  try {
    await call();
    return undefined;
  } catch (error) {
    return (error as { code?: unknown }).code ?? error;
  }
}

const oddInts = [
  -(2 ** 31),
  -17,
  -2,
  -1,
  0,
  1,
  2,
  3,
  7,
  8,
  15,
  16,
  17,
  31,
  33,
  64,
  4096,
  2 ** 24,
  2 ** 31 - 1,
];
const oddNumbers = [Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, -1, 0, 1e-30, 0.5, 3e38];

type Numbers = Int32Array | Float32Array | Float64Array;
const isNumbers = (value: unknown): value is Numbers => ArrayBuffer.isView(value);

function damagedArray(array: Numbers, random: Seeded): Numbers {
  const fresh = (from: ArrayLike<number>) => {
    if (array instanceof Int32Array) return Int32Array.from(from);
    return array instanceof Float32Array ? Float32Array.from(from) : Float64Array.from(from);
  };
  const changed = Array.from(array);
  const at = random.integer(0, Math.max(0, changed.length - 1));
  const odd = array instanceof Int32Array ? oddInts : oddNumbers;
  const kind = random.integer(0, 9);
  if (kind === 0) changed.splice(at, 1);
  else if (kind === 1) changed.push(random.pick(odd));
  else if (kind === 2) changed.splice(at);
  else if (kind === 3) changed[at] = random.pick(changed.length > 0 ? changed : odd);
  else if (kind === 4) changed[at] = (changed[at] ?? 0) + random.pick([-1, 1]);
  else changed[at] = random.pick(odd);
  return fresh(changed);
}

/** A copy with one to three things wrong, or by chance none. */
function damaged<T extends object>(good: T, random: Seeded, wrong: readonly unknown[]): T {
  const copy = { ...good } as Record<string, unknown>;
  for (let n = random.integer(1, 3); n > 0; n--) {
    const key = random.pick(Object.keys(copy));
    const value = copy[key];
    if (random.chance(0.04)) copy[key] = random.pick(wrong);
    else if (random.chance(0.02)) delete copy[key];
    else if (isNumbers(value)) copy[key] = damagedArray(value, random);
    else if (typeof value === "number")
      copy[key] = random.chance(0.5) ? random.pick(oddInts) : random.pick(oddNumbers);
    else if (typeof value === "boolean") copy[key] = !value;
    else if (Array.isArray(value)) {
      const list = [...value];
      const at = random.integer(0, list.length - 1);
      if (random.chance(0.3)) list.splice(at, 1);
      else if (random.chance(0.5)) list[at] = random.pick(list);
      else list[at] = isNumbers(list[at]) ? damagedArray(list[at], random) : random.pick(wrong);
      copy[key] = list;
    }
  }
  return copy as T;
}

describe("what the core is handed", () => {
  test("damaged programs are refused with ERR_PROGRAM or run, and the good one is as good as before", async () => {
    const parts = await goodParts();
    const good = core.createProgram(parts.core, parts.spec);
    const expected = await bits(good, goodPass());
    const random = new Seeded(2);
    const wrong = [
      null,
      undefined,
      1,
      "x",
      {},
      [],
      parts.core,
      parts.cache,
      parts.weights[0],
      Int32Array.of(1),
    ];
    const codes = new Map<unknown, number>();
    for (let i = 0; i < 4000; i++) {
      let program: Handle | undefined;
      const code = await codeOf(async () => {
        program = core.createProgram(parts.core, damaged(parts.spec, random, wrong));
        await run(program, goodPass());
      });
      if (program) core.close(program);
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
    // Weights in the wrong place may well end in numbers that are not finite.
    for (const code of codes.keys()) expect([undefined, "ERR_PROGRAM", "ERR_RUNTIME_NAN"]).toContain(code);
    expect(codes.get("ERR_PROGRAM")).toBeGreaterThan(2000);
    expect(codes.get(undefined)).toBeGreaterThan(100);
    expect(await bits(good, goodPass())).toBe(expected);
  });

  test("damaged passes are refused with ERR_PROGRAM or run, and the good one is as good as before", async () => {
    const parts = await goodParts();
    const program = core.createProgram(parts.core, parts.spec);
    const untouched = core.createProgram(parts.core, {
      ...parts.spec,
      cache: core.createCache(1, 1, 16, cacheBlocks, true),
    });
    const expected = await bits(untouched, goodPass());
    const random = new Seeded(3);
    const wrong = [null, undefined, 1, "x", {}, [], parts.core, Int32Array.of(1), new Uint8Array(24)];
    const codes = new Map<unknown, number>();
    for (let i = 0; i < 6000; i++) {
      const code = await codeOf(() => run(program, damaged(goodPass(), random, wrong)));
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
    for (const code of codes.keys()) expect([undefined, "ERR_PROGRAM", "ERR_RUNTIME_NAN"]).toContain(code);
    expect(codes.get("ERR_PROGRAM")).toBeGreaterThan(2000);
    expect(codes.get(undefined)).toBeGreaterThan(100);
    expect(await bits(untouched, goodPass())).toBe(expected);
  });

  const passes: Record<string, (pass: WholePass) => void> = {
    "a token beyond the vocabulary": (p) => p.rows.set([vocab], 0),
    "a negative token": (p) => p.rows.set([-1], 0),
    "a table that is not there": (p) => p.rows.set([2], 1),
    "a position beyond the program's": (p) => p.rows.set([64], 2),
    "a parent behind its child": (p) => p.rows.set([1], 3),
    "a parent of another sequence": (p) => p.rows.set([3], 33),
    "a parent that is not one position before": (p) => p.rows.set([19], 20),
    "a past longer than its table": (p) => p.rows.set([17], 26),
    "a cell beyond the cache": (p) => p.rows.set([cacheBlocks * 16], 4),
    "two rows in one cell": (p) => p.rows.set([48], 10),
    "a block beyond the cache": (p) => p.tables.set([cacheBlocks]),
    "a table that ends before it begins": (p) => p.tableOffsets.set([4], 1),
    "an adjusted token beyond the vocabulary": (p) => p.adjustTokens.set([vocab]),
    "a scored token beyond the vocabulary": (p) => p.scored.set([vocab]),
    "adjustments that end before they begin": (p) => p.adjustOffsets.set([3], 1),
    "a code of 1": (p) => p.codes.set([1], 2),
    "a code that is not a number": (p) => p.codes.set([Number.NaN]),
    "a code of resolution 0": (p) => p.codes.set([0], 1),
    "a negative temperature": (p) => p.settings.set([-1]),
    "top-p 0": (p) => p.settings.set([0], 2),
    "min-p above 1": (p) => p.settings.set([2], 3),
    "a negative seed": (p) => p.settings.set([-1], 4),
    "too many best tokens": (p) => Object.assign(p, { top: 1025 }),
    "more outputs than settings": (p) => p.rows.set([1], 17),
    "no rows": (p) => Object.assign(p, { rows: new Int32Array(0) }),
    "a mask that is not there": (p) => p.maskOf.set([2], 1),
    "a mask that allows nothing": (p) => p.masks.fill(0),
    "a mask that allows only tokens beyond the vocabulary": (p) => p.masks.set([0, 256], 0),
    "masks of another width": (p) => Object.assign(p, { masks: new Int32Array(3).fill(-1) }),
    "masks for fewer outputs": (p) => Object.assign(p, { maskOf: Int32Array.of(0) }),
    "rows of a wrong type": (p) => Object.assign(p, { rows: Float64Array.from(p.rows) }),
  };
  test.each(Object.entries(passes))("%s is refused", async (_, damage) => {
    const parts = await goodParts();
    const program = core.createProgram(parts.core, parts.spec);
    const pass = goodPass();
    damage(pass);
    expect(await codeOf(() => run(program, pass))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => run(program, goodPass()))).toBeUndefined();
  });

  test("passes that follow are those asked for one by one, until a token that ends them", async () => {
    const parts = await goodParts();
    const program = core.createProgram(parts.core, parts.spec);
    for (const codes of [undefined, Float64Array.of(0.3, 2 ** -53), Float64Array.of(-1, 1)]) {
      const first = { ...followedPass(), ...(codes && { codes }) };
      const all = await run(program, first);
      expect(all.tokens).toHaveLength(12);
      const names = [
        "tokens",
        "logprobs",
        "topTokens",
        "topLogprobs",
        ...(codes ? ["codes" as const] : []),
      ] as const;
      const single: Record<string, number[]> = Object.fromEntries(names.map((name) => [name, []]));
      let code = codes;
      for (let i = 0, token = 3; i < 12; i++) {
        const pass = { ...first, follow: 0, rows: Int32Array.of(token, 0, 20 + i, -1, 52 + i, 1) };
        const result = await run(program, { ...pass, ...(code && { codes: code }) });
        for (const name of names) single[name]!.push(...result[name]!);
        token = result.tokens[0]!;
        code = result.codes as typeof code;
      }
      for (const name of names) expect([...all[name]!], name).toEqual(single[name]);
      for (const last of [0, 5]) {
        const ends = Int32Array.of(vocab + 7, all.tokens[last]!);
        const ended = await run(program, { ...first, ends });
        expect(ended.tokens).toEqual(all.tokens.subarray(0, all.tokens.indexOf(ends[1]!) + 1));
      }
    }
  });

  const follows: Record<string, (pass: ReturnType<typeof followedPass>) => void> = {
    "more passes than the table has cells for": (p) => Object.assign(p, { follow: 12 }),
    "more than any": (p) => Object.assign(p, { follow: 2 ** 31 - 1 }),
    "fewer than none": (p) => Object.assign(p, { follow: -1 }),
    "a time that is none": (p) => Object.assign(p, { followMs: Number.NaN }),
    "less than no time": (p) => Object.assign(p, { followMs: -1 }),
    "half a pass": (p) => Object.assign(p, { follow: 0.5 }),
    "a row elsewhere": (p) => p.rows.set([53], 4),
    "a row that nothing is drawn from": (p) =>
      Object.assign(p, { rows: p.rows.with(5, 0), settings: new Float64Array(0) }),
    "two rows": (p) => Object.assign(p, { rows: Int32Array.of(...p.rows, 4, 0, 21, 0, 53, 0) }),
    "a mask": (p) => Object.assign(p, { maskOf: Int32Array.of(-1), masks: new Int32Array(0) }),
    scores: (p) => Object.assign(p, { scored: Int32Array.of(1) }),
    logits: (p) => Object.assign(p, { wantLogits: true }),
    adjustments: (p) =>
      Object.assign(p, {
        adjustOffsets: Int32Array.of(0, 1),
        adjustTokens: Int32Array.of(1),
        adjustRepetition: Float32Array.of(1),
        adjustAdd: Float32Array.of(1),
      }),
    "no tokens that end": (p) => Object.assign(p, { ends: undefined }),
    "a table that ends with the program's positions": (p) => {
      p.rows.set([3, 0, 60, -1, 60, 1]);
      p.tables = Int32Array.of(0, 1, 2, 3, 4);
      p.tableOffsets = Int32Array.of(0, 5);
      p.rows.set([3 * 16 + 12], 4);
      p.follow = 4;
    },
  };
  test.each(Object.entries(follows))("to follow %s is refused", async (_, damage) => {
    const parts = await goodParts();
    const program = core.createProgram(parts.core, parts.spec);
    const pass = followedPass();
    expect(await codeOf(() => run(program, pass))).toBeUndefined();
    damage(pass);
    expect(await codeOf(() => run(program, pass))).toBe("ERR_PROGRAM");
    if (pass.follow === 4) expect(await codeOf(() => run(program, { ...pass, follow: 3 }))).toBeUndefined();
  });

  test("a token drawn that is no input, and a pass that fails, end what follows", async () => {
    const parts = await goodParts();
    const all = await run(core.createProgram(parts.core, parts.spec), followedPass());
    const beyond = Math.max(...all.tokens);
    const few = core.createProgram(parts.core, { ...parts.spec, tokens: beyond });
    const at = all.tokens.indexOf(beyond);
    expect((await run(few, followedPass())).tokens).toEqual(all.tokens.subarray(0, at + 1));
    const bytes = fileBytes("F16", 64, width, new Seeded(4));
    new Uint16Array(bytes.buffer).set([0x7e00], width * 22);
    const poisoned = emptyWeight("F16", 64, width);
    await core.packWeight(poisoned, bytes, 0);
    const weights = parts.weights.with(12, poisoned);
    const program = core.createProgram(parts.core, { ...parts.spec, weights });
    const good = await run(program, followedPass());
    expect(good.tokens).toHaveLength(2);
    const rows = Int32Array.of(good.tokens[1]!, 0, 22, -1, 54, 1);
    expect(await codeOf(() => run(program, { ...followedPass(), follow: 0, rows }))).toBe("ERR_RUNTIME_NAN");
  });

  const op = (p: Parts, index: number, field: number, value: number) =>
    p.spec.ops.set([value], index * 8 + field);
  const programs: Record<string, (parts: Parts) => void> = {
    "an unknown opcode": (p) => op(p, 3, 0, 16),
    "a negative opcode": (p) => op(p, 3, 0, -1),
    "a buffer that is not there": (p) => op(p, 2, 1, 23),
    "a weight that is not there": (p) => op(p, 4, 2, 13),
    "a constant that is not there": (p) => op(p, 1, 1, 5),
    "8-bit rows for a float weight": (p) => op(p, 5, 1, 2),
    "an output of another width": (p) => op(p, 5, 3, 3),
    "a product into its own input": (p) => op(p, 15, 3, 10),
    "heads that do not fill the width": (p) => op(p, 7, 3, 3),
    "a layer beyond the cache's": (p) => op(p, 9, 3, 1),
    "a window below 0": (p) => op(p, 10, 5, -1),
    "rows and outputs mixed": (p) => op(p, 16, 1, 12),
    "a bias of another width": (p) => op(p, 5, 5, 1),
    "a bias that is not there": (p) => op(p, 4, 5, 6),
    "an unknown finish": (p) => op(p, 4, 6, 3),
    "an unknown activation": (p) => op(p, 14, 5, 2),
    "a head's norm of another size": (p) => op(p, 7, 6, 1),
    "a soft cap of 0": (p) => p.spec.constants[3]!.set([0]),
    "a soft cap that is a list": (p) => op(p, 10, 6, 1),
    "an embedding by neither token nor position": (p) => op(p, 17, 3, 2),
    "fewer learned positions than positions": (p) => Object.assign(p.spec, { maxPosition: 65 }),
    "a norm that is added to 8-bit rows": (p) => op(p, 13, 4, 1),
    "a bias of a norm of another width": (p) => op(p, 19, 3, 2),
    "more experts used than there are": (p) => op(p, 22, 2, 0),
    "routes of an odd width": (p) => p.spec.buffers.set([3], 19 * 4 + 2),
    "an unknown gating": (p) => op(p, 22, 3, 2),
    "experts of another width": (p) => op(p, 23, 3, 1),
    "gate and up of different numbers of experts": (p) => op(p, 23, 4, 5),
    "slots that are not the experts used": (p) => p.spec.buffers.set([3], 20 * 4 + 3),
    "experts whose input has the wrong slots": (p) => op(p, 25, 1, 16),
    "slots where one row is expected": (p) => op(p, 26, 3, 22),
    "a buffer without slots": (p) => p.spec.buffers.set([0], 3),
    "a buffer with too many slots": (p) => p.spec.buffers.set([1025], 3),
    "logits that are not per output": (p) => Object.assign(p.spec, { logits: 0 }),
    "token ids beyond the embedding": (p) => Object.assign(p.spec, { tokens: vocab + 1 }),
    "a vocabulary beyond the logits": (p) => Object.assign(p.spec, { vocab: vocab + 1 }),
    "more outputs than rows": (p) => Object.assign(p.spec, { maxOutputs: 13 }),
    "no operators": (p) => Object.assign(p.spec, { ops: new Int32Array(0), scalars: new Float32Array(0) }),
    "a quantised width of 33": (p) => p.spec.buffers.set([33], 10),
    "weights that are no list": (p) => Object.assign(p.spec, { weights: 3 }),
    "a core among the weights": (p) =>
      Object.assign(p.spec, { weights: [...p.weights.slice(0, -1), p.core] }),
    "a frequency that is not a number": (p) => p.spec.constants[1]!.set([Number.NaN]),
  };
  test.each(Object.entries(programs))("%s is refused", async (_, damage) => {
    const parts = await goodParts();
    damage(parts);
    expect(await codeOf(() => core.createProgram(parts.core, parts.spec))).toBe("ERR_PROGRAM");
  });

  test("a route to no expert ends the pass with an error", async () => {
    const parts = await goodParts();
    // The routes are read from the keys.
    for (const buffer of [20, 21, 22]) parts.spec.buffers.set([8], buffer * 4 + 3);
    for (const [index, field] of [
      [23, 2],
      [25, 2],
      [26, 2],
    ] as const)
      op(parts, index, field, 4);
    expect(await codeOf(() => run(core.createProgram(parts.core, parts.spec), goodPass()))).toBe(
      "ERR_PROGRAM",
    );
  });

  test("sizes that no memory holds are refused before anything is allocated", async () => {
    const before = core.info();
    expect(await codeOf(() => core.createCache(4096, 4096, 4096, 2 ** 24, false))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.createCache(1, 1, 0, 1, false))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.packedBytes(0, 2 ** 26 + 1, 1))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.packedBytes(2, 1, 33))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.packedBytes(9, 1, 256))).toBe("ERR_MODEL_UNSUPPORTED");
    expect(await codeOf(() => core.createArena(0))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.createArena(2 ** 53))).toBe("ERR_RUNTIME");
    expect(await codeOf(() => core.createCore(65, ""))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.createCore(1, "mmx"))).toBe("ERR_PLATFORM");
    expect(core.info()).toEqual(before);
  });

  test("weights that do not fit their arena are refused", async () => {
    const arena = core.createArena(2 * core.packedBytes(0, 16, 8));
    core.createWeight(arena, 0, 16, 8);
    expect(await codeOf(() => core.createWeight(arena, 0, 16, 9))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.createWeight(arena, 2, 1, 33))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.createWeight(arena, 9, 1, 256))).toBe("ERR_MODEL_UNSUPPORTED");
    const last = core.createWeight(arena, 0, 16, 8);
    expect(await codeOf(() => core.createWeight(arena, 0, 1, 1))).toBe("ERR_PROGRAM");
    core.close(arena);
    expect(await codeOf(() => core.createWeight(arena, 0, 1, 1))).toBe("ERR_DISPOSED");
    await core.packWeight(last, new Uint8Array(16 * 8 * 4).fill(1), 0);
    expect(core.unpackRow(last, 15)).toEqual(new Float32Array(new Uint8Array(32).fill(1).buffer));
  });

  test("rows beyond a weight's are not packed, and not read", async () => {
    const w = emptyWeight("F32", 4, 8);
    expect(await codeOf(() => core.packWeight(w, new Uint8Array(5 * 32), 0))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.packWeight(w, new Uint8Array(32), 4))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.packWeight(w, new Uint8Array(32), -1))).toBe("ERR_PROGRAM");
    expect(await codeOf(() => core.packWeight(w, new Uint8Array(31), 0))).toBe("ERR_PROGRAM");
    for (const row of [-1, 4, 0.5, Number.NaN])
      expect(await codeOf(() => core.unpackRow(w, row))).toBe("ERR_PROGRAM");
  });

  test("copies are made by the next pass that is not cancelled", async () => {
    const parts = await goodParts();
    const program = core.createProgram(parts.core, parts.spec);
    const whole = goodPass();
    const pass = (rows: number[][], table: number[]): NativePass => ({
      rows: Int32Array.from(rows.flat()),
      tables: Int32Array.from(table),
      tableOffsets: Int32Array.of(0, table.length),
      settings: whole.settings.slice(0, 5 * rows.filter((row) => row[5] === 1).length),
      top: 0,
      wantLogits: true,
    });
    const past = Array.from({ length: 12 }, (_, i) => [(i * 7) % vocab, 0, i, i - 1, 16 + i, 0]);
    await run(program, pass(past, [1]));
    const next = (block: number) => pass([[3, 0, 12, -1, block * 16 + 12, 1]], [block]);
    const { logits } = await run(program, next(1));
    const cells = Int32Array.from({ length: 12 }, (_, i) => 16 + i);
    core.copyCells(
      parts.cache,
      cells,
      cells.map((cell) => cell + 48),
    );
    const cancel = core.createCancel();
    core.cancel(cancel);
    expect((await core.run(program, next(4), cancel)).finished).toBe(false);
    expect(await codeOf(() => run(program, next(99)))).toBe("ERR_PROGRAM");
    expect((await run(program, next(4))).logits).toEqual(logits);
  });

  test("cells beyond the cache are not copied", async () => {
    const cache = core.createCache(1, 1, 16, 2, true);
    for (const [from, to] of [
      [0, 32],
      [32, 0],
      [-1, 0],
      [0, -1],
    ] as const)
      expect(await codeOf(() => core.copyCells(cache, Int32Array.of(from), Int32Array.of(to)))).toBe(
        "ERR_PROGRAM",
      );
    expect(await codeOf(() => core.copyCells(cache, Int32Array.of(0, 1), Int32Array.of(2)))).toBe(
      "ERR_PROGRAM",
    );
  });
});

describe("closed handles", () => {
  test("every use is ERR_DISPOSED, a second close is harmless", async () => {
    const parts = await goodParts();
    const program = core.createProgram(parts.core, parts.spec);
    const cancel = core.createCancel();
    const spare = emptyWeight("F32", 1, 32);
    const spareCache = core.createCache(1, 1, 16, 1, true);
    const spareCore = core.createCore(1, "");
    for (const handle of [program, cancel, spare, spareCache, spareCore]) {
      core.close(handle);
      core.close(handle);
    }
    const uses: (() => unknown)[] = [
      () => core.run(program, goodPass(), core.createCancel()),
      () => core.cancel(cancel),
      () => core.run(core.createProgram(parts.core, parts.spec), goodPass(), cancel),
      () => core.unpackRow(spare, 0),
      () => core.packWeight(spare, new Uint8Array(128), 0),
      () => core.createProgram(parts.core, { ...parts.spec, weights: [spare, ...parts.weights.slice(1)] }),
      () => core.copyCells(spareCache, Int32Array.of(0), Int32Array.of(1)),
      () => core.createProgram(parts.core, { ...parts.spec, cache: spareCache }),
      () => core.createProgram(spareCore, parts.spec),
    ];
    for (const use of uses) expect(await codeOf(use), String(use)).toBe("ERR_DISPOSED");
  });

  test("a program keeps what it needs: closing weights, cache and core under it changes nothing", async () => {
    const parts = await goodParts();
    const program = core.createProgram(parts.core, parts.spec);
    const expected = await bits(program, goodPass());
    const { liveBlocks } = core.info();
    for (const handle of [...parts.weights, parts.cache, parts.core]) core.close(handle);
    expect(core.info().liveBlocks).toBe(liveBlocks);
    expect(await bits(program, goodPass())).toBe(expected);
    const last = bits(program, goodPass());
    core.close(program);
    expect(await last).toBe(expected);
    expect(core.info().liveBlocks).toBeLessThan(liveBlocks);
  });

  test("a handle of another kind is ERR_PROGRAM, whatever it is", async () => {
    const parts = await goodParts();
    for (const wrong of [parts.cache, null, undefined, 7, "core", {}, () => 1])
      expect(await codeOf(() => core.createProgram(wrong as Handle, parts.spec))).toBe("ERR_PROGRAM");
    for (const wrong of [null, {}, 1] as unknown[])
      expect(await codeOf(() => core.close(wrong as Handle))).toBe("ERR_PROGRAM");
  });
});

describe.each(Object.keys(weightTypes) as WeightType[])("weights in %s", (type) => {
  const { blockWeights, blockBytes } = layoutByType.get(type)!;
  const columns = 512;

  test("take the file's own bytes", async () => {
    const bytes = (32 * columns * blockBytes) / blockWeights;
    expect(core.packedBytes(weightTypes[type], 32, columns)).toBe(bytes);
    const made = await weight(type, 32, columns, new Seeded(3));
    for (let row = 0; row < 32; row++)
      expect(core.unpackRow(made, row).every(Number.isFinite), `row ${row}`).toBe(true);
  });

  test("are the same in whatever pieces rows come", async () => {
    const rows = 37;
    const bytes = fileBytes(type, rows, columns, new Seeded(5));
    const rowBytes = bytes.length / rows;
    const [whole, single, pieces] = [1, 2, 3].map(() => emptyWeight(type, rows, columns)) as [
      Handle,
      Handle,
      Handle,
    ];
    await core.packWeight(whole, bytes, 0);
    for (let row = 0; row < rows; row++)
      await core.packWeight(single, bytes.subarray(row * rowBytes, (row + 1) * rowBytes), row);
    const cuts = [0, 3, 9, 13, 18, 36, rows];
    for (const [i, end] of cuts.slice(1).entries())
      await core.packWeight(pieces, bytes.subarray(cuts[i]! * rowBytes, end * rowBytes), cuts[i]!);
    for (let row = 0; row < rows; row++) {
      const expected = core.unpackRow(single, row);
      expect(core.unpackRow(whole, row), `row ${row}`).toEqual(expected);
      expect(core.unpackRow(pieces, row), `row ${row}`).toEqual(expected);
    }
  });

  test.runIf(blockWeights > 1)("are refused where a row is not whole blocks", () => {
    expect(() => core.packedBytes(weightTypes[type], 16, columns + blockWeights / 2)).toThrow(
      /a multiple of/,
    );
  });
});

// No golden has this type: its meaning is written down once more here, from ggml's block_iq4_xs.
test("IQ4_XS is dequantised exactly", async () => {
  const levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
  const rows = 20;
  const columns = 512;
  const bytes = fileBytes("IQ4_XS", rows, columns, new Seeded(4));
  const made = emptyWeight("IQ4_XS", rows, columns);
  await core.packWeight(made, bytes, 0);
  const view = new DataView(bytes.buffer);
  for (let row = 0; row < rows; row++) {
    const expected = Array.from({ length: columns }, (_, i) => {
      const block = (row * (columns / 256) + Math.floor(i / 256)) * 136;
      const sub = Math.floor((i % 256) / 32);
      const low = (view.getUint8(block + 4 + (sub >> 1)) >> (4 * (sub % 2))) & 15;
      const high = (view.getUint16(block + 2, true) >> (2 * sub)) & 3;
      const pair = view.getUint8(block + 8 + 16 * sub + (i % 16));
      const level = levels[i % 32 < 16 ? pair & 15 : pair >> 4]!;
      return 2 ** -6 * ((low | (high << 4)) - 32) * level; // every scale of fileBytes is 0x2400, 2^-6
    });
    expect(Array.from(core.unpackRow(made, row), (w) => w + 0)).toEqual(expected.map((w) => w + 0));
  }
});
