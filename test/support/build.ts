// vitest's globalSetup: compiles src into dist, examples/ against that and web/ into web/dist, once before all tests. The
// command line, the examples and the playground are tested as a user runs them.
import { spawnSync } from "node:child_process";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "../..");

export default function build(): void {
  for (const project of ["tsconfig.build.json", "tsconfig.examples.json"]) {
    const tsc = path.join(root, "node_modules/typescript/bin/tsc");
    // Type errors do not keep it from emitting, and are for `npm run check` to report.
    const { status, stderr } = spawnSync(process.execPath, [tsc, "-p", project], {
      cwd: root,
      encoding: "utf8",
    });
    if (status === null || status > 2) throw new Error(`tsc -p ${project} failed: ${stderr}`);
  }
  const vite = path.join(root, "node_modules/vite/bin/vite.js");
  const { status, stderr } = spawnSync(process.execPath, [vite, "build", "web", "--logLevel", "warn"], {
    cwd: root,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`vite build web failed: ${stderr}`);
}
