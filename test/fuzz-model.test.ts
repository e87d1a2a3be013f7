/**
 * Damaged model files, loaded and run: each ends in a typed error or a model that runs, never in a signal. More cases:
 * OUTRIDER_FUZZ_CASES (npm run fuzz). With OUTRIDER_FUZZ_SANITIZED=1 the core is the one that
 * `node scripts/build-native.mjs --addon-sanitized` built.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { goldenFolder, goldenModel } from "./support/engines.js";
import { mutate } from "./support/gguf-mutator.js";

const cases = Number(process.env.OUTRIDER_FUZZ_CASES ?? 300);
const firstSeed = Number(process.env.OUTRIDER_FUZZ_SEED ?? 0);
const sanitized = process.env.OUTRIDER_FUZZ_SANITIZED === "1";
const batch = 100;
const models = [
  "llama-mha-tied",
  "llama-gqa-untied",
  "llama-moe",
  ...readdirSync(goldenFolder)
    .filter((file) => file.endsWith(".gguf") && !file.startsWith("llama-"))
    .map((file) => file.slice(0, -".gguf".length)),
];
const root = path.resolve(import.meta.dirname, "..");

function environment(): NodeJS.ProcessEnv {
  if (!sanitized) return process.env;
  const library = execFileSync("g++", ["-print-file-name=libasan.so"], { encoding: "utf8" }).trim();
  return {
    ...process.env,
    OUTRIDER_NATIVE: path.join(
      root,
      `native/build/sanitized/outrider.${process.platform}-${process.arch}.node`,
    ),
    LD_PRELOAD: library,
    ASAN_OPTIONS: "detect_leaks=0", // Node's own allocations live until it exits
  };
}

/** Runs the child over the files; rejects when it ends by a signal or does not end. */
function run(
  files: readonly string[],
): Promise<{ outcome?: string; file?: string; ms?: number; maxRssMb?: number }[]> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(root, "test/support/fuzz-child.mjs")], {
      env: environment(),
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (data) => {
      out += data;
    });
    child.stderr.on("data", (data) => {
      err += data;
    });
    const timer = setTimeout(() => child.kill("SIGKILL"), files.length * 5000);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (code === 0)
        resolve(
          out
            .trim()
            .split("\n")
            .map((line) => JSON.parse(line)),
        );
      else
        reject(
          new Error(
            `exit ${code}, signal ${signal}, after ${out.split("\n").at(-2) ?? "nothing"}\n${err.slice(0, 4000)}`,
          ),
        );
    });
    child.stdin.end(files.join("\n"));
  });
}

test(
  `${cases} damaged models`,
  async () => {
    const folder = mkdtempSync(path.join(tmpdir(), "outrider-fuzz-"));
    const good = models.map((name) => readFileSync(goldenModel(name)));
    const outcomes = new Map<string, number>();
    try {
      for (let first = 0; first < cases; first += batch) {
        const what = new Map<string, string>();
        for (let seed = firstSeed + first; seed < firstSeed + Math.min(first + batch, cases); seed++) {
          const mutation = mutate(good[seed % good.length]!, seed);
          const file = path.join(folder, `${seed % batch}.gguf`);
          writeFileSync(file, mutation.bytes);
          what.set(file, `seed ${seed}, ${models[seed % models.length]}: ${mutation.what}`);
        }
        for (const { file, outcome, ms, maxRssMb } of await run([...what.keys()])) {
          if (maxRssMb !== undefined && !sanitized) expect(maxRssMb).toBeLessThan(400);
          if (file === undefined) continue;
          expect(outcome, what.get(file)).toMatch(
            /^(good|ERR_(MODEL_[A-Z]+|TOKENIZER|RUNTIME_NAN|CONTEXT|BAD_REQUEST|TEMPLATE))$/,
          );
          expect(ms, what.get(file)).toBeLessThan(5000);
          outcomes.set(outcome!, (outcomes.get(outcome!) ?? 0) + 1);
        }
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
    console.log(Object.fromEntries([...outcomes].sort((a, b) => b[1] - a[1])));
    expect(outcomes.get("good") ?? 0).toBeGreaterThan(cases / 100);
    expect(outcomes.size).toBeGreaterThan(3);
  },
  cases * 5000,
);
