import { describe, expect, test } from "vitest";
import { commandLine, oneSlipApart } from "./program.js";

/** What each command's action would be given. */
async function parse(...args: string[]): Promise<{ command: string; words: unknown; flags: unknown }> {
  let seen: { command: string; words: unknown; flags: unknown } | undefined;
  const program = commandLine("0.0.0");
  for (const command of [program, ...program.commands])
    command.action((...given: unknown[]) => {
      const flags = command.opts();
      seen = { command: command.name(), words: given[0] === flags ? undefined : given[0], flags };
    });
  await program.parseAsync(args, { from: "user" });
  return seen!;
}

describe("the command line", () => {
  test("words without quotes are one prompt, options among them", async () => {
    expect(await parse("Why", "is", "it", "--max-tokens", "5", "blue?")).toEqual({
      command: "outrider",
      words: ["Why", "is", "it", "blue?"],
      flags: { learn: true, maxTokens: 5 },
    });
  });

  test("options before a command are the command's", async () => {
    expect(await parse("--model", "m.gguf", "--seed", "3", "generate", "--seed", "4", "hi")).toEqual({
      command: "generate",
      words: ["hi"],
      flags: { learn: true, model: "m.gguf", seed: 4 },
    });
    await expect(parse("--raw", "chat")).rejects.toThrow("--raw is not an option of outrider chat");
  });

  test("stop strings add up", async () => {
    expect((await parse("--stop", "a", "--stop", "b", "hi")).flags).toEqual({
      learn: true,
      stop: ["a", "b"],
    });
  });

  test.each([
    [["--tempratur", "1", "hi"], /unknown option '--tempratur'/],
    [["--temperature", "0.7x", "hi"], /'0.7x' is invalid\. Expected a number/],
    [["--temperature", "", "hi"], /'' is invalid/],
    [["--max-tokens", "1e3", "hi"], /Expected a whole number/],
    [["--strategy", "x", "hi"], /Allowed choices are none, lookup, .*auto/],
    [["bench", "--strategies", "none,x"], /Expected different ones of none/],
    [["bench", "--strategies", "none,none"], /Expected different ones of none/],
    [["generate", "--limit", "0"], /from 1/],
    [["serve", "--max-parallel", "0"], /from 1 to 2147483647/],
    [["serve", "--max-queue", "-1"], /from 0 to 2147483647/],
    [["score"], /'--input <file>' not specified/],
    [["inspect", "a", "b"], /too many arguments/],
  ])("%j is refused", async (args, message) => {
    await expect(parse(...args)).rejects.toThrow(message);
  });
});

test("one slip apart", () => {
  for (const slip of ["inspec", "inspectt", "inspekt", "inspcet", "nspect"])
    expect(oneSlipApart(slip, "inspect"), slip).toBe(true);
  for (const other of ["in", "respect", "inspectors", "insepkt", "spinect"])
    expect(oneSlipApart(other, "inspect"), other).toBe(false);
});
