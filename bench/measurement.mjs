/** What the scripts here share: figures, scripts that run scripts, and prompts that nobody has asked yet. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";

/** Ends a script that was started without these options. */
export function required(values, ...names) {
  const missing = names.filter((name) => values[name] === undefined);
  if (missing.length === 0) return;
  console.error(
    `missing: ${missing.map((name) => `--${name}`).join(", ")}; the script's first lines say what it takes`,
  );
  process.exit(2);
}

export const round = (value, digits = 3) => Number(value.toFixed(digits));
export const sum = (list) => list.reduce((a, b) => a + b, 0);

export function median(list) {
  const sorted = list.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** `all` in the order measured. */
export const summary = (all) => ({ median: round(median(all)), all: all.map((value) => round(value)) });

/**
 * What a script of this folder prints as JSON lines. `spawned` hears its process, which is killed after `timeout`
 * milliseconds.
 */
export async function jsonLines(script, args, { timeout, spawned } = {}) {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, script), ...args.map(String)], {
    stdio: ["ignore", "pipe", "inherit"],
    timeout,
    killSignal: "SIGKILL",
  });
  spawned?.(child);
  let out = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    out += text;
  });
  const [code, signal] = await once(child, "close");
  if (code !== 0) throw new Error(`${script} ${args.join(" ")} ended with ${code ?? signal}`);
  return out
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
}

export const forms = [
  "Write a long story about",
  "Explain in detail",
  "Write a letter about",
  "Describe",
  "Give advice on",
];
export const subjects =
  "rivers trains bees Rome glass tea chess moonlight bread wool sleep maps ink rain bridges salt".split(" ");
let asked = 0;

/** `count` prompts, others at each call: drafting learns from texts that it saw before. */
export function newPrompts(count) {
  return Array.from({ length: count }, () => {
    const n = asked++;
    return `${forms[n % forms.length]} ${subjects[n % subjects.length]} and ${subjects[(n * 7 + 3 + Math.floor(n / 16)) % subjects.length]}.`;
  });
}
