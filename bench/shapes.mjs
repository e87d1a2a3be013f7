/**
 * Outrider beside node-llama-cpp on random weights in the shapes of larger models, and the goals for them:
 *
 *   npm ci --prefix bench/peers --ignore-scripts && npm run build && node bench/shapes.mjs
 *     [--shapes 1b,3b] [--types Q4_0,Q4_K,Q6_K,Q8_0] [--modes load,pass,prefill] [--sizes 1,2,4,8,16,64]
 *     [--rounds 1] [--repetitions 3] [--prefills 2] [--loads 3] [--threads 1,2] [--folder /tmp] [--keep] [--out FILE] [--report]
 *
 * Can be run piece by piece: every measurement is a line of FILE as soon as it is there, and what is printed at the end
 * is about all lines of FILE for these shapes and types that this core or the peer wrote (remove FILE to begin anew).
 * `--report` only prints.
 * Contenders take turns, each in a process of its own, the peer with every number of threads; the least of its times
 * counts, and so does the least of ours. A model file is written to the folder, and removed unless it is to be kept for
 * the next piece; a shape for which there is no memory or no disk is left out.
 */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, freemem, tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { coreInfo } from "../dist/runtime/native.js";
import { jsonLines } from "./measurement.mjs";
import { shapes, types, weightBytes, writeRandomLlama } from "./random-llama.mjs";

const cores = availableParallelism();
const here = import.meta.dirname;
const modes = ["load", "pass", "prefill"];
const { values } = parseArgs({
  options: {
    shapes: { type: "string", default: "1b,3b" },
    types: { type: "string", default: "Q4_0,Q4_K,Q6_K,Q8_0" },
    modes: { type: "string", default: modes.join() },
    sizes: { type: "string", default: "1,2,4,8,16,64" },
    rounds: { type: "string", default: "1" },
    repetitions: { type: "string", default: "3" },
    prefills: { type: "string", default: "2" },
    loads: { type: "string", default: "3" },
    threads: { type: "string", default: Array.from({ length: cores }, (_, i) => i + 1).join() },
    folder: { type: "string", default: tmpdir() },
    out: { type: "string", default: path.join(here, "results/shapes.jsonl") },
    minutes: { type: "string", default: "10" },
    keep: { type: "boolean", default: false },
    report: { type: "boolean", default: false },
  },
});

function chosen(option, known) {
  const list = values[option].split(",");
  const wrong = list.find((item) => !known.includes(item));
  if (wrong === undefined) return list;
  console.error(`--${option}: "${wrong}" is not one of ${known.join(", ")}`);
  process.exit(2);
}
const chosenShapes = chosen("shapes", Object.keys(shapes));
const chosenTypes = chosen("types", Object.keys(types));
const chosenModes = chosen("modes", modes);
const core = coreInfo().sourceHash;
const gigabytes = (bytes) => `${(bytes / 1e9).toFixed(1)} GB`;

/** Files to remove however this ends, and the process that is measuring. */
const temporary = new Set();
let child;
const clean = () => {
  child?.kill("SIGKILL");
  for (const file of temporary) rmSync(file, { force: true });
};
process.on("exit", clean);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));

async function measure(shape, type, file, prompts) {
  const contenders = {
    outrider: { script: "outrider.mjs", threads: [String(cores)] },
    peer: { script: "peers/llama-cpp.mjs", threads: values.threads.split(",") },
  };
  const run = async (mode, contender, setting) => {
    const begin = performance.now();
    const found = await jsonLines(
      contenders[contender].script,
      [
        ...["--file", file, "--prompts", prompts, "--mode", mode, "--threads", setting],
        ...[
          "--repetitions",
          { load: values.loads, pass: values.repetitions, prefill: values.prefills }[mode],
        ],
        ...["--sizes", values.sizes],
      ],
      {
        timeout: Number(values.minutes) * 60_000,
        spawned: (process) => {
          child = process;
        },
      },
    );
    for (const line of found) {
      // The peer's own name of the type may be another one (Q4_K_S).
      const record = { ...line, shape, type, contender, file: undefined };
      if (contender === "outrider") record.core = core;
      appendFileSync(values.out, `${JSON.stringify(record)}\n`);
    }
    const seconds = ((performance.now() - begin) / 1000).toFixed(0);
    console.error(`${shape} ${type}: ${mode} of ${contender}, threads ${setting}: ${seconds} s`);
  };
  for (const mode of chosenModes)
    for (const [contender, { threads }] of Object.entries(contenders))
      await run(mode, contender, threads.join());
}

/** Undefined, or what there is too little of. */
function lack(shape, type, file) {
  const bytes = weightBytes(shape, type);
  const disk = statfsSync(values.folder);
  const [space, memory] = [disk.bavail * disk.bsize, freemem()];
  if (!existsSync(file) && space < bytes * 1.1 + 1e9)
    return `the file takes ${gigabytes(bytes)}, ${values.folder} has ${gigabytes(space)}`;
  // The packed weights, the file in the page cache, key/value caches, and what speed of memory is measured with.
  const needed = 2 * bytes + 1.5e9;
  return memory < needed
    ? `measuring takes ${gigabytes(needed)} of memory, ${gigabytes(memory)} are available`
    : undefined;
}

async function measureAll() {
  const prompts = path.join(values.folder, `outrider-shapes-${process.pid}.jsonl`);
  temporary.add(prompts);
  mkdirSync(values.folder, { recursive: true });
  const tokens = Array.from({ length: 700 }, (_, i) => 300 + ((i * 7919) % 40_000));
  writeFileSync(prompts, JSON.stringify({ id: 0, prompt_tokens: tokens }));
  mkdirSync(path.dirname(values.out), { recursive: true });
  for (const shape of chosenShapes)
    for (const type of chosenTypes) {
      const file = path.join(values.folder, `outrider-shape-${shape}-${type}.gguf`);
      const lacking = lack(shape, type, file);
      if (lacking) {
        console.error(`${shape} ${type}: left out: ${lacking}`);
        process.exitCode = 1;
        continue;
      }
      try {
        if (!existsSync(file)) {
          // Under another name until it is whole, so that none that is not is kept.
          temporary.add(`${file}.part`);
          await writeRandomLlama(shape, type, `${file}.part`);
          renameSync(`${file}.part`, file);
        }
        if (!values.keep) temporary.add(file);
        for (let i = 0; i < Number(values.rounds); i++) await measure(shape, type, file, prompts);
      } catch (error) {
        // What was measured is in FILE; the others can be measured all the same.
        console.error(`${shape} ${type}: ${error.message}`);
        process.exitCode = 1;
      } finally {
        if (!values.keep) rmSync(file, { force: true });
      }
    }
}

const round = (value) => (value === undefined ? undefined : Number(value.toFixed(2)));

function report(shape, type, records) {
  const times = (contender, mode, n) =>
    records
      .filter((r) => r.contender === contender && r.bench === mode && r.n === n)
      .flatMap(({ ms, readMs }) => (ms ?? readMs).all);
  const least = (...of) => {
    const all = times(...of);
    return all.length > 0 ? Math.min(...all) : undefined;
  };
  const over = (a, b) => (a === undefined || b === undefined ? undefined : a / b);
  const [numbers, faster] = [{}, new Map()];
  const passSizes = [...new Set(records.filter((r) => r.bench === "pass" && r.n > 0).map((r) => r.n))];
  for (const [name, mode, n] of [
    ["load", "load", 1],
    ...passSizes.sort((a, b) => a - b).map((n) => [n, "pass", n]),
    [512, "prefill", 512],
  ]) {
    const [outrider, peer] = [least("outrider", mode, n), least("peer", mode, n)];
    if (outrider === undefined && peer === undefined) continue;
    faster.set(name, over(peer, outrider));
    numbers[name] = {
      "outrider ms": round(outrider),
      "peer ms": round(peer),
      faster: round(over(peer, outrider)),
    };
  }
  console.log(`\n${shape} ${type}`);
  console.table(numbers);
  const read = least("outrider", "pass", 0);
  const loads = records.filter((r) => r.contender === "outrider" && r.bench === "load");
  const peaks = loads.map((r) => r.peakMb / r.residentMb);
  const goals = [
    ["cost(1), times faster", faster.get(1), ">=", 1.2],
    ["cost(8), times faster", faster.get(8), ">=", 2.5],
    ["prefill of 512, times faster", faster.get(512), ">=", 1.5],
    [
      `cost(1) over reading the weights${read ? ` (${round(read)} ms)` : ""}`,
      over(least("outrider", "pass", 1), read),
      "<=",
      1.4,
    ],
    ["load, times faster", faster.get("load"), ">=", 1],
    [
      `peak over resident memory${loads.length ? ` (${loads.at(-1).peakMb} MB)` : ""}`,
      peaks.length ? Math.max(...peaks) : undefined,
      "<=",
      1.25,
    ],
  ];
  for (const [name, value, sign, goal] of goals) {
    const met =
      value === undefined
        ? "not measured"
        : (sign === ">=" ? value >= goal : value <= goal)
          ? "met"
          : "NOT MET";
    console.log(`${met.padEnd(12)} ${name}: ${round(value) ?? "-"} (goal ${sign} ${goal})`);
  }
}

if (!values.report) await measureAll();
const measured = existsSync(values.out)
  ? readFileSync(values.out, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line))
  : [];
for (const shape of chosenShapes)
  for (const type of chosenTypes) {
    const records = measured.filter(
      (r) => r.shape === shape && r.type === type && (r.contender === "peer" || r.core === core),
    );
    if (records.length > 0) report(shape, type, records);
    else console.log(`\n${shape} ${type}: nothing measured with this core`);
  }
