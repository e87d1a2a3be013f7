import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, readlink, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Handler, HubServer } from "../../test/support/hub-server.js";
import { Seeded } from "../../test/support/seeded.js";
import { listCached, removeCached } from "./cache.js";
import { locate, pull } from "./pull.js";
import type { Patience } from "./request.js";
import { type HubSettings, hubSettings } from "./settings.js";

const MiB = 2 ** 20;
const run = promisify(execFile);
const main = resolve(import.meta.dirname, "../../dist/cli/main.js");
const impatient: Patience = { idleMs: 400, retryMs: 1, attempts: 4, mostRetryAfterMs: 5000 };
const token = "hf_secretsecretsecret";

function noise(bytes: number, seed: number): Buffer {
  const random = new Seeded(seed);
  const data = Buffer.alloc(bytes);
  for (let at = 0; at + 4 <= bytes; at += 4) data.writeUInt32LE(random.integer(0, 2 ** 32 - 1), at);
  return data;
}
// Five pieces of 4 MiB, the last one short.
const large = noise(17 * MiB + 12_345, 1);
const name = "hf:o/r";

let root: string;
let hub: HubServer;
let settings: HubSettings;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "outrider-hub-"));
});
afterAll(() => rm(root, { recursive: true }));
beforeEach(async () => {
  hub = await HubServer.start({ "README.md": Buffer.from("hello"), "m-Q4_K_M.gguf": large });
  const cache = join(await mkdtemp(join(root, "c-")), "hub");
  settings = { endpoint: hub.endpoint, token, offline: false, trustedHosts: [], cache };
});
afterEach(() => hub[Symbol.asyncDispose]());

const fetchIt = (options: { signal?: AbortSignal } = {}) =>
  pull(settings, name, { patience: impatient, ...options });
const blobs = () => readdir(join(settings.cache, "models--o--r/blobs")).catch(() => [] as string[]);
const finished = async () => (await blobs()).filter((blob) => /^[0-9a-f]+$/.test(blob));
const bytesAsked = () =>
  hub.downloads.reduce((sum, { range }) => {
    const [, start, end] = /bytes=(\d+)-(\d+)/.exec(range ?? "")!;
    return sum + Number(end) - Number(start) + 1;
  }, 0);

/** The error, which must not give the token away. */
async function refusal(work: Promise<unknown> = fetchIt()): Promise<{ code: string; message: string }> {
  const error = await work.then(
    () => {
      throw new Error("it should have failed");
    },
    (e: { code: string; message: string; cause?: unknown }) => e,
  );
  expect(`${error.message} ${JSON.stringify(error)}`).not.toContain(token);
  return error;
}

describe("a good server", () => {
  test("the standard layout: blob, snapshot, ref; nothing is fetched twice", async () => {
    const { path, commit, files } = await fetchIt();
    expect(commit).toBe(hub.commit);
    expect(files).toEqual(["m-Q4_K_M.gguf"]);
    expect(path).toBe(join(settings.cache, "models--o--r/snapshots", commit, "m-Q4_K_M.gguf"));
    expect(await readlink(path)).toBe(`../../blobs/${hub.hashOf("m-Q4_K_M.gguf")}`);
    expect((await readFile(path)).equals(large)).toBe(true);
    expect(await readFile(join(settings.cache, "models--o--r/refs/main"), "utf8")).toBe(commit);
    expect(await blobs()).toEqual([hub.hashOf("m-Q4_K_M.gguf")]);
    expect(bytesAsked()).toBe(large.length);
    expect(hub.downloads.length).toBeGreaterThan(2); // several connections
    expect(hub.requests.every(({ authorization }) => authorization === `Bearer ${token}`)).toBe(true);
    await fetchIt();
    expect(hub.served).toBe(large.length);
  });

  test("a new commit: an unchanged file is linked, not fetched; a file in a folder links further up", async () => {
    await fetchIt();
    hub.commit = "b".repeat(40);
    hub.files = new Map([["sub/m-Q4_K_M.gguf", large]]);
    const { path } = await fetchIt();
    expect(hub.served).toBe(large.length);
    expect(await readlink(path)).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\//);
    expect((await readFile(path)).equals(large)).toBe(true);
  });

  test("what is in the cache is found without a request; offline too, and what is not there is said", async () => {
    const { path } = await fetchIt();
    const before = hub.requests.length;
    expect((await locate(settings, name)).path).toBe(path);
    expect((await locate({ ...settings, offline: true }, `${name}:q4_k_m`)).path).toBe(path);
    expect(hub.requests.length).toBe(before);
    const error = await refusal(locate({ ...settings, offline: true }, "hf:o/other"));
    expect(error).toMatchObject({
      code: "ERR_DOWNLOAD",
      message: expect.stringMatching(/not to be used; outrider pull hf:o\/other fetches it$/),
    });
    const { offline } = await hubSettings({ HF_HUB_OFFLINE: "1" }, false);
    expect((await refusal(pull({ ...settings, offline }, "hf:o/other"))).message).toMatch(
      /while HF_HUB_OFFLINE is set; without it outrider pull hf:o\/other fetches it$/,
    );
  });

  test("progress ends at the total and never goes beyond it", async () => {
    const seen: number[] = [];
    await pull(settings, name, { onProgress: ({ done, total }) => seen.push(done / total) });
    expect(seen.at(-1)).toBe(1);
    expect(Math.max(...seen)).toBe(1);
  });

  test("all shards of a file in several", async () => {
    hub.files = new Map(
      ["m-Q8_0-00002-of-00002.gguf", "m-Q8_0-00001-of-00002.gguf"].map((n, i) => [n, noise(5000, i)]),
    );
    const { path, files } = await fetchIt();
    expect(path).toMatch(/m-Q8_0-00001-of-00002\.gguf$/);
    expect(files).toHaveLength(2);
    expect(await finished()).toHaveLength(2);
  });

  test("safetensors: the folder, with all that belongs to it and nothing else", async () => {
    const names = [
      "config.json",
      "tokenizer.json",
      "model.safetensors",
      "chat_template.jinja",
      "pytorch_model.bin",
    ];
    hub.files = new Map(names.map((n, i) => [n, noise(4000, i)]));
    const { path, files } = await fetchIt();
    expect(files).toEqual(["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]);
    expect((await readdir(path)).sort()).toEqual([...files].sort());
  });
});

describe("a server that fails", () => {
  const onContents = (handler: Handler) => {
    hub.handler = handler;
  };

  test("connections break again and again: each goes on where the last whole piece ended", async () => {
    onContents((request, response) => {
      hub.send(request, response, large, 5 * MiB);
      return true;
    });
    const { path } = await fetchIt();
    expect((await readFile(path)).equals(large)).toBe(true);
  });

  test("half of it arrived: no half file has its name; the next time only the rest is asked for", async () => {
    let left = 9 * MiB;
    onContents((request, response) => {
      const most = Math.min(left, 5 * MiB);
      left -= most;
      // Late, or the other connections are given up before their pieces are whole.
      if (most === 0) setTimeout(() => response.destroy(), 300);
      else hub.send(request, response, large, most);
      return true;
    });
    expect(await refusal()).toMatchObject({
      code: "ERR_DOWNLOAD",
      message: expect.stringContaining("what has arrived is kept"),
    });
    expect(await finished()).toEqual([]);
    hub.handler = () => false;
    hub.requests.length = 0;
    const { path } = await fetchIt();
    expect((await readFile(path)).equals(large)).toBe(true);
    expect(bytesAsked()).toBeLessThan(large.length);
    expect(await blobs()).toEqual([hub.hashOf("m-Q4_K_M.gguf")]);
  });

  test("bytes that changed on the disk meanwhile are fetched again", async () => {
    let pieces = 0;
    onContents((request, response) => {
      if (pieces++ < 3) hub.send(request, response, large, 4 * MiB + 1);
      else setTimeout(() => response.destroy(), 300);
      return true;
    });
    await refusal();
    const part = (await blobs()).find((blob) => blob.endsWith(".outrider-part"))!;
    const partPath = join(settings.cache, "models--o--r/blobs", part);
    const bytes = await readFile(partPath);
    for (let at = 100; at < bytes.length; at += 4 * MiB) bytes[at]! ^= 1;
    await writeFile(partPath, bytes);
    hub.handler = () => false;
    const { path } = await fetchIt();
    expect((await readFile(path)).equals(large)).toBe(true);
  });

  test("answers that end early without saying so", async () => {
    let times = 0;
    onContents((request, response) => {
      if (times++ >= 3) return false;
      const [, start, end] = /bytes=(\d+)-(\d+)/.exec(request.headers.range!)!;
      response.writeHead(206, { "content-range": `bytes ${start}-${end}/${large.length}` });
      response.end(large.subarray(Number(start), Number(start) + 1000)); // chunked: no length
      return true;
    });
    const { path } = await fetchIt();
    expect((await readFile(path)).equals(large)).toBe(true);
  });

  test("silence is broken off", async () => {
    onContents((request, response) => {
      response.writeHead(206, {
        "content-length": "10",
        "content-range": request.headers.range!.replace("=", " "),
      });
      response.flushHeaders();
      return true;
    });
    hub.api = () => false;
    expect((await refusal()).code).toBe("ERR_DOWNLOAD");
  });

  test("Range is ignored: the whole file arrives over one connection", async () => {
    onContents((request, response) => {
      delete request.headers.range;
      hub.send(request, response, large);
      return true;
    });
    const { path } = await fetchIt();
    expect((await readFile(path)).equals(large)).toBe(true);
  });

  test("another part than the one asked for, another length", async () => {
    onContents((request, response) => {
      request.headers.range = "bytes=5-100";
      hub.send(request, response, large);
      return true;
    });
    expect(await refusal()).toMatchObject({
      code: "ERR_DOWNLOAD",
      message: expect.stringContaining("does not give the part"),
    });
    onContents((request, response) => {
      hub.send(request, response, Buffer.concat([large, large]));
      return true;
    });
    expect(await refusal()).toMatchObject({
      code: "ERR_DOWNLOAD",
      message: expect.stringContaining("the hub says"),
    });
    expect(await finished()).toEqual([]);
  });

  test.each([
    ["a large file", "m-Q4_K_M.gguf"],
    ["a small one", "m-Q2_K.gguf"],
  ])("wrong contents of %s: refused, removed, right the next time", async (_, file) => {
    const right = file === "m-Q2_K.gguf" ? Buffer.from("small") : large;
    hub.files = new Map([[file, right]]);
    const wrong = Buffer.from(right);
    wrong[right.length - 1]! ^= 1;
    onContents((request, response) => {
      hub.send(request, response, wrong);
      return true;
    });
    expect(await refusal()).toMatchObject({
      code: "ERR_DOWNLOAD",
      message: expect.stringContaining("expected"),
    });
    expect(await blobs()).toEqual([]);
    hub.handler = () => false;
    expect((await readFile((await fetchIt()).path)).equals(right)).toBe(true);
  });

  test("too many requests: waits as long as it is told, or says how long it would be", async () => {
    let refused = 0;
    onContents((_, response) => {
      if (refused >= 2) return false;
      refused++;
      response.writeHead(429, { "retry-after": "1" }).end();
      return true;
    });
    const started = performance.now();
    await fetchIt();
    expect(performance.now() - started).toBeGreaterThan(900);
    await rm(settings.cache, { recursive: true });
    onContents((_, response) => {
      response.writeHead(429, { "retry-after": "3600" }).end();
      return true;
    });
    expect((await refusal()).message).toContain("asks to wait 3600 s");
  });

  test.each([
    [401, "HF_TOKEN"],
    [403, "Accept its terms"],
    [404, "check the name"],
    [429, "too many requests"],
    [500, "answers 500"],
  ])("the hub answers %i", async (status, message) => {
    hub.api = (_, response) => {
      response.writeHead(status).end("<html>");
      return true;
    };
    expect(await refusal()).toMatchObject({
      code: "ERR_DOWNLOAD",
      message: expect.stringContaining(message),
    });
  });

  test.each([
    ["not JSON", "<html>"],
    ["a list", "[]"],
    ["no commit", '{"id":"o/r","sha":"../../x"}'],
  ])("the hub's answer is %s", async (_, body) => {
    hub.api = (_, response) => {
      response.writeHead(200, { "content-type": "application/json" }).end(body);
      return true;
    };
    expect((await refusal()).code).toBe("ERR_DOWNLOAD");
    expect(await blobs()).toEqual([]);
  });

  test("nobody listens", async () => {
    const error = await refusal(
      pull({ ...settings, endpoint: "http://127.0.0.1:1" }, name, { patience: impatient }),
    );
    expect(error).toMatchObject({ code: "ERR_DOWNLOAD", message: expect.stringContaining("ECONNREFUSED") });
  });
});

describe("redirects", () => {
  const redirect = (to: (attempt: number) => string) => {
    hub.handler = (request, response, attempt) => {
      if (!request.url!.includes("/resolve/") && !request.url!.includes("/hop")) return false;
      response.writeHead(302, { location: to(attempt) }).end();
      return true;
    };
  };

  test.each([
    ["a file", "file:///etc/passwd", "ERR_PATH", "only http"],
    ["a private address", "http://10.1.2.3/x", "ERR_PATH", "private network"],
    ["the cloud's own address", "http://169.254.169.254/latest", "ERR_PATH", "private network"],
    ["another port of this machine", "http://127.0.0.1:1/x", "ERR_PATH", "private network"],
    ["a short form of it", "http://127.1:1/x", "ERR_PATH", "private network"],
    ["it in IPv6", "http://[::1]:1/x", "ERR_PATH", "private network"],
    ["it as IPv4 in IPv6", "http://[::ffff:127.0.0.1]:1/x", "ERR_PATH", "private network"],
    ["a name of it", "http://localhost:1/x", "ERR_PATH", "private network"],
    ["nonsense", "http://[", "ERR_PATH", "not an address"],
  ])("to %s", async (_, to, code, message) => {
    redirect(() => to);
    expect(await refusal()).toMatchObject({ code, message: expect.stringContaining(message) });
    expect(await finished()).toEqual([]);
  });

  test("ten of them", async () => {
    redirect((attempt) => `/hop${attempt}`);
    expect(await refusal()).toMatchObject({
      code: "ERR_DOWNLOAD",
      message: expect.stringContaining("redirects"),
    });
  });

  test("to storage on another host, which never sees the token", async () => {
    await using storage = await HubServer.start(Object.fromEntries(hub.files));
    redirect(() => `${storage.endpoint}/cdn/m-Q4_K_M.gguf?signature=s3cret`);
    expect((await refusal()).message).not.toContain("s3cret");
    settings = { ...settings, trustedHosts: [`127.0.0.1:${storage.port}`] };
    expect((await readFile((await fetchIt()).path)).equals(large)).toBe(true);
    expect(storage.requests.length).toBeGreaterThan(1);
    expect(storage.requests.map(({ authorization }) => authorization)).toEqual(
      storage.requests.map(() => undefined),
    );
  });
});

describe("names that the server sends", () => {
  test.each([
    "../../x.gguf",
    "/etc/x.gguf",
    "a/../../x.gguf",
    "C:\\x.gguf",
    "a\\..\\x.gguf",
    "a//x.gguf",
    "x\u0000.gguf",
    "./x.gguf",
  ])("%j", async (bad) => {
    hub.files = new Map([[bad, large]]);
    expect((await refusal()).code).toBe("ERR_PATH");
    expect(await readdir(join(settings.cache, "..")).catch(() => [])).toEqual([]);
    expect(hub.downloads).toEqual([]);
  });

  test("a hash that is a path", async () => {
    hub.entry = (entry) => ({ ...entry, oid: "../../../x", lfs: undefined });
    expect((await refusal()).code).toBe("ERR_DOWNLOAD");
    expect(await blobs()).toEqual([]);
  });
});

describe("the cache", () => {
  test("a damaged blob is fetched again; a link without its blob does not count", async () => {
    const { path } = await fetchIt();
    await truncate(join(settings.cache, "models--o--r/blobs", hub.hashOf("m-Q4_K_M.gguf")), 1000);
    await fetchIt();
    expect((await readFile(path)).equals(large)).toBe(true);
    await rm(join(settings.cache, "models--o--r/blobs"), { recursive: true });
    await locate(settings, name, { patience: impatient });
    expect((await readFile(path)).equals(large)).toBe(true);
  });

  test("an index that names a shard which is not there: the model is not taken for complete", async () => {
    hub.files = new Map([
      ["config.json", Buffer.from("{}")],
      ["tokenizer.json", Buffer.from("{}")],
      [
        "model.safetensors.index.json",
        Buffer.from('{"weight_map":{"a":"model-00001-of-00001.safetensors"}}'),
      ],
      ["model-00001-of-00001.safetensors", noise(3000, 1)],
    ]);
    const { path } = await fetchIt();
    await rm(join(path, "model-00001-of-00001.safetensors"));
    const before = hub.requests.length;
    expect((await locate(settings, name)).files).toContain("model-00001-of-00001.safetensors");
    expect(hub.requests.length).toBeGreaterThan(before);
    expect((await stat(join(path, "model-00001-of-00001.safetensors"))).size).toBe(3000);
  });

  test("lists models and removes what no other revision uses", async () => {
    hub.files = new Map([
      ["a-Q4_0.gguf", noise(2000, 1)],
      ["b-Q8_0.gguf", noise(3000, 2)],
    ]);
    await fetchIt();
    await pull(settings, `${name}:Q8_0`);
    hub.commit = "b".repeat(40);
    await pull(settings, `${name}:Q8_0`); // the same file in a second revision
    const [model] = await listCached(settings.cache);
    expect(model).toMatchObject({ repository: "o/r", bytes: 5000 });
    expect(model!.revisions.map(({ refs }) => refs)).toEqual([[], ["main"]]);
    expect(await removeCached(settings.cache, model!, "b".repeat(40), ["b-Q8_0.gguf"])).toBe(0);
    const [rest] = await listCached(settings.cache);
    expect(rest!.bytes).toBe(5000);
    expect(await removeCached(settings.cache, rest!, "a".repeat(40), ["b-Q8_0.gguf"])).toBe(3000);
    const [last] = await listCached(settings.cache);
    expect(last!.bytes).toBe(2000);
    expect(await removeCached(settings.cache, last!)).toBe(2000);
    expect(await listCached(settings.cache)).toEqual([]);
  });

  test("a file that is larger than the disk is refused before it is begun", async () => {
    hub.entry = (entry) => ({ ...entry, lfs: { oid: "c".repeat(64), size: 2 ** 50 } });
    expect(await refusal()).toMatchObject({ code: "ERR_DOWNLOAD", message: expect.stringContaining("free") });
    expect(hub.downloads).toEqual([]);
  });

  test("Ctrl-C: what has arrived is kept", async () => {
    const abort = new AbortController();
    hub.handler = (request, response) => {
      hub.send(request, response, large, 4 * MiB + 5);
      return true;
    };
    const error = await refusal(
      pull(settings, name, { signal: abort.signal, onProgress: ({ done }) => done > 0 && abort.abort() }),
    );
    expect(error.code).toBe("ERR_ABORTED");
    hub.handler = () => false;
    hub.requests.length = 0;
    await fetchIt();
    expect(bytesAsked()).toBeLessThan(large.length);
  });
});

describe("the command line", () => {
  const cli = (args: string[], shell?: string) => {
    const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: settings.cache, HF_TOKEN: token };
    return (
      shell
        ? run("bash", ["-c", shell, "-", process.execPath, main, ...args], { env })
        : run(process.execPath, [main, ...args], { env })
    ).then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      (e: { code: number; stdout: string; stderr: string }) => e,
    );
  };

  test("two processes at once fetch it once", async () => {
    const results = await Promise.all([cli(["pull", name]), cli(["pull", name])]);
    const path = join(settings.cache, "models--o--r/snapshots", hub.commit, "m-Q4_K_M.gguf");
    for (const { code, stdout } of results) expect([code, stdout]).toEqual([0, `${path}\n`]);
    expect(hub.served).toBe(large.length);
    expect((await readFile(path)).equals(large)).toBe(true);
  });

  test("a process that was killed leaves no lock that holds", async () => {
    hub.handler = (request, response) => {
      hub.send(request, response, large, 4 * MiB + 5);
      setTimeout(() => child.kill("SIGKILL"), 50);
      return true;
    };
    const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: settings.cache };
    const child = execFile(process.execPath, [main, "pull", name], { env });
    await new Promise((done) => child.on("exit", done));
    hub.handler = () => false;
    expect((await readFile((await fetchIt()).path)).equals(large)).toBe(true);
  });

  test("no room for the file: exit code 4, the advice, and no file under its name", async () => {
    const { code, stderr } = await cli(["pull", name], 'ulimit -f 6000; exec "$@"'); // blocks of 1 KiB
    expect(code).toBe(4);
    expect(stderr).toMatch(/^error\[ERR_DOWNLOAD\]: .*file system does not take files of that size/);
    expect(await finished()).toEqual([]);
  });

  test("a cache that may only be read: what is in it is there, and anything else is refused with the way out", async () => {
    const { path } = await fetchIt();
    // Root may write everywhere unless it gives that up.
    const humble = process.getuid?.() === 0 ? ["setpriv", "--bounding-set=-dac_override"] : [];
    const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: settings.cache, HF_TOKEN: token };
    const humbly = (...args: string[]) => {
      const [command, ...rest] = [...humble, process.execPath, main, ...args];
      return run(command!, rest, { env }).then(
        ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
        (e: { code: number; stdout: string; stderr: string }) => e,
      );
    };
    await run("chmod", ["-R", "a-w", settings.cache]);
    try {
      expect(await humbly("pull", name)).toMatchObject({ code: 0, stdout: `${path}\n` });
      expect(hub.served).toBe(large.length);
      expect((await humbly("models", "--json")).stdout).toContain("hf:o/r");
      const refused = async (args: readonly string[], code: number, message: string) =>
        expect(await humbly(...args), args.join(" ")).toMatchObject({
          code,
          stderr: expect.stringMatching(new RegExp(`^error\\[ERR_\\w+\\]: \\S+models--o--r: ${message}\n$`)),
        });
      const noWriting = "no permission to write there; HF_HUB_CACHE names another folder";
      hub.commit = "b".repeat(40);
      await refused(["pull", name], 4, noWriting); // the same file in a new commit needs a link
      hub.files = new Map([["m-Q8_0.gguf", noise(3000, 3)]]);
      await refused(["pull", name], 4, noWriting);
      await refused(["rm", name], 3, "cannot be removed: no permission to write there");
      expect((await readFile(path)).equals(large)).toBe(true);
    } finally {
      await run("chmod", ["-R", "u+w", settings.cache]);
    }
  });

  test("models, rm, and errors without the token", async () => {
    expect((await cli(["models"])).stdout).toContain("no models");
    await cli(["pull", name, "--quiet"]);
    expect((await cli(["models"])).stdout).toMatch(/17\.8 MB {2}\d{4}-\d\d-\d\d {2}hf:o\/r:m-Q4_K_M\.gguf/);
    expect(JSON.parse((await cli(["models", "--json"])).stdout)).toMatchObject({
      name: "hf:o/r",
      bytes: large.length,
    });
    expect((await cli(["rm", `${name}:Q4_K_M`])).stdout).toBe("removed hf:o/r:Q4_K_M, 17.8 MB\n");
    expect((await cli(["models", "--json"])).stdout).toBe("");
    expect(await cli(["rm", name])).toMatchObject({ code: 3 });
    hub.api = (_, response) => {
      response.writeHead(401).end();
      return true;
    };
    const { code, stderr } = await cli(["pull", name]);
    expect(code).toBe(4);
    expect(stderr).not.toContain(token);
    expect((await cli(["pull", "hf:../x"])).code).toBe(3);
    expect(await cli(["--model", name, "--offline", "hi"])).toMatchObject({
      code: 4,
      stderr: expect.stringContaining("outrider pull"),
    });
    expect(await cli(["inspect", name])).toMatchObject({
      code: 4,
      stderr: expect.stringContaining("outrider pull"),
    });
  });
});
