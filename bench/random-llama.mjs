/**
 * Writes a llama model of a real one's shape with random weights, for measuring:
 *
 *   node bench/random-llama.mjs tiny|1b|3b Q4_0|Q4_K|Q6_K|Q8_0 OUT.gguf
 *
 * The shapes are Llama 3.2's (but for `tiny`, which tries out a benchmark) with the embedded model's tokenizer. Blocks hold random
 * levels and scales so small that a row's weights have about the size that a trained model's have.
 */
import { createWriteStream, readFileSync } from "node:fs";
import { argv, exit } from "node:process";
import { finished } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { embeddedModel } from "../dist/index.js";
import { lengthBytes, readGguf, roundUp, stringBytes, u32Bytes } from "./gguf.mjs";

export const shapes = {
  tiny: { layers: 4, width: 512, feedForward: 1536, heads: 8, kvHeads: 4 },
  "1b": { layers: 16, width: 2048, feedForward: 8192, heads: 32, kvHeads: 8 },
  "3b": { layers: 28, width: 3072, feedForward: 8192, heads: 24, kvHeads: 8 },
};
/** `halves`: where a block's float16 numbers lie, and what they are. */
export const types = {
  Q4_0: { id: 2, fileType: 2, weights: 32, bytes: 18, halves: [[0, 0.005]] },
  // Scales of 0 to 63 and minima of 0 to 63, which shift the levels' middle to 0 on average.
  Q4_K: {
    id: 12,
    fileType: 14,
    weights: 256,
    bytes: 144,
    halves: [
      [0, 1.5e-4],
      [2, 1.1e-3],
    ],
  },
  Q6_K: { id: 14, fileType: 18, weights: 256, bytes: 210, halves: [[208, 1.7e-5]] },
  Q8_0: { id: 8, fileType: 7, weights: 32, bytes: 34, halves: [[0, 3e-4]] },
};
const F32 = 0;
const ALIGNMENT = 32;

/** The bits of a float16 near a number from 2^-24 to 1. */
function half(value) {
  const exponent = Math.max(-14, Math.floor(Math.log2(value)));
  const units = Math.round(value * 2 ** (10 - exponent));
  return ((exponent + 14) << 10) + units;
}

/** 4,093 blocks, which the tensors take turn by turn. */
function someBlocks(type) {
  const bytes = Buffer.alloc(4093 * type.bytes);
  let state = 1;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  for (let at = 0; at < bytes.length; at += type.bytes)
    for (const [offset, value] of type.halves) bytes.writeUInt16LE(half(value), at + offset);
  return bytes;
}

const float = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
};

const readEmbedded = () => readGguf(readFileSync(embeddedModel), embeddedModel);
const vocabOf = (embedded) => embedded.tensors.find((t) => t.name === "token_embd.weight").shape[1];

/** Name, columns and, of a matrix, rows. */
function tensorsOf(shape, vocab) {
  const kvWidth = (shape.width / shape.heads) * shape.kvHeads;
  const layer = (i) => [
    [`blk.${i}.attn_norm.weight`, shape.width],
    [`blk.${i}.attn_q.weight`, shape.width, shape.width],
    [`blk.${i}.attn_k.weight`, shape.width, kvWidth],
    [`blk.${i}.attn_v.weight`, shape.width, kvWidth],
    [`blk.${i}.attn_output.weight`, shape.width, shape.width],
    [`blk.${i}.ffn_norm.weight`, shape.width],
    [`blk.${i}.ffn_gate.weight`, shape.width, shape.feedForward],
    [`blk.${i}.ffn_up.weight`, shape.width, shape.feedForward],
    [`blk.${i}.ffn_down.weight`, shape.feedForward, shape.width],
  ];
  return [
    ["token_embd.weight", shape.width, vocab],
    ["output_norm.weight", shape.width],
    ...Array.from({ length: shape.layers }, (_, i) => layer(i)).flat(),
  ];
}

const bytesOf = (type, [, columns, rows]) =>
  rows ? (columns / type.weights) * type.bytes * rows : columns * 4;

/** Bytes of all weights of such a file, which is nearly all of it. */
export function weightBytes(size, typeName) {
  const tensors = tensorsOf(shapes[size], vocabOf(readEmbedded()));
  return tensors.reduce((sum, tensor) => sum + bytesOf(types[typeName], tensor), 0);
}

export async function writeRandomLlama(size, typeName, output) {
  const [shape, type] = [shapes[size], types[typeName]];
  const embedded = readEmbedded();
  const tokenizer = [...embedded.entries]
    .filter(([key]) => key.startsWith("tokenizer."))
    .map(([, { bytes }]) => bytes);
  const vocab = vocabOf(embedded);
  const numbers = {
    "general.file_type": type.fileType,
    "llama.block_count": shape.layers,
    "llama.context_length": 4096,
    "llama.embedding_length": shape.width,
    "llama.feed_forward_length": shape.feedForward,
    "llama.attention.head_count": shape.heads,
    "llama.attention.head_count_kv": shape.kvHeads,
    "llama.vocab_size": vocab,
  };
  const floats = { "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 500_000 };
  const metadata = [
    ...stringBytes("general.architecture"),
    u32Bytes(8),
    ...stringBytes("llama"),
    ...Object.entries(numbers).flatMap(([key, value]) => [...stringBytes(key), u32Bytes(4), u32Bytes(value)]),
    ...Object.entries(floats).flatMap(([key, value]) => [...stringBytes(key), u32Bytes(6), float(value)]),
    ...tokenizer,
  ];
  const numKeys = 1 + Object.keys(numbers).length + Object.keys(floats).length + tokenizer.length;
  const tensors = tensorsOf(shape, vocab);
  let offset = 0;
  const table = tensors.flatMap((tensor) => {
    const [name, ...dimensions] = tensor;
    const at = offset;
    offset += roundUp(bytesOf(type, tensor), ALIGNMENT);
    return [
      ...stringBytes(name),
      u32Bytes(dimensions.length),
      ...dimensions.map(lengthBytes),
      u32Bytes(dimensions.length > 1 ? type.id : F32),
      lengthBytes(at),
    ];
  });
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    u32Bytes(3),
    lengthBytes(tensors.length),
    lengthBytes(numKeys),
    ...metadata,
    ...table,
  ]);

  const out = createWriteStream(output);
  const done = finished(out);
  const write = (bytes) =>
    out.write(bytes) ? undefined : Promise.race([done, new Promise((resolve) => out.once("drain", resolve))]);
  await write(Buffer.concat([header, Buffer.alloc(roundUp(header.length, ALIGNMENT) - header.length)]));
  const blocks = someBlocks(type);
  const ones = Buffer.concat(Array.from({ length: shape.feedForward }, () => float(1)));
  for (const tensor of tensors) {
    const bytes = bytesOf(type, tensor);
    if (tensor.length === 2) await write(ones.subarray(0, bytes));
    else
      for (let at = 0; at < bytes; at += blocks.length)
        await write(blocks.subarray(0, Math.min(blocks.length, bytes - at)));
    await write(Buffer.alloc(roundUp(bytes, ALIGNMENT) - bytes));
  }
  out.end();
  await done;
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const [size, typeName, output] = argv.slice(2);
  if (!Object.hasOwn(shapes, size ?? "") || !Object.hasOwn(types, typeName ?? "") || !output) {
    console.error(
      `usage: node bench/random-llama.mjs ${Object.keys(shapes).join("|")} ${Object.keys(types).join("|")} OUT.gguf`,
    );
    exit(2);
  }
  await writeRandomLlama(size, typeName, output);
}
