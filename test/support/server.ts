import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";

const main = path.resolve(import.meta.dirname, "../../dist/cli/main.js");

/** `outrider serve` as a process, on a port of its own. */
export interface ServerProcess extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly child: ChildProcess;
  /** What it wrote to stderr so far: its log, a JSON object a line. */
  readonly log: () => string;
  readonly exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  post(route: string, body: unknown, init?: RequestInit): Promise<Response>;
  get(route: string, init?: RequestInit): Promise<Response>;
}

/** Starts the built server; resolves when it says where it listens, rejects with its stderr when it ends before. */
export function startServer(
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<ServerProcess> {
  const child = spawn(process.execPath, [main, "serve", "--port", "0", ...args], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  let out = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  const exit = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.once("close", (code, signal) => resolve({ code, signal })),
  );
  return new Promise((resolve, reject) => {
    void exit.then(({ code }) => reject(new Error(`the server ended with ${code}: ${log.slice(-2000)}`)));
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text;
      const url = /listens on (\S+)\n/.exec(out)?.[1];
      if (url === undefined) return;
      resolve({
        url,
        port: Number(new URL(url).port),
        child,
        log: () => log,
        exit,
        get: (route, init) => fetch(url + route, init),
        post: (route, body, init) =>
          fetch(url + route, {
            method: "POST",
            body: JSON.stringify(body),
            ...init,
            headers: { "content-type": "application/json", ...(init?.headers as Record<string, string>) },
          }),
        async [Symbol.asyncDispose]() {
          child.kill("SIGTERM");
          const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
          await exit;
          clearTimeout(timer);
        },
      });
    });
  });
}

/** The `data:` lines of a stream of events, parsed, without the closing [DONE]. */
export function eventsOf(text: string): Record<string, unknown>[] {
  return text
    .split("\n")
    .filter((line) => line.startsWith("data: ") && line !== "data: [DONE]")
    .map((line) => JSON.parse(line.slice(6)));
}
