import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { goldenModel } from "./support/engines.js";

const root = path.resolve(import.meta.dirname, "..");
const run = promisify(execFile);

async function outrider(args: readonly string[], env: NodeJS.ProcessEnv) {
  const file = path.join(root, "dist/cli/main.js");
  return await run(process.execPath, [file, ...args], { env: { ...process.env, ...env } });
}

const core = (name: string) => path.join(root, `native/prebuilt/outrider.${name}.wasm`);

test.each(["llama-gqa-untied", "quant-q6_k"])(
  "%s gives one hash in every build of the core",
  async (name) => {
    const hashes = await Promise.all(
      [{}, { OUTRIDER_NATIVE: "wasm" }, { OUTRIDER_NATIVE: core("wasm-simd") }].map(async (env) => {
        const args = ["verify", "--print-hash", "--json", "--max-tokens", "8", "--model", goldenModel(name)];
        return JSON.parse((await outrider(args, env)).stdout) as { hash: string; instruction_set: string };
      }),
    );
    expect(hashes[1]!.instruction_set).toMatch(/^wasm-/);
    expect(hashes[2]!.instruction_set).toBe("wasm-simd");
    expect(new Set(hashes.map(({ hash }) => hash)).size).toBe(1);
  },
);

test("what WebAssembly's core refuses has the same code, and it goes on", async () => {
  const args = [
    "generate",
    "hello",
    "--threads",
    "2",
    "--max-tokens",
    "2",
    "--model",
    goldenModel("llama-gqa-untied"),
  ];
  const wasm = { OUTRIDER_NATIVE: "wasm" };
  await expect(outrider(args, { ...wasm, OUTRIDER_INSTRUCTION_SET: "avx2" })).rejects.toMatchObject({
    stderr: expect.stringContaining("ERR_PLATFORM"),
  });
  expect((await outrider(args, wasm)).stdout).toBe((await outrider(args, {})).stdout);
});

test("a core that is named and cannot be loaded is an error, not replaced", async () => {
  await expect(outrider(["inspect"], { OUTRIDER_NATIVE: "/nowhere.node" })).rejects.toMatchObject({
    stderr: expect.stringContaining("/nowhere.node"),
  });
});
