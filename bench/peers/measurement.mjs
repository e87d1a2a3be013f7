/** What the scripts here share: prompts in, medians out. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";

export const round = (value) => Math.round(value * 1000) / 1000;

/** `all` in the order measured. */
export function summary(all) {
  const sorted = all.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median: round(median), all: all.map(round) };
}

/** Of an answer's n tokens the first belongs to the prompt's pass. */
export function tokensPerSecond(n, ms) {
  return n > 1 && ms > 0 ? round(((n - 1) * 1000) / ms) : undefined;
}

export function readPrompts(file) {
  return readFileSync(file, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/** The options of every script, and its own; a slip ends the process with what was wrong and the usage, exit code 2. */
export function readArguments(usage, required, own = {}) {
  const eachCount = Array.from({ length: availableParallelism() }, (_, i) => i + 1).join();
  try {
    const { values } = parseArgs({
      options: {
        prompts: { type: "string" },
        threads: { type: "string", default: eachCount },
        "max-tokens": { type: "string", default: "128" },
        repetitions: { type: "string", default: "5" },
        ...own,
      },
    });
    for (const name of required) if (!values[name]) throw new Error(`--${name} is missing`);
    const count = (name, text = values[name]) => {
      if (!/^[1-9]\d*$/.test(text)) throw new Error(`--${name}: "${text}" is not a whole number from 1`);
      return Number(text);
    };
    return {
      ...values,
      threads: values.threads.split(",").map((text) => count("threads", text)),
      maxTokens: count("max-tokens"),
      repetitions: count("repetitions"),
    };
  } catch (error) {
    console.error(`${error.message}\nusage: ${usage}`);
    process.exit(2);
  }
}
