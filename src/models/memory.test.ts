import { describe, expect, test } from "vitest";
import { embeddedModel, goldenModel, loadEngine } from "../../test/support/engines.js";
import { openModelSource } from "../weights/open-model-source.js";
import { planModel } from "./load.js";
import { availableMemory, judgeMemory, memoryNeeded } from "./memory.js";

const GiB = 2 ** 30;

describe("what is available", () => {
  const machine = { "/proc/meminfo": "MemTotal: 32000000 kB\nMemAvailable:    16777216 kB\n" };
  const available = (files: Readonly<Record<string, string>>) =>
    availableMemory((path) => ({ ...machine, ...files })[path]);

  test("what the kernel says", () => expect(available({})).toBe(16 * GiB));

  test("a container's limit, less what it uses and could not give up", () => {
    const files = {
      "/proc/self/cgroup": "0::/\n",
      "/sys/fs/cgroup/memory.max": String(4 * GiB),
      "/sys/fs/cgroup/memory.current": String(3 * GiB),
      "/sys/fs/cgroup/memory.stat": `anon 1\ninactive_file ${GiB}\nactive_file ${GiB / 2}\n`,
    };
    expect(available(files)).toBe(2.5 * GiB);
    expect(available({ ...files, "/sys/fs/cgroup/memory.max": "max\n" })).toBe(16 * GiB);
  });

  test("groups above bind as well; version 1 too", () => {
    const second = {
      "/proc/self/cgroup": "0::/a/b\n",
      "/sys/fs/cgroup/a/b/memory.max": "max",
      "/sys/fs/cgroup/a/b/memory.current": "5",
      "/sys/fs/cgroup/a/memory.max": String(GiB),
      "/sys/fs/cgroup/a/memory.current": "0",
    };
    expect(available(second)).toBe(GiB);
    const first = {
      "/proc/self/cgroup": "9:cpu:/x\n4:memory:/x\n",
      "/sys/fs/cgroup/memory/x/memory.limit_in_bytes": String(2 * GiB),
      "/sys/fs/cgroup/memory/x/memory.usage_in_bytes": String(3 * GiB),
    };
    expect(available(first)).toBe(0);
  });

  test("here: more than nothing, less than everything", () => {
    expect(availableMemory()).toBeGreaterThan(2 ** 20);
    expect(availableMemory(() => undefined)).toBeGreaterThan(2 ** 20); // no /proc
  });
});

describe("a model that does not fit", () => {
  const plan = async (path: string, quantize?: "q8_0" | "none") => {
    await using source = await openModelSource(path, quantize);
    return planModel(source);
  };

  test("a smaller context is named that would", async () => {
    const model = await plan(embeddedModel);
    const { weights, cache } = memoryNeeded(model, 8192, "f16");
    const { needed } = judgeMemory(model, 8192, "f16", Number.POSITIVE_INFINITY);
    expect(judgeMemory(model, 8192, "f16", needed).advice).toBeUndefined();
    const { advice } = judgeMemory(model, 8192, "f16", needed - cache / 2);
    const context = Number(/a context of (\d+) tokens/.exec(advice!)![1]);
    expect(judgeMemory(model, context, "f16", needed - cache / 2).advice).toBeUndefined();
    expect(context).toBeGreaterThan(3000);
    expect(judgeMemory(model, 8192, "f16", weights).advice).toBe(
      "take a smaller model, or a file of it with fewer bits a weight",
    );
  });

  test("of float weights, a quantisation", async () => {
    const model = await plan(goldenModel("quant-bf16"));
    const smaller = await plan(goldenModel("quant-bf16"), "q8_0");
    expect(smaller.packedBytes).toBeLessThan(model.packedBytes * 0.6);
    const least = judgeMemory(smaller, 512, "f16", Number.POSITIVE_INFINITY).needed;
    expect(judgeMemory(model, 512, "f16", least - 100_000).advice).toMatch(
      /^with --quantize q8_0 its weights/,
    );
  });

  test("is refused before anything is loaded, unless it is to be tried", async () => {
    const read: number[] = [];
    const loading = loadEngine(embeddedModel, {
      memoryLimit: 200e6,
      onProgress: (done) => read.push(done),
    });
    await expect(loading).rejects.toMatchObject({
      code: "ERR_MODEL_LIMIT",
      message: expect.stringMatching(
        /takes 0\.42 GB of memory \(weights 0\.10 GB, keys and values of one text .* 0\.19 GB, beside them 0\.13 GB\), 0\.20 GB are available: .*--memory-limit none/,
      ),
    });
    expect(read).toEqual([]);
    await using engine = await loadEngine(goldenModel("quant-q4_0"), {
      memoryLimit: Number.POSITIVE_INFINITY,
    });
    expect(engine.context).toBe(512);
    for (const memoryLimit of [0, -1, Number.NaN, "1" as unknown as number])
      await expect(loadEngine(goldenModel("quant-q4_0"), { memoryLimit })).rejects.toMatchObject({
        code: "ERR_BAD_REQUEST",
        param: "memoryLimit",
      });
  });
});
