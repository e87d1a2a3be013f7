import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { createFolder } from "./folder.js";

const root = mkdtempSync(path.join(tmpdir(), "outrider-folder-"));
afterAll(() => rmSync(root, { recursive: true }));

test("creates what is missing, also beside others who do", async () => {
  const deep = path.join(root, "a", "b", "c");
  await Promise.all([createFolder(deep), createFolder(path.join(deep, "d")), createFolder(deep)]);
  await createFolder(deep);
  expect(statSync(path.join(deep, "d")).isDirectory()).toBe(true);
});

test("fails where a file is in the way", async () => {
  const file = path.join(root, "file");
  writeFileSync(file, "");
  await expect(createFolder(path.join(file, "below"))).rejects.toMatchObject({ code: "ENOTDIR" });
});

test.runIf(existsSync("/proc/self"))("fails where the system has no place for it, and ends", async () => {
  await expect(createFolder("/proc/outrider/models")).rejects.toMatchObject({ code: "ENOENT" });
});
