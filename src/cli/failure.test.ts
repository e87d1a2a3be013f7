import { CommanderError } from "commander";
import { expect, test } from "vitest";
import { OutriderError } from "../errors.js";
import { describeFailure, locate } from "./failure.js";

test("one line, with the option's name where the library knows another", () => {
  const error = new OutriderError("ERR_BAD_REQUEST", "topK is -3, expected 0 to 9", { param: "topK" });
  expect(describeFailure(error)).toEqual({
    line: "error[ERR_BAD_REQUEST]: topK is -3, expected 0 to 9 (--top-k)",
    exitCode: 2,
  });
  expect(describeFailure(locate("f:3", error)).line).toBe(
    "error[ERR_BAD_REQUEST]: f:3: topK is -3, expected 0 to 9 (--top-k)",
  );
});

test("what is typed wrongly names the help of its command", () => {
  const error = new CommanderError(1, "commander.unknownOption", "error: unknown option '--x'");
  expect(describeFailure(error).line).toMatch(/; see outrider --help$/);
  expect(describeFailure(error, "outrider chat").line).toMatch(/; see outrider chat --help$/);
});

test("exit codes", () => {
  const exitCode = (error: unknown) => describeFailure(error).exitCode;
  expect(exitCode(new CommanderError(1, "commander.unknownOption", "error: no\n(Did you mean --x?)"))).toBe(
    2,
  );
  expect(exitCode(new OutriderError("ERR_MODEL_TRUNCATED", ""))).toBe(3);
  expect(exitCode(new OutriderError("ERR_DRAFT_MISMATCH", ""))).toBe(3);
  expect(exitCode(new OutriderError("ERR_RUNTIME_NAN", ""))).toBe(1);
  expect(exitCode(new TypeError("x"))).toBe(1);
});
