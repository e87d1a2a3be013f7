import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { ModelInfo } from "../index.js";

const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

export function version(): string {
  return JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8")).version;
}

/** The commit of a checkout; undefined for an installed package. */
function commit(): string | undefined {
  if (!existsSync(path.join(packageRoot, ".git"))) return undefined;
  try {
    return execFileSync("git", ["rev-parse", "--short=12", "HEAD"], {
      cwd: packageRoot,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  } catch {
    return undefined; // no git on this machine, or not ours to read
  }
}

/** What a measurement was made with and on; without it a number is not a result. */
export function circumstances(info: ModelInfo) {
  return {
    model: info.name,
    version: version(),
    commit: commit(),
    date: new Date().toISOString(),
    machine: {
      cpu: cpus()[0]?.model ?? "unknown",
      cores: availableParallelism(),
      threads: info.threads,
      instruction_set: info.instructionSet,
      node: process.version,
      platform: `${process.platform}-${process.arch}`,
    },
  };
}
