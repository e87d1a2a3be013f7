// How much memory loading a model takes at its peak, against what stays: resident set of a process that does nothing
// else. The embedded model, and a llama of 1.1 billion random BF16 weights that this script makes, as it is and
// quantised at load. Prints a JSON line each; the quotient is to be 1.25 at most.
//   node bench/peak-memory.mjs [MODEL…]          after npm run build; Linux
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Engine } from "../dist/engine/engine.js";
import { embeddedModel } from "../dist/index.js";
import { openModelSource } from "../dist/weights/open-model-source.js";

const script = fileURLToPath(import.meta.url);

/** Of this process, in MB. */
function resident(key) {
  return (
    Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(readFileSync("/proc/self/status", "utf8"))[1]) / 1024
  );
}

async function measure(model, quantize) {
  const start = resident("VmRSS");
  const started = performance.now();
  const source = await openModelSource(model, quantize);
  const engine = await Engine.load(source, { context: 512 });
  const ms = performance.now() - started;
  const [peak, final] = [resident("VmHWM"), resident("VmRSS")];
  console.log(
    JSON.stringify({
      model: path.basename(model),
      quantize,
      start_mb: Math.round(start),
      final_mb: Math.round(final),
      peak_mb: Math.round(peak),
      peak_to_final: Number((peak / final).toFixed(3)),
      weights_mb: Math.round(engine.memory.weights / 2 ** 20),
      load_ms: Math.round(ms),
    }),
  );
  await engine[Symbol.asyncDispose]();
  await source[Symbol.asyncDispose]();
}

/** Random BF16 numbers of about the size of weights: a megabyte, again and again. */
async function makeModel(folder) {
  if (existsSync(path.join(folder, "config.json"))) return;
  mkdirSync(folder, { recursive: true });
  const [width, feedForward, layers, heads, kvHeads, vocab] = [2048, 5632, 22, 32, 4, 32000];
  const kv = (width / heads) * kvHeads;
  const shapes = {
    "model.embed_tokens.weight": [vocab, width],
    "model.norm.weight": [width],
    "lm_head.weight": [vocab, width],
  };
  for (let i = 0; i < layers; i++)
    Object.assign(shapes, {
      [`model.layers.${i}.input_layernorm.weight`]: [width],
      [`model.layers.${i}.post_attention_layernorm.weight`]: [width],
      [`model.layers.${i}.self_attn.q_proj.weight`]: [width, width],
      [`model.layers.${i}.self_attn.k_proj.weight`]: [kv, width],
      [`model.layers.${i}.self_attn.v_proj.weight`]: [kv, width],
      [`model.layers.${i}.self_attn.o_proj.weight`]: [width, width],
      [`model.layers.${i}.mlp.gate_proj.weight`]: [feedForward, width],
      [`model.layers.${i}.mlp.up_proj.weight`]: [feedForward, width],
      [`model.layers.${i}.mlp.down_proj.weight`]: [width, feedForward],
    });
  let at = 0;
  const header = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: "BF16", shape, data_offsets: [at, at + bytes] };
    at += bytes;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const out = createWriteStream(path.join(folder, "model.safetensors"));
  out.write(length);
  out.write(text);
  let seed = 1;
  const block = Buffer.alloc(2 ** 20);
  const floats = new Float32Array(1);
  const bits = new Uint32Array(floats.buffer);
  for (let i = 0; i < block.length; i += 2) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    floats[0] = (seed / 2 ** 32 - 0.5) / 16;
    block.writeUInt16LE(bits[0] >>> 16, i);
  }
  for (let done = 0; done < at; done += block.length)
    if (!out.write(block.subarray(0, Math.min(block.length, at - done)))) await once(out, "drain");
  out.end();
  await once(out, "finish");
  writeFileSync(
    path.join(folder, "config.json"),
    JSON.stringify({
      model_type: "llama",
      hidden_size: width,
      intermediate_size: feedForward,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: kvHeads,
      vocab_size: vocab,
      max_position_embeddings: 2048,
    }),
  );
}

if (process.argv[2] === "--one") await measure(process.argv[3], process.argv[4]);
else {
  const large = path.join(tmpdir(), "outrider-random-1b");
  const given = process.argv.slice(2).map((model) => [model, undefined]);
  if (given.length === 0) await makeModel(large);
  const cases =
    given.length > 0
      ? given
      : [
          [embeddedModel, "none"],
          [large, "none"],
          [large, "q8_0"],
          [large, "q4_1"],
        ];
  for (const [model, quantize] of cases)
    execFileSync(process.execPath, [script, "--one", model, ...(quantize ? [quantize] : [])], {
      stdio: "inherit",
    });
}
