// vitest's globalSetup: compiles src into dist, and examples/ against that, once before all tests. The command line and
// the examples are tested as a user runs them.
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
}
