import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { embeddedModel, load } from "../src/index.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "outrider-nan-"));
});
afterAll(() => rm(folder, { recursive: true }));

test.each([true, false])(
  "weights that are not numbers end a text with an error (precise: %s)",
  async (precise) => {
    const file = path.join(folder, "damaged.gguf");
    const bytes = await readFile(embeddedModel);
    bytes.fill(0xff, bytes.length - 40_000_000, bytes.length - 39_000_000); // of one layer: NaN as scales
    await writeFile(file, bytes);
    await using model = await load(file, { learn: false, precise });
    await expect(model.generate("Hello", { maxTokens: 3 }).result).rejects.toMatchObject({
      code: "ERR_RUNTIME_NAN",
    });
  },
);
