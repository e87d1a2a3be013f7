import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";

const script = fileURLToPath(new URL("requantize.mjs", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "requantize-"));
afterAll(() => rmSync(folder, { recursive: true }));

const input = join(folder, "in.gguf");
const run = (output, ...types) =>
  spawnSync(process.execPath, [script, input, join(folder, output), ...types], { encoding: "utf8" });

const u32 = (value) => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const string = (text) => Buffer.concat([u64(text.length), Buffer.from(text)]);
const floats = (values) => Buffer.from(Float32Array.from(values).buffer);
const counted = (count, make) => Array.from({ length: count }, (_, i) => make(i));

// Ordinary weights with ties, a block of zeros, and one whose scale is a subnormal half.
const plain = floats([
  ...counted(32, (i) => (((i * 37) % 101) - 50) / 64),
  ...counted(32, () => 0),
  ...counted(32, (i) => (((i * 53) % 97) - 48) * 2 ** -22),
]);
const packed = Buffer.from([0x66, 0x2e, 0x00, 0xb8, ...counted(16, (i) => i | ((15 - i) << 4))]); // Q4_1
const norm = floats([1, 2, 3, 4, 5, 6, 7, 8]);

const tensor = (name, shape, type, offset) => [
  string(name),
  u32(shape.length),
  ...shape.map(u64),
  u32(type),
  u64(offset),
];
const header = Buffer.concat([
  Buffer.from("GGUF"),
  u32(3),
  u64(3),
  u64(2),
  ...[string("general.file_type"), u32(4), u32(3)],
  ...[string("words"), u32(9), u32(8), u64(2), string("one"), string("two")],
  ...tensor("plain", [32, 3], 0, 0),
  ...tensor("token_embd.weight", [32, 1], 3, 384),
  ...tensor("norm", [8], 0, 416),
]);
const padding = (length) => Buffer.alloc((32 - (length % 32)) % 32);
writeFileSync(
  input,
  Buffer.concat([header, padding(header.length), plain, packed, padding(packed.length), norm]),
);

// From quantize_row_*_ref (and dequantize_row_q4_1) of llama.cpp's libggml-base, release v0.5.0.
const reference = {
  Q8_0: {
    plain:
      "4d1e81df3d9af856b41270cd2b89e745a2005ebb1977d53390ee4caa0866c3217fdc" +
      "00000000000000000000000000000000000000000000000000000000000000000000" +
      "0200810d9925b13dc855e06cf884109b28b340cb57e36ffb86139e2ab642ce5ae672",
    packed: "0820c0cddae7f3000d1926333f4c5966727f7f7266594c3f3326190d00f3e7dacdc0",
  },
  Q4_0: {
    plain:
      "402ee046acf258bd1379df358be046acf268" +
      "008088888888888888888888888888888888" +
      "1800c059e26af38c059d26bf38c059e26bf3",
    packed: "ffaf0c1b2a2a3948576666758493a2a2b1c0",
  },
};

/** The data of OUT by the sizes that its three tensors must have. */
function dataOf(output, ...sizes) {
  const file = readFileSync(join(folder, output));
  const padded = sizes.map((size) => size + padding(size).length);
  let at = file.length - padded.reduce((sum, size) => sum + size);
  return sizes.map((size, i) => {
    at += padded[i];
    return file.toString("hex", at - padded[i], at - padded[i] + size);
  });
}

describe("requantize", () => {
  test.each([
    ["Q8_0", 7, 102, 34],
    ["Q4_0", 2, 54, 18],
  ])("%s equals llama.cpp's quantiser bit for bit", (type, fileType, ...sizes) => {
    const output = `${type}.gguf`;
    expect(run(output, type)).toMatchObject({ status: 0, stderr: "" });
    const { plain: wanted, packed: wantedPacked } = reference[type];
    expect(dataOf(output, ...sizes, norm.length)).toEqual([wanted, wantedPacked, norm.toString("hex")]);
    const entry = Buffer.concat([string("general.file_type"), u32(4), u32(fileType)]);
    expect(readFileSync(join(folder, output)).includes(entry)).toBe(true);
  });

  test("the embedding can have its own type", () => {
    expect(run("mixed.gguf", "Q4_0", "Q8_0").status).toBe(0);
    const [inner, embedding] = dataOf("mixed.gguf", 54, 34, norm.length);
    expect([inner, embedding]).toEqual([reference.Q4_0.plain, reference.Q8_0.packed]);
  });

  test("a file is made once, and again when it is not what it should be", () => {
    const output = join(folder, "once.gguf");
    expect(run("once.gguf", "Q8_0").stdout).toBe(`${output}: made\n`);
    expect(run("once.gguf", "Q8_0").stdout).toBe(`${output}: already made\n`);
    expect(run("once.gguf", "Q4_0").stdout).toBe(`${output}: made\n`);
    truncateSync(output, 100);
    expect(run("once.gguf", "Q4_0").stdout).toBe(`${output}: made\n`);
  });

  test("a file cut off is refused in one line", () => {
    const whole = readFileSync(input);
    try {
      for (const length of [10, 60, header.length - 1, whole.length - 40]) {
        writeFileSync(input, whole.subarray(0, length));
        const { status, stderr } = run("never.gguf", "Q8_0");
        expect(status).toBe(1);
        expect(stderr).toMatch(/^.*in\.gguf: .*\n$/);
      }
    } finally {
      writeFileSync(input, whole);
    }
  });
});
