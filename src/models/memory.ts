/** How much memory a model takes, how much there is, and what would fit. */
import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { OutriderError } from "../errors.js";
import { KvCache } from "../runtime/kv-cache.js";
import type { ModelPlan } from "./load.js";

/** Bytes that a model takes in memory: packed weights, and keys and values for `context` positions. */
export function memoryNeeded(
  plan: ModelPlan,
  context: number,
  precision: "f16" | "f32",
): { weights: number; cache: number } {
  const { layers, numKvHeads, headDim } = plan.config;
  return {
    weights: plan.packedBytes,
    cache: context * KvCache.bytesPerPosition(layers, numKvHeads, headDim, precision),
  };
}

/** Values of a pass, the program, and what loading needs for a while. */
const BESIDE_THE_MODEL = 128 * 2 ** 20;

/** In bytes; further texts side by side take keys and values of their own as they grow. */
export interface MemoryVerdict {
  readonly weights: number;
  /** Keys and values of one text as long as the context. */
  readonly cache: number;
  /** Values of a pass, the program, and what loading needs for a while. */
  readonly beside: number;
  /** All three: what must be there. */
  readonly needed: number;
  readonly available: number;
  /** Undefined where it fits; else what would, in words. */
  readonly advice: string | undefined;
}

/** Whether a model with one text of `context` tokens fits in `available` bytes. */
export function judgeMemory(
  plan: ModelPlan,
  context: number,
  precision: "f16" | "f32",
  available: number,
): MemoryVerdict {
  const { weights, cache } = memoryNeeded(plan, context, precision);
  const beside = BESIDE_THE_MODEL;
  const needed = weights + cache + beside;
  const advice = needed <= available ? undefined : whatWouldFit(plan, weights, cache / context, available);
  return { weights, cache, beside, needed, available, advice };
}

function whatWouldFit(plan: ModelPlan, weights: number, bytesPerPosition: number, available: number): string {
  const rest = available - weights - BESIDE_THE_MODEL;
  const fitting = Math.floor(rest / bytesPerPosition / 256) * 256;
  if (fitting >= 256) return `a context of ${fitting} tokens would fit (--context)`;
  const smaller = quantisations(plan).find(
    ({ bytes }) => bytes + BESIDE_THE_MODEL + bytesPerPosition * 256 <= available,
  );
  return smaller
    ? `with --quantize ${smaller.name} its weights would take about ${gigabytes(smaller.bytes)}`
    : "take a smaller model, or a file of it with fewer bits a weight";
}

/** What the weights would take that lie in floats. */
function quantisations(plan: ModelPlan): { name: string; bytes: number }[] {
  const bits = [
    ["q8_0", 8.5],
    ["q4_1", 5],
  ] as const;
  return bits.map(([name, perWeight]) => {
    let bytes = 0;
    for (const { info, spec } of plan.tensors.values()) {
      const floats = ["F32", "F16", "BF16"].includes(info.type) && spec.shape.length > 1;
      bytes += floats ? (info.rows * info.columns * perWeight) / 8 : info.bytes;
    }
    return { name, bytes };
  });
}

/** Throws ERR_MODEL_LIMIT, with the figures and what would fit, where a model does not. */
export function checkMemory(file: string, verdict: MemoryVerdict): void {
  if (verdict.advice === undefined) return;
  throw new OutriderError(
    "ERR_MODEL_LIMIT",
    `${file}: running it takes ${gigabytes(verdict.needed)} of memory (weights ${gigabytes(verdict.weights)}, keys and ` +
      `values of one text as long as the context ${gigabytes(verdict.cache)}, beside them ${gigabytes(verdict.beside)}), ` +
      `${gigabytes(verdict.available)} are available: ${verdict.advice}. To try all the same: --memory-limit none (memoryLimit: Infinity)`,
    { param: "memoryLimit" },
  );
}

const gigabytes = (bytes: number) => `${(Math.max(0, bytes) / 1e9).toFixed(2)} GB`;

/**
 * Bytes that this process can still take without anything being swapped out: what the kernel reckons as available, and
 * what the control groups (containers) leave. Cached file contents count as free, since the kernel gives them up.
 * `read`: a file's text, undefined where there is none.
 */
export function availableMemory(read: (path: string) => string | undefined = readText): number {
  const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(read("/proc/meminfo") ?? "")?.[1];
  // Other systems call memory free only where nothing lies in it, not even a file's cached contents.
  const machine = kilobytes === undefined ? Math.max(freemem(), totalmem() / 2) : Number(kilobytes) * 1024;
  return Math.max(0, Math.min(machine, ...controlGroups(read)));
}

function* controlGroups(read: (path: string) => string | undefined): Generator<number> {
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, group] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (group === undefined) continue;
    const second = controllers === "";
    if (!second && !controllers!.split(",").includes("memory")) continue;
    const root = second ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const [most, used] = second
      ? ["memory.max", "memory.current"]
      : ["memory.limit_in_bytes", "memory.usage_in_bytes"];
    // A group is bound by those above it as well; inside a container only the root may be visible.
    for (let folder = group; ; folder = dirname(folder)) {
      const text = (name: string) => read(join(root, folder, name));
      const limit = Number.parseInt(text(most!) ?? "", 10); // "max": none
      const usage = Number.parseInt(text(used!) ?? "", 10);
      if (Number.isFinite(limit) && Number.isFinite(usage))
        yield limit - usage + fileCache(text("memory.stat") ?? "");
      if (folder === "/") break;
    }
  }
}

function fileCache(stat: string): number {
  const value = (key: string) => Number(new RegExp(`^${key} (\\d+)$`, "m").exec(stat)?.[1] ?? 0);
  return value("inactive_file") + value("active_file");
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
