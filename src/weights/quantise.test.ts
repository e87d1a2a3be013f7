import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { continuePlainly, embeddedModel, goldenModel } from "../../test/support/engines.js";
import { describeGguf } from "../../test/support/gguf-writer.js";
import { saveHuggingFace, toHuggingFace } from "../../test/support/hugging-face-folder.js";
import { Engine } from "../engine/engine.js";
import { resolveSampling } from "../engine/sampling.js";
import { Weight } from "../runtime/weight.js";
import { openModelSource } from "./open-model-source.js";
import { packMatrix } from "./pack.js";

const f = Math.fround;

/** ggml's quantize_row_q8_0_ref and dequantize_row_q8_0 of a block, in JavaScript; fp16 by way of `half`. */
function q8_0(x: readonly number[]): number[] {
  const d = f(Math.max(...x.map(Math.abs)) / 127);
  const inverse = inverseOf(d);
  return x.map((w) => f(f(half(d)) * roundAway(f(w * inverse))) + 0);
}

function q4_1(x: readonly number[]): number[] {
  const [least, most] = [Math.min(...x), Math.max(...x)];
  const d = f(f(most - least) / 15);
  const inverse = inverseOf(d);
  return x.map(
    (w) => f(Math.min(15, Math.trunc(f(f(f(w - least) * inverse) + 0.5))) * half(d) + half(least)) + 0,
  );
}

/** 0 where it would be infinite: all of such a block is its minimum. */
function inverseOf(d: number): number {
  const inverse = f(1 / d);
  return Number.isFinite(inverse) ? inverse : 0;
}

const roundAway = (x: number) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5);

/** To float16 and back: nearest, ties to even. */
function half(x: number): number {
  const size = Math.abs(x);
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -30)));
  const step = 2 ** (exponent - 10);
  const steps = size / step;
  const down = Math.floor(steps);
  const rest = steps - down;
  const rounded = rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down;
  return Math.sign(x) * rounded * step;
}

async function packed(
  type: "Q8_0" | "Q4_1",
  rows: readonly Float32Array[],
  from: "F32" | "F16" | "BF16" = "F32",
) {
  using weight = new Weight("w", type, rows.length, rows[0]!.length);
  for (const [i, row] of rows.entries()) {
    const bytes =
      from === "BF16" ? toBfloat(row) : new Uint8Array(row.buffer, row.byteOffset, row.byteLength);
    await weight.pack(bytes, i, from);
  }
  return rows.map((_, i) => [...weight.row(i)]);
}

const toBfloat = (row: Float32Array) =>
  new Uint8Array(Uint16Array.from(new Uint32Array(row.buffer), (bits) => bits >>> 16).buffer);

const weights = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.double({ min: -2, max: 2, noNaN: true }) },
    fc.double({ min: -1e4, max: 1e4, noNaN: true }),
    fc.constantFrom(0, -0, 0.5, -0.5, 1, 127, 63.5),
  ),
  { minLength: 64, maxLength: 64 },
);

describe.each([
  ["Q8_0", q8_0],
  ["Q4_1", q4_1],
] as const)("%s", (type, definition) => {
  const blocks = (row: Float32Array) => [0, 32].flatMap((at) => definition([...row.subarray(at, at + 32)]));

  test("rounds as its definition says, every weight of random rows", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(weights, { minLength: 1, maxLength: 20 }), async (numbers) => {
        const rows = numbers.map((row) => Float32Array.from(row));
        const found = await packed(type, rows);
        for (const [i, row] of rows.entries()) expect(found[i]!.map((w) => w + 0)).toEqual(blocks(row));
      }),
      { numRuns: 60, seed: 4 },
    );
  });

  test("BF16 rows are what they are as float32", async () => {
    const rows = [Float32Array.from({ length: 64 }, (_, i) => Math.sin(i * 1.7))];
    const exact = rows.map(
      (row) => new Float32Array(new Uint32Array(row.buffer).map((b) => b & 0xffff0000).buffer),
    );
    expect(await packed(type, rows, "BF16")).toEqual(await packed(type, exact));
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3e38])(
    "a block with %d is not a number, the others are untouched",
    async (bad) => {
      const row = Float32Array.from({ length: 96 }, (_, i) => i / 96);
      row[40] = bad;
      const [found] = await packed(type, [row]);
      expect(found!.slice(32, 64).every(Number.isNaN)).toBe(true);
      expect([...found!.slice(0, 32), ...found!.slice(64)].every(Number.isFinite)).toBe(true);
    },
  );

  test("subnormal weights are zero or as small", async () => {
    const [found] = await packed(type, [Float32Array.from({ length: 32 }, (_, i) => (i - 16) * 1e-44)]);
    for (const w of found!) expect(Math.abs(w)).toBeLessThan(1e-42);
  });
});

test("rows that do not fit are refused by the core", async () => {
  using weight = new Weight("w", "Q8_0", 4, 32);
  const row = new Uint8Array(128);
  await expect(weight.pack(row, 4, "F32")).rejects.toMatchObject({ code: "ERR_PROGRAM" });
  await expect(weight.pack(row, -1, "F32")).rejects.toMatchObject({ code: "ERR_PROGRAM" });
  await expect(weight.pack(row.subarray(1), 0, "F32")).rejects.toMatchObject({ code: "ERR_PROGRAM" });
  await expect(weight.pack(row, 0, "Q4_0")).rejects.toMatchObject({ code: "ERR_PROGRAM" });
  using float = new Weight("w", "F32", 4, 32);
  await expect(float.pack(row, 0, "F16")).rejects.toMatchObject({ code: "ERR_PROGRAM" });
});

describe("a model's matrices", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "outrider-quantise-"));
    await saveHuggingFace(folder, toHuggingFace(describeGguf(await readFile(goldenModel("quant-bf16")))));
  });
  afterAll(() => rm(folder, { recursive: true }));

  const packedTypes = async (path: string, quantize?: "q8_0" | "q4_1" | "none") => {
    await using source = await openModelSource(path, quantize);
    return Object.fromEntries(
      ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.attn_norm.weight"].map((name) => {
        const { type, packAs } = source.tensors.get(name)!;
        return [name, packAs ?? type];
      }),
    );
  };
  const types = (embedding: string, matrix: string) => ({
    "token_embd.weight": embedding,
    "blk.0.attn_q.weight": matrix,
    "blk.0.attn_norm.weight": "F32",
  });

  test("safetensors become q8_0, GGUF files stay what they are; both can be chosen", async () => {
    expect(await packedTypes(folder)).toEqual(types("Q8_0", "Q8_0"));
    expect(await packedTypes(folder, "none")).toEqual(types("BF16", "BF16"));
    expect(await packedTypes(folder, "q4_1")).toEqual(types("Q8_0", "Q4_1"));
    expect(await packedTypes(goldenModel("quant-bf16"))).toEqual(types("BF16", "BF16"));
    expect(await packedTypes(goldenModel("quant-bf16"), "q8_0")).toEqual(types("Q8_0", "Q8_0"));
    expect(await packedTypes(goldenModel("quant-q4_0"), "q8_0")).toEqual(types("Q4_0", "Q4_0"));
    await expect(openModelSource(embeddedModel, "q5_k" as "q8_0")).rejects.toMatchObject({
      code: "ERR_BAD_REQUEST",
      param: "quantize",
    });
  });

  test("the folder and the file give the same bits when both are quantised", async () => {
    const answers = [];
    for (const path of [folder, goldenModel("quant-bf16")]) {
      await using source = await openModelSource(path, "q8_0");
      await using engine = await Engine.load(source);
      using sequence = engine.open();
      await sequence.prefill([1, 9, 33, 70]);
      answers.push(await continuePlainly(sequence, 7, resolveSampling({}, 280, 0), 12));
    }
    expect(answers[0]).toEqual(answers[1]);
  });

  test("a quantised matrix is within half a step of its weights", async () => {
    await using source = await openModelSource(folder, "q8_0");
    await using exact = await openModelSource(folder, "none");
    const name = "blk.0.ffn_up.weight";
    using eight = await packMatrix(source, source.tensors.get(name)!);
    using sixteen = await packMatrix(exact, exact.tensors.get(name)!);
    for (let row = 0; row < eight.rows; row++) {
      const [found, wanted] = [eight.row(row), sixteen.row(row)];
      for (let block = 0; block < found.length; block += 32) {
        const most = Math.max(...wanted.subarray(block, block + 32).map(Math.abs));
        for (let i = block; i < block + 32; i++)
          expect(Math.abs(found[i]! - wanted[i]!)).toBeLessThanOrEqual((most / 127) * 0.57); // fp16's rounding of d too
      }
    }
  });
});
