import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const folder = path.resolve(import.meta.dirname, "../examples");
const built = path.resolve(import.meta.dirname, "../dist-examples");

// Built by test/support/build.ts, against the package's own name: what a user's import resolves to.
test.each(readdirSync(folder).filter((f) => f.endsWith(".ts")))("%s runs", async (file) => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    path.join(built, file.replace(/\.ts$/, ".js")),
  ]);
  expect(stdout.trim()).not.toBe("");
});
