import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

// A folder may import from itself and from the folders before it: docs/architecture.md, "Layers".
const mayImport: Record<string, readonly string[]> = {
  runtime: [],
  weights: ["runtime"],
  text: [],
  hub: [],
  guided: ["text"],
  models: ["runtime", "weights"],
  engine: ["runtime", "weights", "models"],
  decoding: ["text", "guided", "engine"],
  api: ["weights", "hub", "text", "guided", "models", "engine", "decoding"],
  scheduling: [],
  server: ["text", "guided", "engine", "decoding", "api", "scheduling"],
  upstream: ["text", "api"],
  "ai-sdk": ["text", "guided", "api", "upstream"],
  cli: [
    "runtime",
    "weights",
    "hub",
    "text",
    "models",
    "engine",
    "decoding",
    "api",
    "index",
    "server",
    "scheduling",
    "upstream",
  ],
};
const root = path.resolve(import.meta.dirname, "../src");
const shared = ["errors"];

const sources = readdirSync(root, { recursive: true, encoding: "utf8" }).filter(
  (file) => file.endsWith(".ts") && !file.endsWith(".test.ts"),
);

function imports(file: string): { line: number; target: string; typeOnly: boolean }[] {
  const text = readFileSync(path.join(root, file), "utf8");
  return [
    ...text.matchAll(/^(?:import|export)\s(type\s)?[^;]*?from\s+"(\.[^"]+)"|import\("(\.[^"]+)"\)/gm),
  ].map((match) => ({
    line: text.slice(0, match.index).split("\n").length,
    target: path
      .relative(root, path.resolve(root, path.dirname(file), (match[2] ?? match[3])!))
      .replace(/\.js$/, ""),
    typeOnly: match[1] !== undefined,
  }));
}

test("every folder of src is a known layer", () => {
  const folders = new Set(sources.filter((f) => f.includes(path.sep)).map((f) => f.split(path.sep)[0]!));
  expect([...folders].filter((f) => !(f in mayImport))).toEqual([]);
});

test("a folder imports only from itself and from lower layers", () => {
  const wrong = sources
    .filter((file) => file.includes(path.sep))
    .flatMap((file) => {
      const layer = file.split(path.sep)[0]!;
      const allowed = [layer, ...(mayImport[layer] ?? []), ...shared];
      return imports(file)
        .filter(({ target }) => !allowed.includes(target.split(path.sep)[0]!))
        .map(({ line, target }) => `src/${file}:${line} imports ${target}`);
    });
  expect(wrong).toEqual([]);
});

test("no file imports itself by way of others", () => {
  const graph = new Map(
    sources.map((file) => [
      file.replace(/\.ts$/, ""),
      imports(file)
        .filter((i) => !i.typeOnly)
        .map((i) => i.target),
    ]),
  );
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (file: string, trail: readonly string[]) => {
    if (trail.includes(file)) {
      cycles.push([...trail.slice(trail.indexOf(file)), file].join(" → "));
      return;
    }
    if (done.has(file)) return;
    done.add(file);
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file]);
  };
  for (const file of graph.keys()) visit(file, []);
  expect(cycles).toEqual([]);
});
