// What a pass costs in each build of the core that runs here: milliseconds for one token, for eight tokens (seven
// drafted) and for a prompt of 512, embedded model, medians of three. One JSON line a build.
//   node bench/machines.mjs [build...]        native, wasm-relaxed-simd, wasm-simd
import { execFileSync } from "node:child_process";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "..");
const builds = { native: undefined, "wasm-relaxed-simd": "wasm", "wasm-simd": "wasm-simd" };

async function measure() {
  const { load } = await import(path.join(root, "dist/index.js"));
  const model = await load(undefined, { threads: 2, learn: false });
  const text = Array.from({ length: 420 }, (_, i) => `word${i % 97}`).join(" ");
  const prompt = (await model.promptTokens(text, { raw: true })).slice(0, 512);
  const run = async (tokens, options) =>
    (await model.generate(tokens, { ignoreEnd: true, maxTokens: 24, ...options }).result).stats;
  const rounds = { one: [], eight: [], prompt: [] };
  for (let round = 0; round < 4; round++) {
    const one = await run(prompt.slice(0, 32), { strategy: "none" });
    const eight = await run(prompt.slice(0, 33), { strategy: "lookup", draftLength: 7, maxTokens: 40 });
    const begin = performance.now();
    await run([5 + round, ...prompt.slice(1)], { strategy: "none", maxTokens: 1 });
    if (round === 0) continue; // caches are cold and WebAssembly is not optimised yet
    rounds.one.push(one.decodeMs / one.passes);
    rounds.eight.push(eight.decodeMs / eight.passes);
    rounds.prompt.push(performance.now() - begin);
  }
  const medians = Object.entries(rounds).map(([name, times]) => [name, times.sort((a, b) => a - b)[1]]);
  await model[Symbol.asyncDispose]();
  console.log(
    JSON.stringify({ build: model.info.instructionSet, threads: 2, ms: Object.fromEntries(medians) }),
  );
}

if (process.env.OUTRIDER_BENCH_BUILD) await measure();
else
  for (const build of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(builds)) {
    const native =
      builds[build] === "wasm-simd"
        ? path.join(root, "native/prebuilt/outrider.wasm-simd.wasm")
        : builds[build];
    const env = { ...process.env, OUTRIDER_BENCH_BUILD: build, ...(native && { OUTRIDER_NATIVE: native }) };
    execFileSync(process.execPath, [import.meta.filename], { env, stdio: "inherit" });
  }
