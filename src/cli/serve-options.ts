import { type Command, InvalidArgumentError, Option } from "commander";
import { defaultLimits, type Limits, leastLimit, mostLimit } from "../server/limits.js";
import { loadingOptions, type ModelFlags, parseSize, parseWhole } from "./options.js";

export interface ServeFlags extends Omit<ModelFlags, "model" | "json" | "quiet"> {
  readonly model?: readonly string[];
  readonly memoryBudget?: number;
  readonly host?: string;
  readonly port?: number;
  readonly apiKey?: readonly string[];
  readonly apiKeys?: string;
  readonly insecure?: boolean;
  readonly allowHost?: readonly string[];
  readonly allowOrigin?: readonly string[];
  readonly logLevel?: string;
  readonly logPrompts?: boolean;
}

const collect = (text: string, before: readonly string[] = []) => [...before, text];

/** What each limit's flag says. */
const limitFlags: Record<keyof Limits, string> = {
  body: "bytes of a request's body",
  jsonDepth: "nesting of a request's JSON",
  messages: "messages of a conversation",
  n: "answers to one request",
  topLogprobs: "most likely tokens given beside each",
  logitBias: "entries of logit_bias",
  tools: "tools of a request",
  schema: "bytes of a JSON schema",
  schemaDepth: "nesting of a JSON schema",
  inputs: "texts to embed in one request",
  parallel: "requests that run side by side, for each model",
  queue: "requests that wait, for each model; more get 429",
  deadline: "milliseconds for a request",
  headerTimeout: "milliseconds for a request's headers",
  bodyTimeout: "milliseconds for its body",
  idleTimeout: "milliseconds that a connection may be idle",
  sockets: "connections",
  drain: "milliseconds for answers under way after SIGTERM",
};

export function serveOptionsOf(command: Command): Command {
  command
    .option(
      "--model <[name=]path>",
      "a model to serve, a path or hf:OWNER/REPO; may be given several times, the first is loaded at once (default: the embedded one)",
      collect,
    )
    .option("--draft-model <path>", "a smaller model of the first one's vocabulary that writes ahead");
  loadingOptions(command)
    .option(
      "--memory-budget <size>",
      "for all loaded models, 8GB or 512MB; the least used is unloaded",
      parseSize,
    )
    .option("--host <address>", "where to listen (default: 127.0.0.1)")
    .option("--port <n>", "0: any that is free (default: 8080)", parsePort)
    .option("--api-key <key>", "asked of every request; also OUTRIDER_API_KEY", collect)
    .option("--api-keys <file>", "SHA-256 hashes of keys, one a line")
    .option("--insecure", "listen on any address without a key")
    .option("--allow-host <name>", "a name by which a proxy calls this server", collect)
    .option("--allow-origin <origin>", "a page that may use this server: https://app.example", collect)
    .addOption(
      new Option("--log-level <level>", "(default: info)").choices([
        "trace",
        "debug",
        "info",
        "warn",
        "error",
        "fatal",
        "silent",
      ]),
    )
    .option("--log-prompts", "log what is asked; not done otherwise");
  for (const [key, text] of Object.entries(limitFlags) as [keyof Limits, string][]) {
    const flag = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    command.option(`--max-${flag} <n>`, `${text} (default: ${defaultLimits[key]})`, (text) =>
      parseLimit(text, key),
    );
  }
  return command.option("--debug", "stack traces under errors");
}

/** The limits among the flags: `--max-header-timeout` is `maxHeaderTimeout`. */
export function limitsFrom(flags: Readonly<Record<string, unknown>>): Partial<Limits> {
  const limits: Partial<Record<keyof Limits, number>> = {};
  for (const key of Object.keys(limitFlags) as (keyof Limits)[]) {
    const value = flags[`max${key[0]!.toUpperCase()}${key.slice(1)}`];
    if (typeof value === "number") limits[key] = value;
  }
  return limits;
}

function parseLimit(text: string, limit: keyof Limits): number {
  const value = parseWhole(text);
  if (value >= leastLimit(limit) && value <= mostLimit) return value;
  throw new InvalidArgumentError(`Expected a whole number from ${leastLimit(limit)} to ${mostLimit}.`);
}

function parsePort(text: string): number {
  const value = parseWhole(text);
  if (value >= 0 && value < 65_536) return value;
  throw new InvalidArgumentError("Expected a port from 0 to 65535.");
}
