/** Random damage: whatever is done to a good file, opening and reading it ends in an OutriderError or works. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { OutriderError } from "../src/errors.js";
import { openGguf } from "../src/weights/gguf.js";
import { mutate } from "./support/gguf-mutator.js";
import { smallGguf, writeGguf } from "./support/gguf-writer.js";

const MUTATIONS = 300;

test("the same seed gives the same file, another seed another one", () => {
  const { bytes } = writeGguf(smallGguf());
  expect(mutate(bytes, 7)).toEqual(mutate(bytes, 7));
  const different = new Set(
    Array.from({ length: 100 }, (_, seed) => mutate(bytes, seed).what.replace(/.*: /, "")),
  );
  expect(different.size).toBeGreaterThan(80);
});

test(`${MUTATIONS} damaged files`, async () => {
  const folder = await mkdtemp(join(tmpdir(), "outrider-fuzz-"));
  const path = join(folder, "model.gguf");
  const models = [
    writeGguf(smallGguf()).bytes,
    await readFile(new URL("goldens/arch/qwen3.gguf", import.meta.url)),
    await readFile(new URL("goldens/arch/quant-q4_k.gguf", import.meta.url)),
  ];
  const outcomes = new Map<string, number>();
  const memoryBefore = process.resourceUsage().maxRSS;
  try {
    for (let seed = 0; seed < MUTATIONS; seed++) {
      const { bytes, what } = mutate(models[seed % models.length]!, seed);
      await writeFile(path, bytes);
      const start = performance.now();
      const outcome = await openAndReadAll(path).then(
        () => "good",
        (error) => (error instanceof OutriderError ? error.code : `${what}: ${error}`),
      );
      expect(performance.now() - start, what).toBeLessThan(5000);
      expect(outcome, what).toMatch(/^(good|ERR_MODEL_[A-Z]+)$/);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
  // Damage that is never, or always, noticed would test nothing.
  for (const outcome of [
    "good",
    "ERR_MODEL_FORMAT",
    "ERR_MODEL_TRUNCATED",
    "ERR_MODEL_LIMIT",
    "ERR_MODEL_UNSUPPORTED",
  ]) {
    expect(outcomes.get(outcome) ?? 0, outcome).toBeGreaterThan(2);
  }
  expect(process.resourceUsage().maxRSS - memoryBefore).toBeLessThan(160 * 1024);
});

async function openAndReadAll(path: string): Promise<void> {
  await using file = await openGguf(path);
  for (const value of file.metadata.values()) expect(value).toBeDefined();
  for (const tensor of file.tensors.values()) {
    let bytes = 0;
    for await (const chunk of file.read(tensor)) bytes += chunk.bytes.length;
    expect(bytes).toBe(tensor.bytes);
  }
}
