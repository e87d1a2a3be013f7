/**
 * Outrider beside node-llama-cpp on random weights in the shapes of larger models:
 *
 *   npm ci --prefix bench/peers && npm run build && node bench/shapes.mjs [--shapes 1b,3b] [--types Q4_0,Q4_K,Q6_K,Q8_0]
 *     [--rounds 2] [--repetitions 3] [--folder /tmp] [--out FILE]
 *
 * Contenders take turns, each in a process of its own, the peer with every number of threads; its best counts. Printed
 * are milliseconds, how many times faster Outrider is, and its pass over one token against reading the weights once.
 * Model files are written to the folder and removed.
 */
import { spawn } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    shapes: { type: "string", default: "1b,3b" },
    types: { type: "string", default: "Q4_0,Q4_K,Q6_K,Q8_0" },
    rounds: { type: "string", default: "2" },
    repetitions: { type: "string", default: "3" },
    folder: { type: "string", default: "/tmp" },
    out: { type: "string", default: path.join(import.meta.dirname, "results/shapes.json") },
  },
});
const cores = availableParallelism();
const prompts = path.join(values.folder, `outrider-shapes-${process.pid}.jsonl`);
writeFileSync(
  prompts,
  JSON.stringify({ id: 0, prompt_tokens: Array.from({ length: 700 }, (_, i) => 300 + ((i * 7919) % 40000)) }),
);

function lines(script, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(import.meta.dirname, script), ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
    });
    child.on("close", (code) => {
      if (code !== 0) reject(new Error(`${script} ${args.join(" ")} ended with ${code}`));
      else
        resolve(
          out
            .split("\n")
            .filter((line) => line.startsWith("{"))
            .map((line) => JSON.parse(line)),
        );
    });
  });
}
const round = (value) => Number(value.toFixed(2));

async function measure(file) {
  const ours = new Map(); // by n, 0 is reading the weights once
  const theirs = new Map();
  const least = (map, n, ms) => map.set(n, Math.min(map.get(n) ?? Number.POSITIVE_INFINITY, ms));
  const all = (ms) => (typeof ms === "number" ? [ms] : ms.all);
  const of = (mode, threads) => [
    "--file",
    file,
    "--prompts",
    prompts,
    "--mode",
    mode,
    "--repetitions",
    values.repetitions,
    "--threads",
    threads,
  ];
  let memory;
  for (let i = 0; i < Number(values.rounds); i++) {
    const [load] = await lines("outrider.mjs", of("load", String(cores)));
    memory = { peakMb: load.peakMb, residentMb: load.residentMb };
    least(ours, "load", load.ms);
    for (let threads = 1; threads <= cores; threads++)
      least(theirs, "load", (await lines("peers/llama-cpp.mjs", of("load", String(threads))))[0].ms);
    for (const mode of ["pass", "prefill"]) {
      for (const line of await lines("outrider.mjs", of(mode, String(cores))))
        for (const ms of all(line.ms ?? line.readMs)) least(ours, line.n === 0 ? "read" : line.n, ms);
      for (let threads = 1; threads <= cores; threads++)
        for (const line of await lines("peers/llama-cpp.mjs", of(mode, String(threads))))
          for (const ms of all(line.ms)) least(theirs, line.n, ms);
    }
  }
  return {
    ms: Object.fromEntries(
      [...theirs.keys()].map((n) => [
        n,
        {
          outrider: round(ours.get(n)),
          peer: round(theirs.get(n)),
          faster: round(theirs.get(n) / ours.get(n)),
        },
      ]),
    ),
    readMs: round(ours.get("read")),
    overReading: round(ours.get(1) / ours.get("read")),
    ...memory,
  };
}

const report = {};
try {
  for (const shape of values.shapes.split(","))
    for (const type of values.types.split(",")) {
      const file = path.join(values.folder, `outrider-shape-${shape}-${type}.gguf`);
      try {
        await lines("random-llama.mjs", [shape, type, file]);
        const result = await measure(file);
        report[`${shape} ${type}`] = result;
        console.log(
          `\n${shape} ${type}: reading ${result.readMs} ms, one token ${result.overReading} times that; loading peaks at ${result.peakMb} MB, then ${result.residentMb}`,
        );
        console.table(result.ms);
      } finally {
        rmSync(file, { force: true });
      }
    }
} finally {
  rmSync(prompts, { force: true });
}
mkdirSync(path.dirname(values.out), { recursive: true });
writeFileSync(values.out, `${JSON.stringify(report, null, 1)}\n`);
