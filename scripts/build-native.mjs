// Builds the native core, its tests and their sanitizer builds. scripts/install-toolchains.sh installs the compilers.
//   node scripts/build-native.mjs            the addons into native/prebuilt/, for every target whose compiler is there
//   node scripts/build-native.mjs --check    builds them elsewhere, compares the source hashes of the committed ones
//   node scripts/build-native.mjs --test     operator and pool tests, plain; those of other processors under QEMU
//   node scripts/build-native.mjs --sanitize operator tests under address and undefined, the pool's under thread
//   node scripts/build-native.mjs --addon-sanitized   the addon under address and undefined, for npm run fuzz
//   node scripts/build-native.mjs --bench NAME [ARGS]   native/tests/NAME_bench.cpp (kernels, attention), on x86
//   --target linux-x64|linux-arm64|wasm-simd|wasm-relaxed-simd   that target alone
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs, promisify } from "node:util";

const root = path.resolve(import.meta.dirname, "..");
const source = path.join(root, "native/src");
const wasmSource = path.join(root, "native/wasm");
const run = promisify(execFile);

const common = [
  "-std=c++17",
  "-ffp-contract=off",
  "-fno-math-errno",
  "-fvisibility=hidden",
  "-Wall",
  "-Wextra",
];
const targets = {
  "linux-x64": {
    compiler: "g++",
    perFile: {
      "quantise.cpp": ["-O3"],
      "weight.cpp": ["-O3"],
      "kernels_avx2.cpp": ["-O3", "-mavx2", "-mfma", "-mf16c"],
      "kernels_avx512.cpp": [
        ..."-O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c".split(" "),
        "-mprefer-vector-width=512",
        "-Wno-maybe-uninitialized", // g++ 12 says it of its own intrinsics (bug 105593)
      ],
    },
    emulator: [],
  },
  "linux-arm64": {
    compiler: "aarch64-linux-gnu-g++",
    perFile: {
      "quantise.cpp": ["-O3"],
      "weight.cpp": ["-O3"],
      "kernels_neon.cpp": ["-O3"],
      "kernels_neon_dotprod.cpp": ["-O3", "-march=armv8.2-a+dotprod"],
    },
    emulator: ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
  },
};
// The two builds share all objects but one.
const wasm = (name, flags) => ({
  objects: "wasm",
  compiler: "clang++-19",
  suffix: "wasm",
  extraSources: readdirSync(wasmSource)
    .filter((n) => n.endsWith(".cpp"))
    .map((n) => path.join(wasmSource, n)),
  flags: [
    "--target=wasm32-wasi",
    "-fwasm-exceptions",
    ..."-mthread-model posix".split(" "), // clang would make atomics plain loads and stores otherwise
    ..."-matomics -mbulk-memory -mnontrapping-fptoint -msign-ext -msimd128".split(" "),
    "-isystem",
    path.join(wasmSource, "libcxx"),
    `-I${wasmSource}`,
  ],
  perFile: { "kernels_wasm.cpp": ["-O3", ...flags] },
  ownObject: { "kernels_wasm.cpp": `kernels_${name}.o` },
  // The C library of Debian's packages knows nothing of threads: its allocator is called under a lock (threads.cpp).
  linking: [
    "-fuse-ld=/usr/bin/wasm-ld-19",
    `-Wl,${[
      "--no-check-features,--shared-memory,--import-memory,--max-memory=4294967296,-z,stack-size=1048576,--gc-sections",
      ...["malloc", "calloc", "realloc", "aligned_alloc", "free"].map((name) => `--wrap=${name}`),
      ...["__stack_pointer", "__wasm_init_tls", "__tls_size", "__tls_align"].map(
        (name) => `--export=${name}`,
      ),
    ]}`,
  ],
  emulator: ["node", "--experimental-wasm-relaxed-simd", path.join(wasmSource, "run.mjs")],
});
targets["wasm-relaxed-simd"] = wasm("wasm-relaxed-simd", ["-mrelaxed-simd"]);
targets["wasm-simd"] = wasm("wasm-simd", []);
const own = `${process.platform}-${process.arch}`;
if (targets[own]) Object.assign(targets[own], { compiler: "g++", emulator: [] });
const linking = ["-static-libstdc++", "-shared-libgcc", "-pthread", "-Wl,--gc-sections"];

const byName = (a, b) => (a.name < b.name ? -1 : 1);

/** SHA-256 over the core's sources and this script: what the committed addon must have been built from. */
export function sourceHash() {
  const hash = createHash("sha256");
  for (const folder of [source, wasmSource])
    for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true }).sort(byName))
      if (entry.isFile())
        hash.update(entry.name).update(readFileSync(path.join(entry.parentPath, entry.name)));
  return hash
    .update(readFileSync(import.meta.filename))
    .digest("hex")
    .slice(0, 32);
}

/** The hash inside a built addon. */
export function builtHash(file) {
  const match = /outrider-source-hash:([0-9a-z]+)/.exec(readFileSync(file, "latin1"));
  return match?.[1];
}

async function compile(target, names, folder, flags) {
  const {
    compiler,
    perFile,
    flags: targetFlags = ["-fPIC"],
    objects = target,
    ownObject = {},
  } = targets[target];
  const out = path.join(root, "native/build", objects, folder);
  mkdirSync(out, { recursive: true });
  const newestHeader = Math.max(
    ...[source, wasmSource, path.join(root, "native/tests")].flatMap((folder) =>
      readdirSync(folder)
        .filter((n) => /\.(h|inl)$/.test(n))
        .map((n) => statSync(path.join(folder, n)).mtimeMs),
    ),
    statSync(import.meta.filename).mtimeMs,
  );
  const jobs = names.map((file) => {
    const object = path.join(out, ownObject[path.basename(file)] ?? `${path.basename(file)}.o`);
    const made = statSync(object, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    // The addon carries the hash of all sources, so it alone is always compiled.
    const fresh = made > newestHeader && made > statSync(file).mtimeMs && path.basename(file) !== "addon.cpp";
    const args = [
      ...common,
      ...(perFile[path.basename(file)] ?? ["-O2"]),
      ...targetFlags,
      ...flags,
      `-I${source}`,
      "-c",
      file,
      "-o",
      object,
    ];
    return { object, build: () => (fresh ? Promise.resolve() : run(compiler, args)) };
  });
  const queue = [...jobs];
  const worker = async () => {
    for (let job = queue.pop(); job; job = queue.pop()) {
      const done = await job.build();
      if (done?.stderr) process.stderr.write(done.stderr);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  return jobs.map((j) => j.object);
}

const coreFiles = (target) => [
  ...readdirSync(source)
    .filter((n) => n.endsWith(".cpp"))
    .map((n) => path.join(source, n)),
  ...(targets[target].extraSources ?? []),
];
const fileOf = (target) => `outrider.${target}.${targets[target].suffix ?? "node"}`;

async function buildAddon(target, file, folder = "release", flags = [], link = ["-s"]) {
  const { compiler, linking: ofTarget } = targets[target];
  const headers = createRequire(import.meta.url)("node-api-headers").include_dir;
  const objects = await compile(target, coreFiles(target), folder, [
    ...(ofTarget ? [] : [`-I${headers}`]),
    `-DOUTRIDER_SOURCE_HASH="${sourceHash()}"`,
    "-ffunction-sections",
    ...flags,
  ]);
  mkdirSync(path.dirname(file), { recursive: true });
  await run(compiler, [
    ...(ofTarget ? ["--target=wasm32-wasi", "-mexec-model=reactor"] : ["-shared"]),
    ...flags,
    ...objects,
    ...(flags.length > 0 ? ["-pthread"] : (ofTarget ?? linking)),
    ...link,
    "-o",
    file,
  ]);
  console.log(
    `${path.relative(root, file)}: ${(statSync(file).size / 1024).toFixed(0)} kB, sources ${builtHash(file)}`,
  );
}

async function buildTest(target, name, folder, flags) {
  const { compiler, linking: ofTarget } = targets[target];
  const files = coreFiles(target).filter((f) => !["addon.cpp", "node_api.cpp"].includes(path.basename(f)));
  const tests = [...files, path.join(root, "native/tests", `${name}.cpp`)];
  const objects = await compile(target, tests, folder, flags);
  const file = path.join(root, "native/build", target, folder, name);
  mkdirSync(path.dirname(file), { recursive: true });
  const link = ofTarget
    ? [
        ...["--target=wasm32-wasi", "-mexec-model=reactor"],
        ...["-Wl,--export=__main_void,--export=fflush", ...ofTarget],
      ]
    : ["-pthread"];
  await run(compiler, [...flags, ...objects, ...link, "-o", file]);
  return file;
}

async function runTests(target, folder, names, flags, options = []) {
  for (const name of names) {
    const built = await buildTest(target, name, folder, flags);
    const [command, ...args] = [...targets[target].emulator, built, ...options];
    console.log(`\n${name} (${target}, ${folder})`);
    execFileSync(command, args, { stdio: "inherit" });
  }
}

const isInstalled = (command) => spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;

/** The targets asked for: the named one, or all that can be built here. What is left out is said. */
function chosenTargets(named) {
  if (named !== undefined && !targets[named]) {
    console.error(`unknown target ${named}, expected one of ${Object.keys(targets).join(", ")}`);
    process.exit(2);
  }
  return (named === undefined ? Object.keys(targets) : [named]).filter((name) => {
    const missing = [targets[name].compiler, ...targets[name].emulator.slice(0, 1)].filter(
      (c) => !isInstalled(c),
    );
    if (missing.length === 0) return true;
    console.error(
      `${name} is left out: ${missing.join(", ")} not found. scripts/install-toolchains.sh installs it`,
    );
    if (named !== undefined) process.exit(1);
    return false;
  });
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    target: { type: "string" },
    bench: { type: "string" },
    check: { type: "boolean" },
    test: { type: "boolean" },
    sanitize: { type: "boolean" },
    "addon-sanitized": { type: "boolean" },
  },
});
if (positionals.length > 0 && !values.bench) {
  console.error(`unknown argument ${positionals[0]}`);
  process.exit(2);
}
const chosen = chosenTargets(values.target);
const prebuilt = (target) => path.join(root, "native/prebuilt", fileOf(target));
if (values.check) {
  for (const target of values.target ? chosen : Object.keys(targets))
    if (builtHash(prebuilt(target)) !== sourceHash()) {
      console.error(
        `native/prebuilt/${fileOf(target)} was built from other sources (${builtHash(prebuilt(target))}, ` +
          `now ${sourceHash()}). Build it again: scripts/install-toolchains.sh && npm run native`,
      );
      process.exit(1);
    }
  for (const target of chosen) {
    const rebuilt = path.join(root, "native/build", fileOf(target));
    await buildAddon(target, rebuilt);
    if (target !== own) continue;
    const require = createRequire(import.meta.url);
    const [a, b] = [prebuilt(target), rebuilt].map((f) => require(f).info().sourceHash);
    if (a !== b) throw new Error(`rebuilt addon says ${b}, the committed one ${a}`);
  }
} else if (values.test) {
  // A worker takes too long to start for a test that starts thousands.
  for (const target of chosen)
    await runTests(
      target,
      "tests",
      targets[target].objects ? ["kernels_test"] : ["kernels_test", "pool_test"],
      [],
    );
} else if (values.bench) {
  await runTests(own, "tests", [`${values.bench}_bench`], [], positionals);
} else if (values.sanitize) {
  const sanitized = ["-g", "-O1", "-fno-omit-frame-pointer"];
  await runTests(
    own,
    "asan",
    ["kernels_test", "pool_test"],
    [...sanitized, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
  );
  await runTests(own, "tsan", ["pool_test"], [...sanitized, "-fsanitize=thread"]);
} else if (values["addon-sanitized"]) {
  const flags = [
    "-g",
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
  ];
  await buildAddon(own, path.join(root, "native/build/sanitized", fileOf(own)), "addon-asan", flags, []);
} else {
  for (const target of chosen) await buildAddon(target, prebuilt(target));
}
