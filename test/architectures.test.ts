// What a user's own files may get wrong or bring with them: every architecture is held to it, on its golden model.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { inspect } from "../src/cli/inspect.js";
import { resolveSampling } from "../src/engine/sampling.js";
import { architectures } from "../src/models/architectures.js";
import { planModel } from "../src/models/load.js";
import { openModelSource } from "../src/weights/open-model-source.js";
import { goldenModel, loadEngine } from "./support/engines.js";
import { type Description, describeGguf, type Entry, type Tensor, writeGguf } from "./support/gguf-writer.js";

const folder = mkdtempSync(path.join(tmpdir(), "outrider-architectures-"));
afterAll(() => rmSync(folder, { recursive: true }));

const goldens: Readonly<Record<string, string>> = { llama: "llama-mha-tied" };
const goldenOf = (name: string) => goldenModel(goldens[name] ?? name);

/** What planning a model from this description gives: the plan, or the refusal. */
async function plan(description: Description) {
  const file = path.join(folder, "model.gguf");
  writeFileSync(file, writeGguf(description).bytes);
  await using source = await openModelSource(file);
  try {
    return planModel(source);
  } catch (error) {
    return error as { code: string; message: string };
  }
}

describe.each(architectures.map((a) => a.name))("%s", (name) => {
  const good = describeGguf(readFileSync(goldenOf(name)));
  const key = (suffix: string) => `${name}.${suffix}`;
  const withKey = (suffix: string, type: Entry["type"], value: Entry["value"]): Description => ({
    ...good,
    metadata: [
      ...good.metadata.filter((entry) => entry.key !== key(suffix)),
      { key: key(suffix), type, value },
    ],
  });
  const withoutKey = (suffix: string): Description => ({
    ...good,
    metadata: good.metadata.filter((entry) => entry.key !== key(suffix)),
  });
  const has = (suffix: string) => good.metadata.some((entry) => entry.key === key(suffix));

  test("inspect says what it takes", async () => {
    const output = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    expect(await inspect(goldenOf(name), {})).toBe(0);
    expect(output.mock.calls.join("")).toMatch(/keys and values of a text of [\d,]+ tokens/);
    output.mockRestore();
    expect(await plan(good)).toMatchObject({ architecture: { name } });
  });

  test.each([
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    has("attention.layer_norm_epsilon") ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
  ])("a file without %s is refused by it", async (suffix) => {
    expect(await plan(withoutKey(suffix))).toMatchObject({
      code: "ERR_MODEL_FORMAT",
      message: expect.stringContaining(`${key(suffix)} is missing`),
    });
  });

  test("heads that no key/value heads divide, or that do not fill the width, are refused", async () => {
    expect(await plan(withKey("attention.head_count_kv", "uint32", 3))).toMatchObject({
      code: "ERR_MODEL_FORMAT",
      message: expect.stringContaining("head_count"),
    });
    const narrow = { ...good, metadata: [...withoutKey("attention.key_length").metadata] };
    narrow.metadata = narrow.metadata.filter((entry) => entry.key !== key("attention.value_length"));
    narrow.metadata.push({ key: key("attention.key_length"), type: "uint32", value: 6 });
    expect(await plan(narrow)).toMatchObject({ code: "ERR_MODEL_FORMAT" });
  });

  test("layers can be left out, and attentions of more than two in parallel", async () => {
    await using engine = await loadEngine(goldenOf(name), { context: 64 });
    const { layers, vocab } = engine.config;
    using sequence = engine.open();
    await sequence.prefill(Array.from({ length: 20 }, (_, i) => (i * 37 + 3) % vocab));
    const said = async (draft: "fewer" | "parallel", kept: readonly number[] = []) => {
      if (draft === "fewer") engine.draftLayers = kept;
      const { topLogprobs } = await sequence.step([5], {
        sampling: resolveSampling({}, vocab, 0),
        top: 8,
        draft,
      });
      sequence.keep([]);
      return topLogprobs;
    };
    const all = await said(
      "fewer",
      Array.from({ length: layers }, (_, i) => i),
    );
    expect(await said("fewer", [0])).not.toEqual(all);
    if (layers > 2) expect(await said("parallel")).not.toEqual(all);
    else expect(await said("parallel")).toEqual(all);
  });

  test("a layer too many is a tensor that is missing", async () => {
    const layers = Number(good.metadata.find((entry) => entry.key === key("block_count"))!.value);
    expect(await plan(withKey("block_count", "uint32", layers + 1))).toMatchObject({
      code: "ERR_MODEL_FORMAT",
      message: expect.stringMatching(new RegExp(`tensor blk\\.${layers}\\.\\S+ is missing`)),
    });
  });

  // A tensor that a file may have or not: leaving it out changes what the model is, not whether it is whole.
  const optional = /^(output|rope_freqs|rope_factors_\w+)\.weight$/;
  test("each tensor is needed, in its shape, and none beside them", async () => {
    for (const tensor of good.tensors) {
      const tensorName = String(tensor.name);
      const others = good.tensors.filter((t) => t !== tensor);
      if (!optional.test(tensorName))
        expect(await plan({ ...good, tensors: others }), tensorName).toMatchObject({
          code: "ERR_MODEL_FORMAT",
          message: expect.stringContaining(`tensor ${tensorName} is missing`),
        });
      const [columns, ...rest] = tensor.shape as [number, ...number[]];
      const wide: Tensor = { name: tensorName, type: "F32", shape: [columns + 1, ...rest] };
      expect(await plan({ ...good, tensors: [...others, wide] }), tensorName).toMatchObject({
        code: "ERR_MODEL_FORMAT",
        message: expect.stringContaining(`tensor ${tensorName} is [`),
      });
    }
    const stranger: Tensor = { name: "blk.0.attn_sinks.weight", type: "F32", shape: [4] };
    expect(await plan({ ...good, tensors: [...good.tensors, stranger] })).toMatchObject({
      code: "ERR_MODEL_UNSUPPORTED",
      message: expect.stringContaining("blk.0.attn_sinks.weight"),
    });
  });

  test.each([
    ["attention.clamp_kqv", "float32", 8],
    ["attention.max_alibi_bias", "float32", 8],
    ["attention.causal", "bool", false],
    ["expert_shared_count", "uint32", 1],
    ["nextn_predict_layers", "uint32", 1],
  ] as const)("a file with %s is refused by it", async (suffix, type, value) => {
    expect(await plan(withKey(suffix, type, value))).toMatchObject({
      code: "ERR_MODEL_UNSUPPORTED",
      message: expect.stringContaining(key(suffix)),
    });
  });

  const windowed = ["llama", "gemma2", "gemma3", "phi3", "olmo2", "starcoder2", "cohere2"].includes(name);
  test(`a window is ${windowed ? "taken up" : "refused"}`, async () => {
    const found = await plan(withKey("attention.sliding_window", "uint32", 40));
    if (windowed) expect(found).toMatchObject({ config: { window: 40 } });
    else
      expect(found).toMatchObject({
        code: "ERR_MODEL_UNSUPPORTED",
        message: expect.stringContaining(key("attention.sliding_window")),
      });
  });

  test("a rotary scaling that does not exist is refused by its name", async () => {
    expect(await plan(withKey("rope.scaling.type", "string", "su"))).toMatchObject({
      code: "ERR_MODEL_UNSUPPORTED",
      message: expect.stringContaining('"su"'),
    });
  });
});

test("an unknown architecture is named, and so are those that run", async () => {
  const good = describeGguf(readFileSync(goldenModel("qwen2")));
  const renamed = good.metadata.map((entry) =>
    entry.key === "general.architecture" ? { ...entry, value: "mamba" } : entry,
  );
  const refusal = await plan({ ...good, metadata: renamed });
  expect(refusal).toMatchObject({
    code: "ERR_MODEL_UNSUPPORTED",
    message: expect.stringContaining('"mamba"'),
  });
  for (const { name } of architectures) expect((refusal as { message: string }).message).toContain(name);
});

test("experts that cannot be: none used, more than there are, a width that fills no tile", async () => {
  const good = describeGguf(readFileSync(goldenModel("qwen3moe")));
  const withKey = (suffix: string, value: number): Description => ({
    ...good,
    metadata: good.metadata.map((entry) =>
      entry.key === `qwen3moe.${suffix}` ? { ...entry, value } : entry,
    ),
  });
  for (const [suffix, value] of [
    ["expert_used_count", 0],
    ["expert_used_count", 9],
    ["expert_count", 0],
    ["expert_feed_forward_length", 40],
  ] as const)
    expect(await plan(withKey(suffix, value)), `${suffix} ${value}`).toMatchObject({
      code: expect.stringMatching(/^ERR_MODEL_(FORMAT|UNSUPPORTED)$/),
      message: expect.stringContaining(`qwen3moe.${suffix}`),
    });
});
