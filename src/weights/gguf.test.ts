import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describeGguf, smallGguf, withMetadata, writeGguf } from "../../test/support/gguf-writer.js";
import { defaultGgufLimits, type GgufFile, openGguf, type ReadOptions } from "./gguf.js";
import { parseGgufHeader } from "./gguf-header.js";

const goldens = new URL("../../test/goldens/arch/", import.meta.url).pathname;
const embedded = new URL("../../models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url).pathname;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "outrider-gguf-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function save(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

/** All bytes of a tensor, with what the chunks say about themselves checked. */
async function readAll(file: GgufFile, name: string, options?: ReadOptions): Promise<Buffer> {
  const tensor = file.tensors.get(name)!;
  const parts: Buffer[] = [];
  let rows = 0;
  for await (const chunk of file.read(tensor, options)) {
    expect(chunk.firstRow).toBe(rows);
    expect(chunk.bytes.length).toBe((chunk.rows * tensor.bytes) / tensor.rows);
    parts.push(Buffer.from(chunk.bytes));
    rows += chunk.rows;
  }
  expect(rows).toBe(tensor.rows);
  return Buffer.concat(parts);
}

describe("a file with every type of value", () => {
  test("gives each value back", async () => {
    const { bytes, dataOffset } = writeGguf(smallGguf());
    await using file = await openGguf(await save("small.gguf", bytes));
    expect(file).toMatchObject({ version: 3, size: bytes.length, alignment: 32, dataOffset });
    expect(Object.fromEntries(file.metadata)).toStrictEqual({
      "general.architecture": "llama",
      "general.alignment": 32,
      "a.uint8": 200,
      "a.int8": -100,
      "a.uint16": 60_000,
      "a.int16": -30_000,
      "a.int32": -2_000_000_000,
      "a.float32": 0.5,
      "a.bool": true,
      "a.uint64": 2n ** 63n,
      "a.int64": -5,
      "a.float64": Math.PI,
      "some.numbers": Int32Array.of(1, -2, 3),
      "some.bools": [true, false],
      "some.strings": ["", "a", "Ġhé", "😀", "\ufeff\0"],
      "some.arrays": [Uint8Array.of(1, 2), ["x"]],
    });
    expect(file.tensors.get("cube")).toEqual({
      name: "cube",
      type: "F16",
      shape: [4, 3, 2],
      rows: 6,
      columns: 4,
      offset: dataOffset + 64 + 288,
      bytes: 48,
    });
  });

  test.each(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"] as const)(
    "an array of %s",
    async (type) => {
      const entry = { key: "numbers", type: "array", value: { of: type, items: [1, 2, 100] } } as const;
      // One byte before it, so that the numbers stand at an odd address.
      const metadata = [{ key: "odd", type: "uint8", value: 0 } as const, entry];
      await using file = await openGguf(await save("array.gguf", writeGguf({ metadata, tensors: [] }).bytes));
      const numbers = file.metadata.get("numbers") as Float64Array;
      expect([...numbers]).toEqual([1, 2, 100]);
      expect(numbers.constructor.name.toLowerCase()).toBe(`${type}array`);
    },
  );

  test("arrays of 64-bit integers stay exact", async () => {
    const items = [0n, 2n ** 63n - 1n];
    const metadata = (["uint64", "int64"] as const).map(
      (of) => ({ key: of, type: "array", value: { of, items } }) as const,
    );
    await using file = await openGguf(await save("big.gguf", writeGguf({ metadata, tensors: [] }).bytes));
    expect(file.metadata.get("uint64")).toEqual(BigUint64Array.from(items));
    expect(file.metadata.get("int64")).toEqual(BigInt64Array.from(items));
  });

  test("version 2 reads the same; a text that holds the reader's own separator too", async () => {
    const strings = ["\ufeffa", "a\n\x1f\x1e\x1d\x1c\x1b\x1a\x19b", "", "\n\x1f\x1e\x1d\x1c\x1b\x1a\x19"];
    const description = withMetadata(
      { ...smallGguf(), version: 2 },
      { key: "some.strings", type: "array", value: { of: "string", items: strings } },
    );
    await using file = await openGguf(await save("v2.gguf", writeGguf(description).bytes));
    expect(file.version).toBe(2);
    expect(file.metadata.get("some.strings")).toEqual(strings);
    expect(file.metadata.get("some.strings")).toBe(file.metadata.get("some.strings"));
  });

  test("a wider alignment, and __proto__ as an ordinary key", async () => {
    const description = withMetadata(
      { ...smallGguf(), alignment: 4096 },
      { key: "general.alignment", type: "uint32", value: 4096 },
      { key: "__proto__", type: "string", value: "\ufeffa key like any other" },
    );
    await using file = await openGguf(await save("aligned.gguf", writeGguf(description).bytes));
    expect(file.dataOffset % 4096).toBe(0);
    expect(file.metadata.get("__proto__")).toBe("\ufeffa key like any other");
    expect(await readAll(file, "blocks")).toEqual(description.tensors[1]!.data);
  });
});

test("a header larger than what is read at first", async () => {
  const items = Array.from({ length: 300 }, (_, i) => String.fromCodePoint(0x4e00 + i).repeat(10_000));
  const description = withMetadata(
    smallGguf(),
    { key: "long", type: "string", value: "ä".repeat(2e6) },
    { key: "many", type: "array", value: { of: "string", items } },
  );
  await using file = await openGguf(await save("long.gguf", writeGguf(description).bytes));
  expect(file.dataOffset).toBeGreaterThan(12e6);
  expect(file.metadata.get("long")).toBe("ä".repeat(2e6));
  expect(file.metadata.get("many")).toEqual(items);
  expect(await readAll(file, "blocks")).toEqual(description.tensors[1]!.data);
});

describe("reading tensors", () => {
  test.each([undefined, 1, 2, 3, 7, 100])("%s rows at once give the same bytes", async (chunkRows) => {
    const description = smallGguf();
    await using file = await openGguf(await save("rows.gguf", writeGguf(description).bytes));
    for (const { name, data } of description.tensors) {
      expect(await readAll(file, name as string, { chunkRows })).toEqual(data);
    }
  });

  test("two streams at once do not share a buffer", async () => {
    const description = smallGguf();
    await using file = await openGguf(await save("two.gguf", writeGguf(description).bytes));
    await readAll(file, "plain", { chunkRows: 1 }); // leaves its buffers to the next two
    const [one, two] = await Promise.all([
      readAll(file, "blocks", { chunkRows: 2 }),
      readAll(file, "blocks", { chunkRows: 3 }),
    ]);
    expect(one).toEqual(description.tensors[1]!.data);
    expect(two).toEqual(one);
  });

  test("a stream can be left early; chunkRows must be a whole number", async () => {
    await using file = await openGguf(await save("left.gguf", writeGguf(smallGguf()).bytes));
    const tensor = file.tensors.get("blocks")!;
    for await (const { firstRow } of file.read(tensor, { chunkRows: 1 })) if (firstRow === 2) break;
    for (const chunkRows of [0, -1, 1.5, Number.NaN]) {
      await expect(readAll(file, "blocks", { chunkRows })).rejects.toMatchObject({ code: "ERR_BAD_REQUEST" });
    }
  });

  test("a tensor of several chunks", async () => {
    const data = Buffer.from(Float32Array.from({ length: 3 * 2 ** 20 }, (_, i) => i).buffer); // 12 MiB
    const tensors = [{ name: "large", type: "F32", shape: [1536, 2048], data } as const];
    await using file = await openGguf(await save("large.gguf", writeGguf({ metadata: [], tensors }).bytes));
    const sizes: number[] = [];
    for await (const { bytes } of file.read(file.tensors.get("large")!)) sizes.push(bytes.length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(2 * 2 ** 20);
    expect(sizes).toHaveLength(7);
    expect((await readAll(file, "large")).equals(data)).toBe(true);
  });

  test("a row of more than 64 MiB is refused before anything is allocated for it", async () => {
    const shape = [2 ** 25, 1];
    const { bytes } = writeGguf({
      metadata: [],
      tensors: [{ name: "wide", type: "F32", shape, data: Buffer.alloc(4) }],
    });
    const path = await save("wide.gguf", bytes);
    await truncate(path, 2 ** 27 + 4096); // sparse
    await using file = await openGguf(path);
    await expect(readAll(file, "wide")).rejects.toMatchObject({ code: "ERR_MODEL_LIMIT" });
  });

  test("a file that shrinks while it is open", async () => {
    const { bytes } = writeGguf(smallGguf());
    const path = await save("shrinks.gguf", bytes);
    await using file = await openGguf(path);
    await truncate(path, bytes.length - 1);
    await expect(readAll(file, "cube")).rejects.toMatchObject({
      code: "ERR_MODEL_TRUNCATED",
      message: expect.stringContaining('tensor "cube"'),
    });
  });

  test("shrinks between two chunks, with the next read ahead: the error comes with that chunk", async () => {
    const { bytes } = writeGguf(smallGguf());
    const path = await save("shrinks.gguf", bytes);
    await using file = await openGguf(path);
    const rows = file.read(file.tensors.get("cube")!, { chunkRows: 1 })[Symbol.asyncIterator]();
    await rows.next();
    await truncate(path, 100);
    await rows.next();
    await new Promise((resolve) => setTimeout(resolve, 20)); // time to count as an unhandled rejection
    await expect(Promise.all([rows.next(), rows.next()])).rejects.toMatchObject({
      code: "ERR_MODEL_TRUNCATED",
    });
  });

  test("after disposal, which may come twice", async () => {
    const file = await openGguf(await save("disposed.gguf", writeGguf(smallGguf()).bytes));
    await file[Symbol.asyncDispose]();
    await file[Symbol.asyncDispose]();
    await expect(readAll(file, "plain")).rejects.toMatchObject({ code: "ERR_DISPOSED" });
  });
});

describe("known files", () => {
  test("every golden model: metadata and tensors as the program that wrote it says", async () => {
    const names = (await readdir(goldens)).filter((name) => name.endsWith(".json"));
    expect(names.length).toBeGreaterThan(25);
    for (const name of names) {
      const golden = JSON.parse(await readFile(join(goldens, name), "utf8"));
      await using file = await openGguf(join(goldens, golden.file));
      expect(file.size).toBe(golden.bytes);
      for (const [key, value] of Object.entries(golden.metadata)) {
        expect(file.metadata.get(key), `${name} ${key}`).toEqual(value);
      }
      const tensors = Object.entries<[number[], string]>(golden.tensors);
      expect(tensors.length).toBeGreaterThan(8);
      for (const [tensor, [shape, type]] of tensors) {
        expect(file.tensors.get(tensor), `${name} ${tensor}`).toMatchObject({ shape, type });
      }
      expect(file.metadata.get("tokenizer.ggml.tokens")).toHaveLength(golden.vocab);
    }
  });

  test("float32 weights of a golden model are the numbers that its own recipe dequantised", async () => {
    const golden = JSON.parse(await readFile(join(goldens, "quant-f16.json"), "utf8"));
    await using file = await openGguf(join(goldens, golden.file));
    for (const [name, { row, values }] of Object.entries<{ row: number; values: number[] }>(golden.dequant)) {
      const tensor = file.tensors.get(name)!;
      const bytes = await readAll(file, name, { chunkRows: 16 });
      const at = (row * tensor.bytes) / tensor.rows;
      const halves = values.map((_, i) => halfToFloat(bytes.readUInt16LE(at + 2 * i)));
      for (const [i, half] of halves.entries()) expect(half, `${name} ${i}`).toBeCloseTo(values[i]!, 7);
    }
  });

  test("the embedded model: the same as an independent parser finds, every byte", async () => {
    const bytes = await readFile(embedded);
    const independent = describeGguf(bytes);
    await using file = await openGguf(embedded);
    expect(file.metadata.size).toBe(33);
    for (const { key, value } of independent.metadata) {
      const expected = typeof value === "object" && "items" in value ? value.items : value;
      const found = file.metadata.get(key as string)!;
      expect(ArrayBuffer.isView(found) ? [...(found as Int32Array)] : found, key as string).toEqual(expected);
    }
    expect(file.tensors.size).toBe(272);
    const hash = createHash("sha256");
    for (const name of file.tensors.keys()) hash.update(await readAll(file, name));
    const expected = createHash("sha256");
    for (const { data } of independent.tensors) expected.update(data!);
    expect(hash.digest("hex")).toBe(expected.digest("hex"));
  });

  test("the header's parser asks for more until it has all, and finds the same", async () => {
    const { bytes, dataOffset } = writeGguf(smallGguf());
    const whole = parseGgufHeader(bytes, bytes.length, "x");
    for (let have = 24; have < dataOffset; have++) {
      const part = parseGgufHeader(bytes.subarray(0, have), bytes.length, "x");
      if ("bytesNeeded" in part) expect(part.bytesNeeded).toBeGreaterThan(have);
      else
        expect(Object.fromEntries(part.metadata)).toEqual(
          Object.fromEntries((whole as typeof part).metadata),
        );
    }
  });
});

test("the default limits are those of the documentation", () => {
  expect(defaultGgufLimits).toEqual({
    metadataBytes: 268_435_456,
    stringBytes: 16_777_216,
    arrayElements: 16_777_216,
    keys: 1_048_576,
    tensors: 1_048_576,
    dimensions: 8,
  });
});

function halfToFloat(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
}
