// Builds the native core, its tests and their sanitizer builds with g++.
//   node scripts/build-native.mjs            the addon into native/prebuilt/
//   node scripts/build-native.mjs --check    builds it elsewhere, compares the source hash of the committed one, tries both
//   node scripts/build-native.mjs --test     operator and pool tests, plain
//   node scripts/build-native.mjs --sanitize operator tests under address and undefined, the pool's under thread
//   node scripts/build-native.mjs --addon-sanitized   the addon under address and undefined, for npm run fuzz
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const root = path.resolve(import.meta.dirname, "..");
const source = path.join(root, "native/src");
const run = promisify(execFile);

const common = [
  "-std=c++17",
  "-fPIC",
  "-ffp-contract=off",
  "-fno-math-errno",
  "-fvisibility=hidden",
  "-Wall",
  "-Wextra",
];
const perFile = {
  "kernels_avx2.cpp": ["-O3", "-mavx2", "-mfma", "-mf16c"],
  "kernels_avx512.cpp": [
    ..."-O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c".split(" "),
    "-mprefer-vector-width=512",
    "-Wno-maybe-uninitialized", // g++ 12 says it of its own intrinsics (bug 105593)
  ],
};
const linking = ["-static-libstdc++", "-static-libgcc", "-pthread", "-Wl,--gc-sections"];

/** SHA-256 over the core's sources and this script: what the committed addon must have been built from. */
export function sourceHash() {
  const hash = createHash("sha256");
  for (const name of readdirSync(source).sort())
    hash.update(name).update(readFileSync(path.join(source, name)));
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

async function compile(names, folder, flags) {
  const out = path.join(root, "native/build", folder);
  mkdirSync(out, { recursive: true });
  const newestHeader = Math.max(
    ...readdirSync(source)
      .filter((n) => /\.(h|inl)$/.test(n))
      .map((n) => statSync(path.join(source, n)).mtimeMs),
    statSync(import.meta.filename).mtimeMs,
  );
  const jobs = names.map((file) => {
    const object = path.join(out, `${path.basename(file)}.o`);
    const made = statSync(object, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    // The addon carries the hash of all sources, so it alone is always compiled.
    const fresh = made > newestHeader && made > statSync(file).mtimeMs && path.basename(file) !== "addon.cpp";
    const args = [
      ...common,
      ...(perFile[path.basename(file)] ?? ["-O2"]),
      ...flags,
      `-I${source}`,
      "-c",
      file,
      "-o",
      object,
    ];
    return { object, build: () => (fresh ? Promise.resolve() : run("g++", args)) };
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

const coreFiles = () =>
  readdirSync(source)
    .filter((n) => n.endsWith(".cpp"))
    .map((n) => path.join(source, n));
const target = `outrider.${process.platform}-${process.arch}.node`;

async function buildAddon(file, folder = "release", flags = [], link = ["-s"]) {
  const headers = createRequire(import.meta.url)("node-api-headers").include_dir;
  const objects = await compile(coreFiles(), folder, [
    `-I${headers}`,
    `-DOUTRIDER_SOURCE_HASH="${sourceHash()}"`,
    "-ffunction-sections",
    ...flags,
  ]);
  mkdirSync(path.dirname(file), { recursive: true });
  await run("g++", [
    "-shared",
    ...flags,
    ...objects,
    ...(flags.length > 0 ? ["-pthread"] : linking),
    ...link,
    "-o",
    file,
  ]);
  console.log(
    `${path.relative(root, file)}: ${(statSync(file).size / 1024).toFixed(0)} kB, sources ${builtHash(file)}`,
  );
}

async function buildTest(name, folder, flags) {
  const files = coreFiles().filter((f) => path.basename(f) !== "addon.cpp");
  const objects = await compile([...files, path.join(root, "native/tests", `${name}.cpp`)], folder, flags);
  const file = path.join(root, "native/build", folder, name);
  await run("g++", [...flags, ...objects, "-pthread", "-o", file]);
  return file;
}

async function runTests(folder, names, flags) {
  for (const name of names) {
    const file = await buildTest(name, folder, flags);
    console.log(`\n${name} (${folder})`);
    execFileSync(file, { stdio: "inherit" });
  }
}

const mode = process.argv[2] ?? "";
const prebuilt = path.join(root, "native/prebuilt", target);
if (mode === "--check") {
  if (builtHash(prebuilt) !== sourceHash()) {
    console.error(
      `native/prebuilt/${target} was built from other sources (${builtHash(prebuilt)}, now ${sourceHash()}). ` +
        "Build it again: npm run native",
    );
    process.exit(1);
  }
  const rebuilt = path.join(root, "native/build", target);
  await buildAddon(rebuilt);
  const require = createRequire(import.meta.url);
  const [a, b] = [prebuilt, rebuilt].map((f) => require(f).info().sourceHash);
  if (a !== b) throw new Error(`rebuilt addon says ${b}, the committed one ${a}`);
} else if (mode === "--test") {
  await runTests("tests", ["kernels_test", "pool_test"], []);
} else if (mode === "--sanitize") {
  const sanitized = ["-g", "-O1", "-fno-omit-frame-pointer"];
  await runTests(
    "asan",
    ["kernels_test", "pool_test"],
    [...sanitized, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
  );
  await runTests("tsan", ["pool_test"], [...sanitized, "-fsanitize=thread"]);
} else if (mode === "--addon-sanitized") {
  const flags = [
    "-g",
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
  ];
  await buildAddon(path.join(root, "native/build/sanitized", target), "addon-asan", flags, []);
} else if (mode === "") {
  await buildAddon(prebuilt);
} else if (mode.startsWith("--")) {
  console.error(`unknown option ${mode}`);
  process.exit(2);
}
