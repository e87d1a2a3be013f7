import { CommanderError } from "commander";
import { type ErrorCode, OutriderError } from "../errors.js";
import { paint } from "./terminal.js";

const usage = 2;
const badFile = 3;
const network = 4;
const other = 1;
export const interrupted = 130;

const exitCodes: Record<ErrorCode, number> = {
  ERR_BAD_REQUEST: usage,
  ERR_CONTEXT: usage,
  ERR_MODEL_FORMAT: badFile,
  ERR_MODEL_TRUNCATED: badFile,
  ERR_MODEL_LIMIT: badFile,
  ERR_MODEL_UNSUPPORTED: badFile,
  ERR_PATH: badFile,
  ERR_DOWNLOAD: network,
  ERR_TOKENIZER: badFile,
  ERR_TEMPLATE: badFile,
  ERR_TEMPLATE_LIMIT: badFile,
  ERR_DRAFT_MISMATCH: badFile,
  ERR_ABORTED: interrupted,
  ERR_DISPOSED: other,
  ERR_RUNTIME: other,
  ERR_RUNTIME_NAN: other,
  ERR_PROGRAM: other,
  ERR_PLATFORM: other,
  ERR_GRAMMAR: usage,
  ERR_AUTH: other,
  ERR_HOST: other,
  ERR_NOT_FOUND: other,
  ERR_METHOD: other,
  ERR_TOO_LARGE: other,
  ERR_MEDIA_TYPE: other,
  ERR_BUSY: other,
  ERR_TIMEOUT: other,
  ERR_LOADING: other,
  ERR_UPSTREAM: network,
};

/** What somebody typed is wrong. */
export function usageError(message: string, param?: string): OutriderError {
  return new OutriderError("ERR_BAD_REQUEST", message, { param });
}

/** The same error, told where: a line of a file, say. */
export function locate(where: string, error: unknown): unknown {
  if (!(error instanceof OutriderError) || error.code === "ERR_ABORTED") return error;
  return new OutriderError(error.code, `${where}: ${error.message}`, { cause: error, param: error.param });
}

/** One line for people, and the exit code: 2 bad usage, 3 bad model or file, 130 interrupted, 1 other. */
export function describeFailure(error: unknown, command = "outrider"): { line: string; exitCode: number } {
  if (error instanceof CommanderError) {
    const text = error.message.replace(/^error: /, "").replaceAll("\n", " ");
    return { line: `error[ERR_BAD_REQUEST]: ${text}; see ${command} --help`, exitCode: usage };
  }
  if (error instanceof OutriderError) {
    const flag = error.param === undefined ? undefined : flags[error.param];
    const hint = flag !== undefined && !error.message.includes(flag) ? ` (${flag})` : "";
    return { line: `error[${error.code}]: ${error.message}${hint}`, exitCode: exitCodes[error.code] };
  }
  const text = error instanceof Error ? error.message : String(error);
  return { line: `error[ERR_RUNTIME]: ${text}`, exitCode: other };
}

/** Options whose ranges the library checks, under its own names. */
const flags: Readonly<Record<string, string>> = {
  temperature: "--temperature",
  topK: "--top-k",
  topP: "--top-p",
  minP: "--min-p",
  repetitionPenalty: "--repetition-penalty",
  presencePenalty: "--presence-penalty",
  frequencyPenalty: "--frequency-penalty",
  seed: "--seed",
  maxTokens: "--max-tokens",
  draftLength: "--draft-length",
  threads: "--threads",
  context: "--context",
  memoryLimit: "--memory-limit",
};

/**
 * Writes the error to stderr, with the stack under it for --debug; returns the exit code. `command`: whose help says how
 * it is used.
 */
export function reportFailure(error: unknown, debug: boolean, command?: string): number {
  const { line, exitCode } = describeFailure(error, command);
  process.stderr.write(`${paint(process.stderr, "red", line)}\n`);
  if (debug && error instanceof Error) {
    const causes: unknown[] = [];
    for (let cause: unknown = error; cause !== undefined && causes.length < 8; ) {
      causes.push(cause instanceof Error ? cause.stack : String(cause));
      cause = cause instanceof Error ? cause.cause : undefined;
    }
    process.stderr.write(`${causes.join("\ncaused by ")}\n`);
  }
  return exitCode;
}
