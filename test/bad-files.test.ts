/** Section A of the bad-input rules: each file is made from a small good one by a named change and must be refused. */
import { spawnSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ErrorCode } from "../src/errors.js";
import { openGguf } from "../src/weights/gguf.js";
import {
  type ArrayValue,
  type Description,
  type Entry,
  patch,
  smallGguf,
  type Tensor,
  withMetadata,
  writeGguf,
} from "./support/gguf-writer.js";

const good = writeGguf(smallGguf());

type BadFile = readonly [name: string, bytes: () => Uint8Array, code: ErrorCode, message: string];

const field = (name: string, value: number | bigint) => () => patch(good, name, value);
const text = (content: string) => () => Buffer.from(content, "latin1");
const cut = (length: number) => () => good.bytes.subarray(0, length);
const built = (description: Description) => () => writeGguf(description).bytes;
const plus = (...entries: Entry[]) => built(withMetadata(smallGguf(), ...entries));
const alignment = (type: Entry["type"], value: Entry["value"]) =>
  plus({ key: "general.alignment", type, value });
const plusTensor = (...tensors: Tensor[]) =>
  built({ ...smallGguf(), tensors: [...smallGguf().tensors, ...tensors] });
const tensor = (name: string | Uint8Array): Tensor => ({ name, type: "F32", shape: [8] });
const nested = (depth: number): ArrayValue =>
  depth === 1 ? { of: "uint8", items: [1] } : { of: "array", items: [nested(depth - 1)] };
const badText = Buffer.from([0x61, 0xc3, 0x28]);

const badFiles: readonly BadFile[] = [
  // 1: not long enough
  ["empty", cut(0), "ERR_MODEL_FORMAT", "the file has 0 bytes, a GGUF header has 24"],
  ["3 bytes", cut(3), "ERR_MODEL_FORMAT", "the file has 3 bytes, a GGUF header has 24"],
  ["23 bytes", cut(23), "ERR_MODEL_FORMAT", "the file has 23 bytes, a GGUF header has 24"],
  // 2: something else
  ["random bytes", text("not a model".repeat(9)), "ERR_MODEL_FORMAT", 'begins with "not ", expected "GGUF"'],
  ["control characters", text("\0\x1b[2".repeat(9)), "ERR_MODEL_FORMAT", 'begins with "\\u0000\\u001b[2"'],
  ["an HTML page", text(`<!DOCTYPE html><title>404</title>${" ".repeat(99)}`), "ERR_MODEL_FORMAT", "HTML"],
  ["a short HTML page", text("\n<html>404</html>"), "ERR_MODEL_FORMAT", "HTML"],
  ["an XML error", text(`<?xml version="1.0"?><Error>AccessDenied</Error>`), "ERR_MODEL_FORMAT", "XML"],
  [
    "a git-LFS pointer",
    text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 98362432\n"),
    "ERR_MODEL_FORMAT",
    "git lfs pull",
  ],
  ["a zip archive", text(`PK\x03\x04${"\0".repeat(99)}`), "ERR_MODEL_FORMAT", "zip"],
  ["a gzip archive", text(`\x1f\x8b\x08${"\0".repeat(99)}`), "ERR_MODEL_FORMAT", "gzip"],
  ["a GGML file", text(`tjgg\x03${"\0".repeat(99)}`), "ERR_MODEL_FORMAT", "before GGUF"],
  [
    "safetensors",
    text(`\x40\0\0\0\0\0\0\0{"__metadata__":{}}${" ".repeat(99)}`),
    "ERR_MODEL_FORMAT",
    "safetensors",
  ],
  ["big-endian", field("version", 0x03000000), "ERR_MODEL_FORMAT", "big-endian"],
  // 3: versions
  ["version 0", field("version", 0), "ERR_MODEL_UNSUPPORTED", "supported: 2 and 3"],
  ["version 1", field("version", 1), "ERR_MODEL_UNSUPPORTED", "version 1 "],
  ["version 99", field("version", 99), "ERR_MODEL_UNSUPPORTED", "version 99 "],
  // 4: counts
  ["2^63 tensors", field("tensors", 2n ** 63n), "ERR_MODEL_LIMIT", "tensors, the limit is 1048576"],
  ["2^64-1 tensors", field("tensors", 2n ** 64n - 1n), "ERR_MODEL_LIMIT", "at byte 8"],
  ["10^9 tensors", field("tensors", 1e9), "ERR_MODEL_LIMIT", "1000000000 tensors"],
  ["10^6 tensors", field("tensors", 1e6), "ERR_MODEL_TRUNCATED", "do not fit in a file of"],
  ["2^63 keys", field("keys", 2n ** 63n), "ERR_MODEL_LIMIT", "metadata keys, the limit is 1048576"],
  ["2^64-1 keys", field("keys", 2n ** 64n - 1n), "ERR_MODEL_LIMIT", "at byte 16"],
  ["10^9 keys", field("keys", 1e9), "ERR_MODEL_LIMIT", "1000000000 metadata keys"],
  ["10^6 keys", field("keys", 1e6), "ERR_MODEL_TRUNCATED", "do not fit in a file of"],
  // 5: strings, arrays, value types
  [
    "a string past the end",
    field("key general.architecture length", 1e6),
    "ERR_MODEL_TRUNCATED",
    "general.arch",
  ],
  [
    "a string of 2^64-1 bytes",
    field("key a.int8 name length", 2n ** 64n - 1n),
    "ERR_MODEL_TRUNCATED",
    "string",
  ],
  ["a key of 70 kB", plus({ key: "k".repeat(7e4), type: "bool", value: true }), "ERR_MODEL_LIMIT", "65535"],
  [
    "a string of 17 MB",
    plus({ key: "k", type: "string", value: "x".repeat(17e6) }),
    "ERR_MODEL_LIMIT",
    "16777216",
  ],
  ["strings past the end", field("key some.strings count", 200), "ERR_MODEL_TRUNCATED", "some.strings"],
  ["2^62 strings", field("key some.strings count", 2n ** 62n), "ERR_MODEL_TRUNCATED", "some.strings"],
  [
    "an element past the end",
    field("key some.strings[1] length", 1e5),
    "ERR_MODEL_TRUNCATED",
    "some.strings",
  ],
  [
    "an element of 2^63 bytes",
    field("key some.strings[1] length", 2n ** 63n),
    "ERR_MODEL_TRUNCATED",
    "string",
  ],
  ["numbers past the end", field("key some.numbers count", 2n ** 61n), "ERR_MODEL_TRUNCATED", "some.numbers"],
  ["arrays past the end", field("key some.arrays count", 1e5), "ERR_MODEL_TRUNCATED", "some.arrays"],
  ["booleans past the end", field("key some.bools count", 1e9), "ERR_MODEL_TRUNCATED", "some.bools"],
  ["a value type 13", field("key a.int8 type", 13), "ERR_MODEL_FORMAT", "unknown value type 13"],
  ["an element type 99", field("key some.numbers element type", 99), "ERR_MODEL_FORMAT", "type 99 of array"],
  ["a boolean 2", field("key a.bool value", 2), "ERR_MODEL_FORMAT", "a boolean is 2"],
  [
    "arrays 9 deep",
    plus({ key: "k", type: "array", value: nested(9) }),
    "ERR_MODEL_FORMAT",
    "more than 8 deep",
  ],
  [
    "arrays 1000 deep",
    plus({ key: "k", type: "array", value: nested(1000) }),
    "ERR_MODEL_FORMAT",
    "more than 8",
  ],
  ["cut in the metadata", cut(300), "ERR_MODEL_TRUNCATED", "the file ends at byte 300"],
  // 6: where tensors are
  ["cut in the table", cut(good.fields.get("tensor cube type")!.at), "ERR_MODEL_TRUNCATED", 'tensor "cube"'],
  ["cut in the data", cut(good.bytes.length - 1), "ERR_MODEL_TRUNCATED", 'tensor "cube"'],
  ["cut before the data", cut(good.dataOffset), "ERR_MODEL_TRUNCATED", 'tensor "plain"'],
  ["an offset past the end", field("tensor blocks offset", 1e6), "ERR_MODEL_TRUNCATED", 'tensor "blocks"'],
  ["an offset that wraps", field("tensor blocks offset", 2n ** 64n - 32n), "ERR_MODEL_TRUNCATED", "blocks"],
  ["a size past the end", field("tensor cube dimension 2", 1e6), "ERR_MODEL_TRUNCATED", 'tensor "cube"'],
  [
    "an offset not aligned",
    field("tensor blocks offset", 63),
    "ERR_MODEL_FORMAT",
    "not a multiple of the alignment 32",
  ],
  ["overlapping", field("tensor blocks offset", 32), "ERR_MODEL_FORMAT", 'overlap those of tensor "plain"'],
  ["the same place", field("tensor blocks offset", 0), "ERR_MODEL_FORMAT", "overlap"],
  // 7: dimensions
  ["a dimension 0", field("tensor blocks dimension 1", 0), "ERR_MODEL_FORMAT", "dimension 1 is 0"],
  ["a dimension 2^63", field("tensor blocks dimension 1", 2n ** 63n), "ERR_MODEL_LIMIT", "2^53"],
  ["a product of 2^51", field("tensor cube dimension 1", 2 ** 48), "ERR_MODEL_TRUNCATED", "cube"],
  ["a product over 2^53", field("tensor cube dimension 1", 2 ** 52), "ERR_MODEL_LIMIT", "2^53"],
  [
    "200 dimensions",
    field("tensor cube dimensions", 200),
    "ERR_MODEL_LIMIT",
    "200 dimensions, the limit is 8",
  ],
  [
    "2^32-1 dimensions",
    field("tensor cube dimensions", 2 ** 32 - 1),
    "ERR_MODEL_LIMIT",
    "4294967295 dimensions",
  ],
  ["no dimensions", field("tensor cube dimensions", 0), "ERR_MODEL_FORMAT", "no dimensions"],
  [
    "a row of 65 in blocks of 32",
    field("tensor blocks dimension 0", 65),
    "ERR_MODEL_FORMAT",
    "32 weights of a Q4_1",
  ],
  // 8: names
  ["a key twice", plusTwice(), "ERR_MODEL_FORMAT", 'key "a.int8"'],
  ["a tensor twice", plusTensor(tensor("plain")), "ERR_MODEL_FORMAT", 'tensor "plain"'],
  ["an empty key", plus({ key: "", type: "bool", value: true }), "ERR_MODEL_FORMAT", "its name is empty"],
  ["an empty tensor name", plusTensor(tensor("")), "ERR_MODEL_FORMAT", "tensor 4 of 4"],
  [
    "a key not UTF-8",
    plus({ key: badText, type: "bool", value: true }),
    "ERR_MODEL_FORMAT",
    "not valid UTF-8",
  ],
  ["a tensor name not UTF-8", plusTensor(tensor(badText)), "ERR_MODEL_FORMAT", "not valid UTF-8"],
  ["a value not UTF-8", plus({ key: "k", type: "string", value: badText }), "ERR_MODEL_FORMAT", 'key "k"'],
  [
    "an element not UTF-8",
    plus({ key: "k", type: "array", value: { of: "string", items: ["é", badText] } }),
    "ERR_MODEL_FORMAT",
    "element 1 is not valid UTF-8",
  ],
  [
    "a character shared by two elements",
    plus({
      key: "k",
      type: "array",
      value: { of: "string", items: [Buffer.from([0xc3]), Buffer.from([0xa9])] },
    }),
    "ERR_MODEL_FORMAT",
    "element 0 is not valid UTF-8",
  ],
  // 9: alignment
  ["alignment 0", alignment("uint32", 0), "ERR_MODEL_FORMAT", "0 is not a power of two"],
  ["alignment 3", alignment("uint32", 3), "ERR_MODEL_FORMAT", "3 is not a power of two"],
  [
    "alignment 2^31",
    alignment("uint32", 2 ** 31),
    "ERR_MODEL_FORMAT",
    "2147483648 is not a power of two from 1",
  ],
  ["alignment as a string", alignment("string", "32"), "ERR_MODEL_FORMAT", "expected 4 (uint32)"],
  ["alignment as 64 bits", alignment("uint64", 32), "ERR_MODEL_FORMAT", "expected 4 (uint32)"],
  // 10: the part that needs no architecture
  ["a weight type 4, removed", field("tensor cube type", 4), "ERR_MODEL_UNSUPPORTED", 'tensor "cube"'],
  [
    "a weight type 2^31",
    field("tensor cube type", 2 ** 31),
    "ERR_MODEL_UNSUPPORTED",
    "weight type 2147483648",
  ],
];

function plusTwice(): () => Uint8Array {
  const { metadata, tensors } = smallGguf();
  return built({ tensors, metadata: [...metadata, metadata.find(({ key }) => key === "a.int8")!] });
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "outrider-bad-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("the file that all others are made from is good", async () => {
  await writeFile(join(folder, "good.gguf"), good.bytes);
  await using file = await openGguf(join(folder, "good.gguf"));
  expect(file.tensors.size).toBe(3);
});

describe("refused within a second", () => {
  test.each(badFiles)("%s", async (_name, make, code, message) => {
    const path = join(folder, "bad.gguf");
    await writeFile(path, make());
    const start = performance.now();
    const error = await openGguf(path).then(
      () => undefined,
      (e) => e,
    );
    const took = performance.now() - start;
    expect(error).toMatchObject({ name: "OutriderError", code });
    expect(error.message).toContain(`${path}: `);
    expect(error.message).toContain(message);
    expect(error.message).toMatch(/ at byte \d+: /);
    // One line, whatever the file holds.
    expect(error.message).not.toMatch(/\p{Cc}/u);
    expect(error.message.length).toBeLessThan(path.length + 400);
    expect(took).toBeLessThan(1000);
  });
});

describe("limits", () => {
  test.each([
    ["metadataBytes", 500, "metadata up to here take more than the limit of 500 bytes"],
    ["stringBytes", 4, "a string of 5 bytes, the limit is 4"],
    ["arrayElements", 4, "an array of 5 elements, the limit is 4"],
    ["keys", 15, "16 metadata keys, the limit is 15"],
    ["tensors", 2, "3 tensors, the limit is 2"],
    ["dimensions", 2, "3 dimensions, the limit is 2"],
  ])("%s", async (limit, value, message) => {
    const path = join(folder, "limited.gguf");
    await writeFile(path, good.bytes);
    await expect(openGguf(path, { [limit]: value })).rejects.toMatchObject({
      code: "ERR_MODEL_LIMIT",
      message: expect.stringContaining(message),
    });
    await using file = await openGguf(path, { [limit]: limit === "metadataBytes" ? 5000 : value + 1 });
    expect(file.metadata.size).toBe(16);
  });

  test("stringBytes holds for the elements of an array too", async () => {
    const path = join(folder, "element.gguf");
    const entry = { key: "k", type: "array", value: { of: "string", items: ["abcde", "abcdef"] } } as const;
    await writeFile(path, writeGguf({ metadata: [entry], tensors: [] }).bytes);
    await expect(openGguf(path, { stringBytes: 5 })).rejects.toMatchObject({
      code: "ERR_MODEL_LIMIT",
      message: expect.stringContaining('key "k" at byte 62: a string of 6 bytes, the limit is 5'),
    });
    await using file = await openGguf(path, { stringBytes: 6 });
    expect(file.metadata.get("k")).toEqual(entry.value.items);
  });

  test("strings and arrays that take more memory than file are counted by what they take", async () => {
    const items = Array.from({ length: 2e4 }, () => "");
    const strings = plus({ key: "k", type: "array", value: { of: "string", items } });
    const path = join(folder, "light.gguf");
    await writeFile(path, strings());
    await expect(openGguf(path, { metadataBytes: 4e5 })).rejects.toMatchObject({ code: "ERR_MODEL_LIMIT" });
  });

  test("absurd counts cost no memory", async () => {
    const path = join(folder, "counts.gguf");
    await writeFile(path, patch(good, "keys", 1e9));
    await openGguf(path).catch(() => {});
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 20; i++)
      await expect(openGguf(path)).rejects.toMatchObject({ code: "ERR_MODEL_LIMIT" });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
  });
});

describe("paths", () => {
  test("no such file, a folder, a file in the place of a folder", async () => {
    await mkdir(join(folder, "models"), { recursive: true });
    await writeFile(join(folder, "file"), "x");
    for (const [name, message] of [
      ["nothing.gguf", "no such file"],
      ["models", "this is a folder"],
      ["file/x.gguf", "not a folder"],
    ] as const) {
      await expect(openGguf(join(folder, name))).rejects.toMatchObject({
        code: "ERR_PATH",
        message: expect.stringContaining(message),
      });
    }
  });

  test("a name of the hub without its hf: is told how to be written", async () => {
    await expect(openGguf("owner/model-GGUF")).rejects.toMatchObject({
      code: "ERR_PATH",
      message: "owner/model-GGUF: no such file; of the hub's models it would be hf:owner/model-GGUF",
    });
  });

  test.skipIf(process.platform === "win32")("a named pipe: refused, not waited for", async () => {
    const path = join(folder, "pipe");
    spawnSync("mkfifo", [path]);
    await expect(openGguf(path)).rejects.toMatchObject({
      code: "ERR_PATH",
      message: expect.stringContaining("pipe"),
    });
  });

  test.skipIf(process.platform === "win32")("no permission", async () => {
    const path = join(folder, "secret.gguf");
    await writeFile(path, good.bytes);
    await chmod(path, 0);
    const root = process.geteuid?.() === 0;
    // Root may read everything, so it asks as somebody else.
    if (root) process.seteuid!(65_534);
    try {
      await expect(openGguf(path)).rejects.toMatchObject({
        code: "ERR_PATH",
        message: expect.stringContaining("no permission"),
      });
    } finally {
      if (root) process.seteuid!(0);
    }
  });
});
