import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DraftMemory } from "../decoding/memory.js";
import { contextTag } from "../decoding/ngrams.js";
import { openGguf } from "../weights/gguf.js";
import type { ModelSource } from "../weights/model-source.js";
import { cacheFolder, LearnedFile } from "./learned-file.js";
import { embeddedModel } from "./model.js";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "learned-"));
});
afterEach(() => rm(folder, { recursive: true }));

const TAG = contextTag([1], 0, 1);
const knows = (memory: DraftMemory) => memory.ngrams.find(TAG) >= 0;

async function model(content: string): Promise<ModelSource> {
  const file = path.join(folder, "model.gguf");
  await writeFile(file, content);
  return { path: file, files: [file] } as unknown as ModelSource;
}

async function learnSomething(source: ModelSource, tokens = 100): Promise<void> {
  const memory = new DraftMemory(64);
  const learned = await LearnedFile.open(memory, source, folder);
  await learned.fill(10);
  memory.ngrams.add(TAG, 2);
  learned.learned(tokens);
  await learned.save();
}

async function reopened(source: ModelSource, cache: string | undefined = folder): Promise<DraftMemory> {
  const memory = new DraftMemory(64);
  await (await LearnedFile.open(memory, source, cache)).fill(10);
  return memory;
}

describe("LearnedFile", () => {
  test("the embedded model starts with what ships beside it", async () => {
    const memory = new DraftMemory();
    const file = await openGguf(embeddedModel);
    await (await LearnedFile.open(memory, file, undefined)).fill(49152);
    await file[Symbol.asyncDispose]();
    expect(memory.ngrams.save().length).toBeGreaterThan(1_000_000);
  });

  test("is there for the next process, for the same model only, and readable by its owner only", async () => {
    await learnSomething(await model("one"));
    expect(knows(await reopened(await model("one")))).toBe(true);
    expect(knows(await reopened(await model("two")))).toBe(false);
    const files = await readdir(path.join(folder, "learned"));
    expect(files).toHaveLength(1);
    expect(files[0]).toMatch(/^[0-9a-f]{32}\.learned$/);
    if (process.platform !== "win32")
      expect((await stat(path.join(folder, "learned", files[0]!))).mode & 0o777).toBe(0o600);
  });

  test("is not written for a few tokens, nor without a folder", async () => {
    await learnSomething(await model("one"), 3);
    const learned = await LearnedFile.open(new DraftMemory(64), await model("one"), undefined);
    learned.learned(1000);
    await learned.save();
    expect(await readdir(folder)).toEqual(["model.gguf"]);
  });

  test("takes what lies beside the model until there is something of the user's", async () => {
    const source = await model("one");
    await learnSomething(source);
    const [name] = await readdir(path.join(folder, "learned"));
    const bytes = await readFile(path.join(folder, "learned", name!));
    await rm(path.join(folder, "learned"), { recursive: true });
    expect(knows(await reopened(source))).toBe(false);
    await writeFile(path.join(folder, "model.learned"), bytes);
    expect(knows(await reopened(source))).toBe(true);
    expect(knows(await reopened(source, undefined))).toBe(true);
  });

  test("goes on without a damaged file, and where nothing may be written", async () => {
    const source = await model("one");
    await learnSomething(source);
    const [name] = await readdir(path.join(folder, "learned"));
    await writeFile(path.join(folder, "learned", name!), "damaged");
    expect(knows(await reopened(source))).toBe(false);
    await rm(path.join(folder, "learned"), { recursive: true });
    await writeFile(path.join(folder, "learned"), "a file where the folder should be");
    await learnSomething(source);
  });
});

test("the cache folder is the system's, unless the environment names one", () => {
  expect(cacheFolder({ OUTRIDER_CACHE: "/x" }, "linux")).toBe("/x");
  expect(cacheFolder({ XDG_CACHE_HOME: "/c" }, "linux")).toBe(path.join("/c", "outrider"));
  expect(cacheFolder({}, "linux")).toMatch(/\.cache.outrider$/);
  expect(cacheFolder({}, "darwin")).toMatch(/Library.Caches.outrider$/);
  expect(cacheFolder({ LOCALAPPDATA: "/l" }, "win32")).toBe(path.join("/l", "outrider"));
});

test("a user without a home folder has none", () => {
  const none = () => {
    throw new Error("uv_os_homedir returned ENOENT");
  };
  expect(cacheFolder({}, "linux", none)).toBeUndefined();
  expect(cacheFolder({}, "linux", () => "")).toBeUndefined();
  expect(cacheFolder({ XDG_CACHE_HOME: "/c" }, "linux", none)).toBe(path.join("/c", "outrider"));
});
