// The command line as a user runs it: the built program in a process of its own (test/support/build.ts builds it).
import { spawn } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { embeddedGoldens, embeddedModel, goldenModel } from "./support/engines.js";

const main = path.resolve(import.meta.dirname, "../dist/cli/main.js");
const manifest = path.resolve(import.meta.dirname, "../package.json");
// Random weights, 280 tokens, no chat template: milliseconds.
const tiny = goldenModel("llama-gqa-untied");
const folder = mkdtempSync(path.join(tmpdir(), "outrider-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Surroundings {
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Sent when the first text appears on stdout. */
  readonly signal?: NodeJS.Signals;
}

function outrider(args: readonly string[], { input = "", env, signal }: Surroundings = {}): Promise<Outcome> {
  const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...env } });
  return outcome(child, input, signal);
}

function outcome(
  child: ReturnType<typeof spawn>,
  input: string,
  signal: NodeJS.Signals | undefined,
): Promise<Outcome> {
  let stdout = "";
  let stderr = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    if (stdout === "" && signal !== undefined) child.kill(signal);
    stdout += text;
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin!.on("error", () => undefined); // it may end without reading
  child.stdin!.end(input);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, killedBy) => resolve({ code, signal: killedBy, stdout, stderr }));
  });
}

function file(name: string, text: string): string {
  const full = path.join(folder, name);
  writeFileSync(full, text);
  return full;
}

const lines = (text: string) =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
const sky = "The answer to this question lies in the intricate dance of";

describe("an answer", () => {
  test("to the words of the command line, the text alone", async () => {
    const { code, stdout, stderr } = await outrider([
      "--max-tokens",
      "11",
      "Why",
      "is",
      "the",
      "sky",
      "blue?",
    ]);
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: `${sky}\n`, stderr: "" });
  });

  test("to what stands on stdin", async () => {
    const { code, stdout } = await outrider(["--max-tokens", "11"], { input: "Why is the sky blue?\n" });
    expect({ code, stdout }).toEqual({ code: 0, stdout: `${sky}\n` });
  });

  test("as JSON", async () => {
    const { code, stdout } = await outrider([
      ...[
        "generate",
        "--json",
        "--max-tokens",
        "11",
        "--strategy",
        "lookup",
        "--seed",
        "5",
        "Why is the sky blue?",
      ],
    ]);
    expect(code).toBe(0);
    const [answer] = lines(stdout);
    expect(answer).toEqual({
      id: 1,
      model: expect.any(String),
      strategy: "lookup",
      exact: true,
      seed: 5,
      prompt_tokens: expect.any(Array),
      tokens: expect.any(Array),
      text: sky,
      finish_reason: "length",
      stats: {
        prefill_ms: expect.any(Number),
        decode_ms: expect.any(Number),
        tokens: 11,
        passes: expect.any(Number),
        tokens_per_pass: expect.any(Number),
        drafted: expect.any(Number),
        accepted: expect.any(Number),
        tokens_per_second: expect.any(Number),
      },
    });
    expect(answer.tokens).toHaveLength(11);
    expect(answer.prompt_tokens[0]).toBe(1);
  });

  test("without a template, with a stop string and sampling, the same with every strategy", async () => {
    const common = [
      "--model",
      tiny,
      "--raw",
      "--json",
      "--temperature",
      "1",
      "--seed",
      "3",
      "--max-tokens",
      "20",
      "ab",
    ];
    const [none] = lines((await outrider(["--strategy", "none", ...common])).stdout);
    const [lookup] = lines(
      (await outrider(["--strategy", "lookup", "--draft-length", "4", ...common])).stdout,
    );
    expect(lookup.tokens).toEqual(none.tokens);
    const stop = [...none.text].find((c: string) => c >= " " && c <= "~")!;
    const [stopped] = lines((await outrider(["--stop", stop, ...common])).stdout);
    expect(stopped.text).toBe(none.text.slice(0, none.text.indexOf(stop)));
    expect(stopped.finish_reason).toBe("stop");
  });

  test("fails with its own exit code where nobody reads stderr", async () => {
    const child = spawn(process.execPath, [main, "--model", path.join(folder, "none.gguf"), "x"]);
    child.stderr.destroy();
    child.stdin.end();
    expect(await new Promise((resolve) => child.on("exit", resolve))).toBe(3);
  });

  test("has no colours in a pipe, whatever the environment says", async () => {
    const args = ["--model", tiny, "--draft-model", "no.gguf", "chat"];
    const { stdout, stderr } = await outrider(args, { env: { FORCE_COLOR: "1" } });
    expect(stdout + stderr).toContain("error[ERR_");
    expect(stdout + stderr).not.toContain("\x1b");
  });

  test("in a conversation from a pipe, one a line", async () => {
    const { code, stdout } = await outrider(["chat", "--max-tokens", "6"], {
      input: "Say hi.\nAgain.\n/exit\nNo.\n",
    });
    expect(code).toBe(0);
    expect(stdout.trimEnd().split("\n")).toHaveLength(2);
  });

  test("of a copy of the embedded model has no warnings, and the copy's name", async () => {
    const copy = path.join(folder, "copy.gguf");
    copyFileSync(embeddedModel, copy);
    const { stdout, stderr } = await outrider(["--model", copy, "--json", "--max-tokens", "2", "Hi"]);
    expect(stderr).toBe("");
    expect(lines(stdout)[0].model).toBe("copy");
  });

  test("on another instruction set is the same", async () => {
    const args = ["--model", tiny, "--raw", "--json", "--max-tokens", "8", "abc"];
    const [one] = lines((await outrider(args)).stdout);
    const [other] = lines((await outrider(args, { env: { OUTRIDER_INSTRUCTION_SET: "scalar" } })).stdout);
    expect(other.tokens).toEqual(one.tokens);
  });
});

// util-linux's script gives it a terminal.
describe.skipIf(process.platform !== "linux")("on a terminal", () => {
  const onTerminal = (args: string, env: NodeJS.ProcessEnv) => {
    const command = `"${process.execPath}" "${main}" --model "${tiny}" --raw --max-tokens 4 ${args} ab`;
    const child = spawn("script", ["-qefc", command, "/dev/null"], {
      env: {
        ...process.env,
        TERM: "xterm-256color",
        CI: undefined,
        NO_COLOR: undefined,
        FORCE_COLOR: undefined,
        ...env,
      },
    });
    return outcome(child, "", undefined);
  };
  const statistics = /4 tokens · [\d.,]+ tokens\/s · [1-4] pass(es)? · \d\.\d\d tokens\/pass · auto/;

  test("a dim line of statistics follows the answer", async () => {
    const { code, stdout } = await onTerminal("", {});
    expect(stdout).toMatch(statistics);
    expect(stdout).toContain("\x1b[2m4 tokens");
    expect(code).toBe(0);
  });

  test("without colours where NO_COLOR says so, and not at all with --quiet", async () => {
    const { stdout } = await onTerminal("", { NO_COLOR: "1" });
    expect(stdout).toMatch(statistics);
    expect(stdout).not.toContain("\x1b[2m4 tokens");
    expect((await onTerminal("--quiet", {})).stdout).not.toMatch(statistics);
  });
});

// A terminal, too.
test.skipIf(process.platform !== "linux")(
  "Ctrl-C in a conversation stops an answer, or says how to leave; Ctrl-Z pauses it",
  async () => {
    const command = `echo pid $$; exec "${process.execPath}" "${main}" chat --max-tokens 1500 --no-learn`;
    const child = spawn("script", ["-qefc", command, "/dev/null"], {
      env: { ...process.env, NO_COLOR: "1" },
    });
    let seen = "";
    let before = "";
    let heard: () => void = () => undefined;
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      seen += text;
      heard();
    });
    const closed = new Promise<number | null>((resolve) => child.on("close", resolve));
    const over = closed.then(() => "over");
    /** Types, and waits for what follows, each behind the one before. */
    const type = async (keys: string, ...words: string[]) => {
      child.stdin.write(keys);
      for (const word of words) {
        while (!seen.includes(word))
          if ((await Promise.race([over, new Promise<void>((resolve) => (heard = resolve))])) === "over")
            return;
        before = seen.slice(0, seen.indexOf(word));
        seen = seen.slice(before.length + word.length);
      }
    };
    const leaving = ["Ctrl-C again or Ctrl-D leaves", "> "];
    await type("", "pid ");
    await type("", "\n");
    const pid = Number(before);
    await type("", "> ");
    // Ctrl-Z stops nobody here, since there is no shell; what counts is the way back.
    const waking = setInterval(() => process.kill(pid, "SIGCONT"), 20);
    await type("\x1a", "> ");
    clearInterval(waking);
    await type("half a quest", "uest");
    await type("\x03", ...leaving);
    await type("Tell me a very long story.\r", "story.", ". "); // of the answer
    await type("\x03", "tokens/pass", "> ");
    await type("\x03", ...leaving);
    await type("Say hi.\r", "tokens/pass", "> ");
    // The second of two leaves; on a machine that takes seconds for the next it counts as a first one.
    while (child.exitCode === null) await type("\x03", ...leaving);
    expect(await closed).toBe(0);
  },
);

describe("--prompts", () => {
  test("takes prompts, turns and token ids, and gives ids back", async () => {
    const golden = JSON.parse(readFileSync(embeddedGoldens, "utf8").split("\n")[0]!);
    const prompts = file(
      "prompts.jsonl",
      [
        { id: "p", prompt: "Why is the sky blue?" },
        { question_id: 81, turns: ["Why is the sky blue?", "And at night?"] },
        { id: 7, prompt_tokens: golden.prompt_tokens },
        { id: "beyond the limit", prompt: "x" },
      ]
        .map((line) => JSON.stringify(line))
        .join("\n"),
    );
    const { code, stdout } = await outrider([
      "generate",
      "--json",
      "--prompts",
      prompts,
      "--limit",
      "3",
      "--max-tokens",
      "8",
    ]);
    expect(code).toBe(0);
    const answers = lines(stdout);
    expect(answers.map((a) => a.id)).toEqual(["p", 81, 7]);
    expect(answers[1].tokens).toEqual(answers[0].tokens);
    expect(answers[2].prompt_tokens).toEqual(golden.prompt_tokens);
    // Further on two tokens are nearly as likely, and rounding decides: test/goldens.test.ts weighs that.
    expect(answers[2].tokens.slice(0, 5)).toEqual(golden.greedy.slice(0, 5));
  });

  test.each([
    ['{"id":1,"prompt":"a"}\n{"id":2}', 2, /bad\.jsonl:2: expected "prompt"/],
    ['{"id":1,', 2, /bad\.jsonl:1: not JSON/],
    ['{"prompt_tokens":[1,2]}\n{"prompt_tokens":[280]}', 2, /bad\.jsonl:2: prompt\[0\] is 280/],
  ])("says which line of %j is wrong", async (text, expected, message) => {
    const { code, stderr } = await outrider([
      "--model",
      tiny,
      "--json",
      "--max-tokens",
      "2",
      "--prompts",
      file("bad.jsonl", text),
    ]);
    expect(stderr).toMatch(message);
    expect(code).toBe(expected);
  });
});

test("an answer ends where it goes in circles, unless --max-tokens says how long it is", async () => {
  const endless = ["--model", tiny, "--raw", "--regex", "(xy){240}", "a"];
  const { code, stdout, stderr } = await outrider(endless);
  expect(code).toBe(1); // half of what the pattern says is not what it says
  expect(stderr).toContain("cut before it fits its schema, pattern or grammar");
  expect(stdout).toMatch(/^(xy){20,200}x?\n$/);
  expect(stderr).toContain("It goes in circles and was cut; --max-tokens");
  const whole = await outrider([...endless, "--max-tokens", "500"]);
  expect(whole).toMatchObject({ code: 0, stdout: `${"xy".repeat(240)}\n` });
  expect(whole.stderr).not.toContain("cut");
  const cut = await outrider([...endless, "--max-tokens", "5"]);
  expect(cut.code).toBe(1);
  expect(cut.stderr).toContain("cut before it fits");
});

test("several answers as text have their ids above them", async () => {
  const prompts = file("two.jsonl", '{"id":"a","prompt":"Hi"}\n{"question_id":81,"prompt":"Ho"}\n');
  const args = ["--model", tiny, "--raw", "--quiet", "--max-tokens", "4"];
  const together = await outrider([...args, "--prompts", prompts]);
  const [hi, ho] = [await outrider([...args, "Hi"]), await outrider([...args, "Ho"])];
  expect(together.stdout).toBe(`==> a <==\n${hi.stdout}\n==> 81 <==\n${ho.stdout}`);
  expect((await outrider([...args, "--prompts", prompts, "--limit", "1"])).stdout).toBe(hi.stdout);
  const input = readFileSync(prompts, "utf8");
  expect((await outrider([...args, "--prompts", "-"], { input })).stdout).toBe(together.stdout);
  expect((await outrider([...args, "--prompts", "-"], { input: "{}" })).stderr).toContain(
    "standard input:1: ",
  );
});

test("score takes texts: after a prompt, or from their second token on", async () => {
  const prompt = "The capital of France is";
  const texts = [
    { id: "likely", prompt, text: " Paris." },
    { id: "unlikely", prompt, text: " banana." },
    { id: "whole", text: `${prompt} Paris.` },
  ];
  const input = file("texts.jsonl", texts.map((line) => JSON.stringify(line)).join("\n"));
  const { code, stdout } = await outrider(["score", "--json", "--input", input]);
  expect(code).toBe(0);
  const [likely, unlikely, whole] = lines(stdout);
  expect(Object.keys(likely)).toEqual(["id", "tokens", "logprobs", "top"]);
  expect(likely.tokens).toHaveLength(2);
  expect(likely.logprobs[0]).toBeGreaterThan(unlikely.logprobs[0]);
  expect(whole.tokens.slice(-2)).toEqual(likely.tokens);
  expect(whole.logprobs.slice(-2)).toEqual(likely.logprobs);
  for (const line of [{ prompt: "a" }, { tokens: [1] }, { prompt: 3, text: "a" }, {}]) {
    const wrong = await outrider(["score", "--input", file("wrong.jsonl", JSON.stringify(line))]);
    expect(wrong).toMatchObject({ code: 2, stdout: "" });
    expect(wrong.stderr).toMatch(/wrong\.jsonl:1: (expected "text"|prompt is "3", expected text)/);
  }
});

test("score: what the tiny model's golden says", async () => {
  const golden = JSON.parse(readFileSync(tiny.replace(/\.gguf$/, ".json"), "utf8")).prompts[0];
  const input = file(
    "score.jsonl",
    JSON.stringify({ id: "s", prompt_tokens: golden.tokens, tokens: golden.greedy.slice(0, 4) }),
  );
  const { code, stdout } = await outrider([
    "score",
    "--json",
    "--model",
    tiny,
    "--precise",
    "--input",
    input,
  ]);
  expect(code).toBe(0);
  const [scored] = lines(stdout);
  expect(Object.keys(scored)).toEqual(["id", "logprobs", "top"]);
  expect(scored.logprobs).toHaveLength(4);
  for (const [i, top] of scored.top.entries()) {
    expect(top).toHaveLength(16);
    expect(top[0][0]).toBe(golden.greedy[i]);
    expect(Math.abs(top[0][1] - golden.top[i][0][1])).toBeLessThan(1e-3);
    expect(scored.logprobs[i]).toBe(top[0][1]);
  }
});

describe("inspect", () => {
  test("tells what is in a file and what it takes", async () => {
    const { code, stdout } = await outrider(["inspect", embeddedModel]);
    expect(code).toBe(0);
    for (const part of [
      "general.architecture",
      "blk.N.attn_q.weight",
      "576 × 49,152",
      "keys and values of a text of 8,192 tokens",
      "has no token for the bytes 04",
    ])
      expect(stdout).toContain(part);
    // A path stays whole, however long.
    const rest = stdout.split("\n").filter((line) => !line.includes(embeddedModel));
    expect(Math.max(...rest.map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  test("counts the memory as --memory-limit does", async () => {
    const needed = /together, as --memory-limit counts +(\d+) MB/.exec(
      (await outrider(["inspect"])).stdout,
    )![1];
    const refused = await outrider(["--memory-limit", "0.3", "hi"]);
    expect(refused.code).toBe(3);
    expect(refused.stderr).toContain(
      `takes ${(Number(needed) / 1000).toFixed(2)} GB of memory (weights 0.10 GB,`,
    );
  });

  test("as JSON, of a model that cannot be run too", async () => {
    const [tinyModel] = lines((await outrider(["inspect", "--json", tiny])).stdout);
    expect(tinyModel.memory).toMatchObject({
      supported: true,
      weights: expect.any(Number),
      cache: expect.any(Number),
    });
    expect(tinyModel.tensors[0]).toMatchObject({
      name: expect.any(String),
      type: "F32",
      shape: expect.any(Array),
    });
    const foreign = path.join(folder, "foreign.gguf");
    const bytes = readFileSync(tiny);
    bytes.write("lxama", bytes.indexOf("llama"));
    writeFileSync(foreign, bytes);
    const { code, stdout } = await outrider(["inspect", "--json", foreign]);
    expect(code).toBe(0);
    expect(lines(stdout)[0].memory).toMatchObject({
      supported: false,
      reason: expect.stringContaining("lxama"),
    });
  });
});

test("verify finds every way equal, and ways in which drafts were accepted among them", async () => {
  const { code, stdout } = await outrider([
    "verify",
    "--json",
    "--model",
    tiny,
    "--draft-model",
    tiny,
    "--max-tokens",
    "6",
  ]);
  expect(code).toBe(0);
  const rows = lines(stdout);
  expect(rows.length).toBeGreaterThan(12);
  expect(rows.every((row) => row.equal)).toBe(true);
  const drafting = rows.find((row) => row.setting === "strategy draft-model, always 7");
  expect(drafting.accepted).toBeGreaterThan(0);
  expect(drafting.passes).toBeLessThan(drafting.tokens);
});

test("bench gives numbers with their circumstances", async () => {
  const prompts = file(
    "bench.jsonl",
    '{"category":"x","prompt_tokens":[1,2,3]}\n{"category":"y","prompt":"abab"}\n',
  );
  const { code, stdout } = await outrider([
    ...["bench", "--json", "--model", tiny, "--prompts", prompts, "--max-tokens", "8", "--repetitions", "2"],
    ...["--strategies", "none,lookup"],
  ]);
  expect(code).toBe(0);
  const records = lines(stdout);
  expect(records.filter((r) => r.bench === "pass").map((r) => r.n)).toEqual([
    1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 64,
  ]);
  expect(records.filter((r) => r.bench === "decode").map((r) => `${r.category} ${r.strategy}`)).toEqual([
    ...["x none", "x lookup", "y none", "y lookup", "all none", "all lookup"],
  ]);
  // A first round of passes only warms up.
  expect(records.filter((r) => r.ms).every((r) => r.repetitions === 6)).toBe(true);
  for (const record of records) {
    expect(record).toMatchObject({
      version: JSON.parse(readFileSync(manifest, "utf8")).version,
      date: expect.any(String),
    });
    expect(Object.keys(record.machine)).toEqual([
      "cpu",
      "cores",
      "threads",
      "instruction_set",
      "node",
      "platform",
    ]);
    const { median, values } = record.ms ?? record.tokens_per_second;
    expect(values).toHaveLength(record.repetitions);
    expect(median).toBeGreaterThan(0);
  }
});

test("strategies: every description whole, within 80 columns", async () => {
  const { code, stdout } = await outrider(["strategies"]);
  expect(code).toBe(0);
  expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
  const words = (text: string) => text.split(/\s+/).join(" ");
  const [all] = lines((await outrider(["strategies", "--json"])).stdout);
  for (const { name, summary } of all)
    for (const word of [name, ...summary.split(" ")]) expect(words(stdout)).toContain(word);
});

describe("errors are one line with a code", () => {
  const notGguf = file("page.gguf", "<!DOCTYPE html><html>404</html>");
  const cut = path.join(folder, "cut.gguf");
  copyFileSync(tiny, cut);
  truncateSync(cut, 100_000);

  test.each<[string, string[], number, RegExp]>([
    ["an unknown option", ["--nope", "hi"], 2, /unknown option '--nope'/],
    ["a misspelt option", ["--max-token", "3", "hi"], 2, /Did you mean --max-tokens/],
    ["a misspelt command", ["inspekt"], 2, /did you mean outrider inspect/],
    ["not a number", ["--temperature", "0.7x", "hi"], 2, /'0.7x' is invalid/],
    ["NaN", ["--top-p", "NaN", "hi"], 2, /'NaN' is invalid/],
    ["an empty number", ["--seed", "", "hi"], 2, /'' is invalid/],
    [
      "a number out of range",
      ["--model", tiny, "--raw", "--temperature", "1000", "hi"],
      2,
      /expected 0 to 100/,
    ],
    ["a strategy that is none", ["--strategy", "x", "hi"], 2, /Allowed choices are none/],
    [
      "a strategy without its draft model",
      ["--strategy", "draft-model", "--model", tiny, "hi"],
      2,
      /--draft-model PATH/,
    ],
    ["an empty prompt", [""], 2, /the prompt is empty/],
    ["nothing on stdin", [], 2, /the prompt is empty/],
    ["a prompt and a file of prompts", ["--prompts", "x", "hi"], 2, /both a prompt and --prompts/],
    [
      "a prompt that is too long",
      ["--context", "8", "Why is the sky blue?"],
      2,
      /the context holds 8\. Shorten it, or .* trained for 8192/,
    ],
    [
      "a prompt that no context holds",
      ["--model", tiny, "--raw", "x".repeat(2000)],
      2,
      /the context holds 512\. Shorten it: the model was trained for no more/,
    ],
    [
      "a file of prompts that is not there",
      ["--prompts", "nowhere.jsonl"],
      3,
      /nowhere\.jsonl does not exist/,
    ],
    ["a model that is not there", ["--model", "nowhere.gguf", "hi"], 3, /ERR_PATH.*nowhere\.gguf/],
    ["a folder", ["--model", folder, "hi"], 3, /ERR_PATH.*folder/],
    ["a web page", ["--model", notGguf, "hi"], 3, /ERR_MODEL_FORMAT.*HTML/],
    ["a file cut short", ["--model", cut, "hi"], 3, /ERR_MODEL_TRUNCATED/],
    ["a web page to inspect", ["inspect", notGguf], 3, /ERR_MODEL_FORMAT.*HTML/],
    ["a draft model of another vocabulary", ["--draft-model", tiny, "hi"], 3, /ERR_DRAFT_MISMATCH/],
  ])("%s", async (_, args, expected, message) => {
    const { code, stdout, stderr } = await outrider(args);
    // The tiny model's vocabulary lacks some bytes, of which it warns.
    const rest = stderr
      .trimEnd()
      .split("\n")
      .filter((line) => !line.startsWith("warning: "));
    expect(rest).toHaveLength(1);
    expect(rest[0]).toMatch(/^error\[ERR_\w+\]: /);
    expect(rest[0]).toMatch(message);
    expect({ code, stdout }).toEqual({ code: expected, stdout: "" });
  });

  test("an instruction set that there is not", async () => {
    const { code, stderr } = await outrider(["hi"], { env: { OUTRIDER_INSTRUCTION_SET: "sse9" } });
    expect(stderr).toMatch(/^error\[ERR_BAD_REQUEST\]: .*OUTRIDER_INSTRUCTION_SET is "sse9"/);
    expect(code).toBe(2);
  });

  test("with the stack for --debug only", async () => {
    const { stderr } = await outrider(["--debug", "--model", "nowhere.gguf", "hi"]);
    expect(stderr).toMatch(/\n\s+at /);
  });
});

describe("ending early", () => {
  const story = ["--max-tokens", "2000", "Tell me a very long story about the sea."];

  test("Ctrl-C keeps what there is and exits with 130", async () => {
    const { code, stdout, stderr } = await outrider(story, { signal: "SIGINT" });
    expect({ code, stderr }).toEqual({ code: 130, stderr: "" });
    expect(stdout).toMatch(/\w.*\n$/s);
  });

  test("Ctrl-C while many answers are given ends with the one under way, marked as such", async () => {
    const prompts = file(
      "many.jsonl",
      `{"id":0,"prompt":"Say hi."}\n${'{"id":1,"prompt":"Tell me a very long story."}\n'.repeat(50)}`,
    );
    const { code, stdout } = await outrider(["generate", "--json", "--prompts", prompts], {
      signal: "SIGINT",
    });
    expect(code).toBe(130);
    const answers = lines(stdout);
    expect(answers.length).toBeLessThan(20);
    expect(answers.at(-1).finish_reason).toBe("abort");
  });

  test.skipIf(process.platform === "win32")("a reader that has enough ends it quietly", async () => {
    const command = `"$0" "$@" | head -c 1`;
    const child = spawn("bash", ["-o", "pipefail", "-c", command, process.execPath, main, ...story]);
    const { code, stdout, stderr } = await outcome(child, "", undefined);
    expect(stderr).toBe("");
    expect({ code, length: stdout.length }).toEqual({ code: 0, length: 1 });
  });
});

test("--version and --help", async () => {
  expect((await outrider(["--version"])).stdout.trim()).toBe(
    JSON.parse(readFileSync(manifest, "utf8")).version,
  );
  for (const args of [["--help"], ["generate", "--help"], ["bench", "--help"]]) {
    const { code, stdout } = await outrider(args);
    expect(code).toBe(0);
    expect(stdout).toContain("--model <path>");
  }
  const { stdout } = await outrider(["--help"]);
  expect((await outrider(["help"])).stdout).toBe(stdout);
  expect((await outrider(["help", "pull"])).stdout).toBe((await outrider(["pull", "--help"])).stdout);
  expect(stdout).toContain("Examples:");
  const commands = [
    ...stdout
      .split("Commands:")[1]!
      .split("Examples:")[0]!
      .matchAll(/^ {2}(\w+)/gm),
  ];
  expect(commands.length).toBeGreaterThan(12);
  for (const args of [[], ...commands.map(([, name]) => [name!])]) {
    const help = (await outrider([...args, "--help"])).stdout;
    expect(Math.max(...help.split("\n").map((line) => line.length)), `${args}`).toBeLessThanOrEqual(80);
  }
});

test("tune finds layers for strategy self and keeps them in the cache folder", async () => {
  const prompts = file("tune.jsonl", '{"prompt":"Hello"}\n{"prompt":"Count to five."}\n');
  const env = { OUTRIDER_CACHE: path.join(folder, "tuned-cache") };
  const args = ["tune", "--model", tiny, "--prompts", prompts, "--max-tokens", "12", "--seconds", "60"];
  const found = await outrider([...args, "--json", "--quiet"], { env });
  expect(found).toMatchObject({ code: 0, stderr: "" });
  const result = JSON.parse(found.stdout);
  expect(JSON.parse(readFileSync(result.file, "utf8"))).toEqual({ kept: result.kept });
  const again = await outrider([...args, "--quiet"], { env });
  expect(again.code).toBe(0);
  expect(again.stdout).toContain(`before, with ${result.kept.length} layers`);
  expect(again.stdout).toContain(result.file);
  expect(await outrider([...args, "--seconds", "0"])).toMatchObject({ code: 2, stdout: "" });
});
