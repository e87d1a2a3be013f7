import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { resolveSampling } from "../src/engine/sampling.js";
import { architectures } from "../src/models/architectures.js";
import { openGguf } from "../src/weights/gguf.js";
import { packMatrix } from "../src/weights/pack.js";
import { goldenFolder, goldenModel, loadEngine } from "./support/engines.js";

/** llama.cpp looks GELU up in a float16 table, so their goldens themselves are only so exact. */
const gelu = ["gemma2", "gemma3", "gpt2", "starcoder2"];

interface Run {
  readonly greedy: readonly number[];
  /** Per step the 8 best of [token, log-probability]. */
  readonly top: readonly (readonly (readonly [number, number])[])[];
  /** Per step how far the best token is ahead of the second. */
  readonly margin: readonly number[];
  readonly firstLogits: readonly number[];
}

interface Golden {
  readonly architecture: string;
  readonly prompts: readonly (Run & { readonly tokens: readonly number[] })[];
  /** Plain float32 arithmetic on the dequantised weights; there where `prompts` had its activations rounded. */
  readonly fp32?: { readonly prompts: readonly Run[] };
  /** How far log-probabilities move if an engine does this. */
  readonly mistakes?: Readonly<Record<string, { readonly maxAbsLogProbDiff: number }>>;
  readonly dequant?: Readonly<
    Record<
      string,
      { readonly row: number; readonly values: readonly number[]; readonly sha256OfFloat32: string }
    >
  >;
}

const names = readdirSync(goldenFolder)
  .filter((name) => name.endsWith(".gguf"))
  .map((name) => name.slice(0, -".gguf".length));
/** As the goldens were made: it chooses between the rotary factors of phi3-longrope. */
const context = 128;
const golden = (name: string): Golden =>
  JSON.parse(readFileSync(path.join(goldenFolder, `${name}.json`), "utf8"));
const greedy = resolveSampling({}, 280, 0);

function logSoftmax(logits: ArrayLike<number>): number[] {
  const all = Array.from(logits);
  const most = Math.max(...all);
  const logSum = most + Math.log(all.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  return all.map((logit) => logit - logSum);
}

describe.each(names)("%s", (name) => {
  const { architecture, prompts, fp32, dequant } = golden(name);
  const tolerance = gelu.includes(architecture) ? 0.03 : 1e-3;
  const about = (step: number, run: Run) => `step ${step}, margin ${run.margin[step]}`;

  test.each(prompts.map((_, i) => i))("prompt %i in float32", async (which) => {
    await using engine = await loadEngine(goldenModel(name), { precise: true, context });
    const run = fp32?.prompts[which] ?? prompts[which]!;
    const { tokens } = prompts[which]!;
    using sequence = engine.open();
    await sequence.prefill(tokens.slice(0, -1));
    let last = tokens.at(-1)!;
    let furthest = 0;
    for (const [step, wanted] of run.greedy.entries()) {
      const result = await sequence.step([last], { sampling: greedy, top: 8, logits: true });
      sequence.keep([0]);
      const logprobs = logSoftmax(result.logits!);
      const differences = run.top[step]!.flatMap(([token, logprob], rank) => [
        Math.abs(logprobs[token]! - logprob),
        Math.abs(result.topLogprobs[rank]! - logprob),
      ]);
      if (step === 0)
        differences.push(
          ...logSoftmax(run.firstLogits).map((logprob, i) => Math.abs(logprobs[i]! - logprob)),
        );
      furthest = Math.max(furthest, ...differences);
      expect(result.picks[0], about(step, run)).toBe(wanted);
      expect(result.topTokens[0], about(step, run)).toBe(wanted);
      expect(Math.abs(result.logprobs[0]! - logprobs[wanted]!), about(step, run)).toBeLessThan(1e-4);
      expect(furthest, about(step, run)).toBeLessThan(tolerance);
      last = wanted;
    }
    if (process.env.OUTRIDER_REPORT) console.log(`${name} ${which}: log-probabilities within ${furthest}`);
  });

  test("as it usually runs, with rounded activations and a float16 cache", async () => {
    await using engine = await loadEngine(goldenModel(name), { context });
    for (const run of prompts) {
      using sequence = engine.open();
      await sequence.prefill(run.tokens.slice(0, -1));
      const fed = [run.tokens.at(-1)!, ...run.greedy.slice(0, -1)];
      const { picks } = await sequence.step(fed, { sampling: greedy });
      sequence.keep([]);
      for (const [step, wanted] of run.greedy.entries())
        if (run.margin[step]! > 2.5) expect(picks[step], about(step, run)).toBe(wanted);
    }
  });

  test.runIf(dequant)("weights are dequantised exactly", async () => {
    await using gguf = await openGguf(goldenModel(name));
    for (const [tensor, expected] of Object.entries(dequant!)) {
      using weight = await packMatrix(gguf, gguf.tensors.get(tensor)!);
      // The goldens' nine digits tell any two float32 numbers apart.
      expect([...weight.row(expected.row)], tensor).toEqual(expected.values.map(Math.fround));
      const hash = createHash("sha256");
      for (let row = 0; row < weight.rows; row++) hash.update(weight.row(row));
      expect(hash.digest("hex"), tensor).toBe(expected.sha256OfFloat32);
    }
  });
});

test("a context beyond the original one takes the long rotary factors", async () => {
  const name = "phi3-longrope";
  const { prompts, mistakes } = golden(name);
  await using engine = await loadEngine(goldenModel(name), { precise: true, context: 513 });
  const { tokens, firstLogits } = prompts[1]!;
  using sequence = engine.open();
  await sequence.prefill(tokens.slice(0, -1));
  const { logits } = await sequence.step([tokens.at(-1)!], { sampling: greedy, logits: true });
  const [found, short] = [logSoftmax(logits!), logSoftmax(firstLogits)];
  const moved = Math.max(...found.map((logprob, i) => Math.abs(logprob - short[i]!)));
  expect(moved).toBeGreaterThan(0.1);
  expect(moved).toBeLessThanOrEqual(mistakes!["long factors used"]!.maxAbsLogProbDiff + 1e-3);
});

test("every architecture has a golden", () => {
  const covered = new Set(names.map((name) => golden(name).architecture));
  expect(architectures.filter((a) => !covered.has(a.name)).map((a) => a.name)).toEqual([]);
});
