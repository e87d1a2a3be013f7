/** What the scripts here share, beside ../measurement.mjs: prompts in, rates out. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { round } from "../measurement.mjs";

export { round, summary } from "../measurement.mjs";

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
