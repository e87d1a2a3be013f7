import { execFileSync } from "node:child_process";
import path from "node:path";
import { expect, test } from "vitest";

// In a process of its own: others' pages would count.
test.runIf(process.platform === "linux")(
  "while the embedded model loads, the peak is at most a quarter above what stays",
  () => {
    const script = path.resolve(import.meta.dirname, "../bench/peak-memory.mjs");
    const model = path.resolve(import.meta.dirname, "../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    const result = JSON.parse(execFileSync(process.execPath, [script, "--one", model], { encoding: "utf8" }));
    expect(result.final_mb).toBeGreaterThan(result.start_mb + 80); // the weights are in memory
    expect(result.peak_to_final).toBeLessThanOrEqual(1.25);
  },
);
