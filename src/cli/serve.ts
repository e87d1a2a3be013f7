import { readFileSync } from "node:fs";
import path from "node:path";
import { locateModel } from "../api/locate-model.js";
import { OutriderError } from "../errors.js";
import { embeddedModel } from "../index.js";
import type { ModelSpec } from "../server/models.js";
import { serve as startServer } from "../server/serve.js";
import { interrupted, usageError } from "./failure.js";
import { showDownload } from "./open-model.js";
import { limitsFrom, type ServeFlags } from "./serve-options.js";
import { statusLine } from "./terminal.js";

/** Serves until SIGTERM or SIGINT: then answers under way get their time; a second signal ends at once. */
export async function serve(flags: ServeFlags): Promise<number> {
  let stop: () => void = () => undefined;
  const told = new Promise<void>((resolve) => {
    stop = resolve;
  });
  let signals = 0;
  const onSignal = () => {
    if (++signals > 1) process.exit(interrupted);
    stop();
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, onSignal);
  const models = await located(modelSpecs(flags), flags.offline);
  const starting = startServer({
    models,
    host: flags.host,
    port: flags.port,
    apiKeys: [...(flags.apiKey ?? []), ...envKeys(process.env)],
    apiKeyHashes: flags.apiKeys === undefined ? [] : readHashes(flags.apiKeys),
    insecure: flags.insecure,
    allowHosts: flags.allowHost,
    allowOrigins: flags.allowOrigin,
    memoryBudget: flags.memoryBudget,
    limits: limitsFrom(flags as Readonly<Record<string, unknown>>),
    logLevel: flags.logLevel,
    logPrompts: flags.logPrompts,
  });
  const server = await Promise.race([starting, told]);
  if (!server) process.exit(0); // told to stop while the model was loading: nobody waits for an answer
  process.stdout.write(`Outrider listens on ${server.url}\n`);
  await told;
  await server.close();
  return 0;
}

export function modelSpecs(flags: ServeFlags): ModelSpec[] {
  const { draftModel, threads, context, precise, quantize, memoryLimit, learn } = flags;
  const given = flags.model ?? [`smollm2-135m-instruct=${embeddedModel}`];
  return given.map((text, i) => {
    const split = /^([A-Za-z0-9][\w.:/-]*)=(.+)$/s.exec(text);
    const file = split?.[2] ?? text;
    const name = split?.[1] ?? path.basename(file).replace(/\.gguf$/i, "");
    const loading = { threads, context, precise, quantize, memoryLimit, learn };
    return { name, source: { file, draftModel: i === 0 ? draftModel : undefined, ...loading } };
  });
}

/** Models of the hub are fetched before the server starts, so that no request waits for a download. */
async function located(specs: readonly ModelSpec[], offline: boolean | undefined): Promise<ModelSpec[]> {
  const status = statusLine(process.stderr);
  const locate = async (name: string) =>
    await locateModel(name, { offline, onDownload: showDownload(status, name) });
  const found: ModelSpec[] = [];
  try {
    for (const { name, source } of specs) {
      const draftModel = source.draftModel === undefined ? undefined : await locate(source.draftModel);
      found.push({ name, source: { ...source, file: await locate(source.file), draftModel } });
    }
    return found;
  } finally {
    status.clear();
  }
}

function envKeys({ OUTRIDER_API_KEY: key }: NodeJS.ProcessEnv): string[] {
  if (key === undefined) return [];
  if (key === "") throw usageError("the environment variable OUTRIDER_API_KEY is empty");
  return [key];
}

/** One hash a line; empty lines and those that begin with # are comments. */
function readHashes(file: string): string[] {
  try {
    const lines = readFileSync(file, "utf8")
      .split("\n")
      .map((line) => line.trim());
    const hashes = lines.filter((line) => line !== "" && !line.startsWith("#"));
    if (hashes.length > 0) return hashes;
  } catch (cause) {
    throw new OutriderError("ERR_PATH", `${file} cannot be read: ${(cause as NodeJS.ErrnoException).code}`, {
      cause,
    });
  }
  throw usageError(`${file} has no key in it`);
}
