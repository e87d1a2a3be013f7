import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { embeddedModel, goldenModel, loadEngine } from "../../test/support/engines.js";
import { describeGguf } from "../../test/support/gguf-writer.js";
import { resolveSampling } from "./sampling.js";

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};

test("the last hidden state, times the output matrix, is the logits", async () => {
  await using engine = await loadEngine(goldenModel("llama-gqa-untied"));
  const tensors = describeGguf(readFileSync(goldenModel("llama-gqa-untied"))).tensors;
  const { data, shape } = tensors.find(({ name }) => name === "output.weight")!;
  const [width, vocab] = shape as [number, number];
  const matrix = new Float32Array(data!.buffer.slice(data!.byteOffset, data!.byteOffset + data!.byteLength));
  const tokens = Array.from({ length: 200 }, (_, i) => (i * 37 + 11) % vocab);
  const hidden = await engine.embed(tokens, "last");
  expect(dot(hidden, hidden)).toBeCloseTo(1, 5);

  using sequence = engine.open();
  await sequence.prefill(tokens.slice(0, -1));
  const { logits } = await sequence.step(tokens.slice(-1), {
    sampling: resolveSampling({}, vocab, 0),
    logits: true,
  });
  const products = Array.from({ length: vocab }, (_, id) =>
    dot(hidden, matrix.subarray(id * width, (id + 1) * width)),
  );
  // The vector has length 1, so the logits are the products times one number.
  const scale = dot(products, logits!) / dot(products, products);
  for (const [id, product] of products.entries()) expect(scale * product).toBeCloseTo(logits![id]!, 4);
});

test("the mean is that of all positions, over as many passes as it takes", async () => {
  await using engine = await loadEngine(goldenModel("llama-mha-tied"));
  const tokens = Array.from({ length: 150 }, (_, i) => (i * 53 + 7) % 280);
  const mean = await engine.embed(tokens, "mean");
  expect(dot(mean, mean)).toBeCloseTo(1, 5);
  // Not the last one's, and not that of the first pass alone.
  expect(dot(mean, await engine.embed(tokens, "last"))).toBeLessThan(0.999);
  expect(dot(mean, await engine.embed(tokens.slice(0, 128), "mean"))).toBeLessThan(0.99999);
  expect(await engine.embed(tokens.slice(0, 1), "mean")).toEqual(
    await engine.embed(tokens.slice(0, 1), "last"),
  );
});

test("texts side by side, and beside one that is being written, have the bits they have alone", async () => {
  await using engine = await loadEngine(embeddedModel);
  const texts = Array.from({ length: 4 }, (_, t) =>
    Array.from({ length: 40 * (t + 1) }, (_, i) => 100 + i * (t + 3)),
  );
  const alone = [];
  for (const text of texts) alone.push(await engine.embed(text, "mean"));
  const write = async () => {
    using sequence = engine.open();
    await sequence.prefill(texts[3]!);
    const { picks } = await sequence.step([5, 6], { sampling: resolveSampling({}, engine.config.vocab, 0) });
    sequence.keep([0, 1]);
    return [...picks];
  };
  const written = await write();
  const [again, ...beside] = await Promise.all([write(), ...texts.map((text) => engine.embed(text, "mean"))]);
  expect(beside).toEqual(alone);
  expect(again).toEqual(written);
});

test("what cannot be embedded", async () => {
  await using engine = await loadEngine(goldenModel("llama-mha-tied"));
  expect(() => engine.embed([], "mean")).toThrow(expect.objectContaining({ code: "ERR_BAD_REQUEST" }));
  const long = Array.from({ length: engine.context + 1 }, () => 5);
  expect(() => engine.embed(long, "mean")).toThrow(expect.objectContaining({ code: "ERR_CONTEXT" }));
  const signal = AbortSignal.abort();
  await expect(engine.embed([1], "mean", signal)).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(await engine.embed([1], "mean")).toHaveLength(engine.config.width);
});
