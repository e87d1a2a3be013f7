import { readFileSync } from "node:fs";
import { createServer, type Server as HttpServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { getRequestListener, RequestError } from "@hono/node-server";
import { type Logger, pino } from "pino";
import { rejectUnknownKeys, wholeNumber } from "../api/options.js";
import { OutriderError, quote } from "../errors.js";
import { LengthPredictor } from "../scheduling/length-predictor.js";
import { createScheduler } from "../scheduling/scheduler.js";
import { isLoopback, sha256 } from "./access.js";
import { createApp } from "./app.js";
import { watchConnections } from "./connections.js";
import { defaultLimits, type Limits, leastLimit, mostLimit } from "./limits.js";
import { createMetrics } from "./metrics.js";
import { type ModelSpec, Models } from "./models.js";
import { createRefuse, type Refuse } from "./refusal.js";
import { readStaticFiles } from "./static-files.js";

export interface ServeOptions {
  /** The first is loaded at once and meant by requests that name none; the others when they are first asked for. */
  readonly models: readonly ModelSpec[];
  /** Default 127.0.0.1. Another address than loopback needs API keys, or `insecure`. */
  readonly host?: string;
  /** Default 8080; 0: any that is free. */
  readonly port?: number;
  /** Keys in clear. */
  readonly apiKeys?: readonly string[];
  /** SHA-256 of keys, 64 hexadecimal digits each. */
  readonly apiKeyHashes?: readonly string[];
  readonly insecure?: boolean;
  /** Names by which a proxy calls this server. */
  readonly allowHosts?: readonly string[];
  /** Pages that may use this server, `https://app.example`. */
  readonly allowOrigins?: readonly string[];
  /** Bytes for all loaded models together. */
  readonly memoryBudget?: number | undefined;
  readonly limits?: Partial<Limits>;
  readonly logLevel?: string;
  readonly logPrompts?: boolean;
  /** Files for browsers, served at `/`; default: the playground. */
  readonly webFolder?: string;
}

/** A server that listens. */
export interface Server {
  readonly url: string;
  readonly port: number;
  /** Takes nothing new, gives answers under way their time, then ends. A second call waits for the first. */
  close(): Promise<void>;
}

const packageVersion = (): string =>
  JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;

const playground = fileURLToPath(new URL("../../web/dist", import.meta.url));

/** Listens, then loads the first model; rejects where the address cannot be had or that model cannot be loaded. */
export async function serve(options: ServeOptions): Promise<Server> {
  const limits: Limits = { ...defaultLimits, ...options.limits };
  rejectUnknownKeys("limits", limits, Object.keys(defaultLimits));
  for (const limit of Object.keys(defaultLimits) as (keyof Limits)[])
    wholeNumber(`limits.${limit}`, limits[limit], leastLimit(limit), mostLimit);
  const bound = options.host ?? "127.0.0.1";
  const keys = resolveKeys(options);
  if (!isLoopback(bound) && keys.length === 0 && !options.insecure)
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      `${quote(bound)} can be reached by others: give an API key (--api-key, --api-keys, OUTRIDER_API_KEY), or say --insecure`,
      { param: "host" },
    );
  const log = createLog(options.logLevel ?? "info");
  let stopping = false;
  let loaded = false;
  const models = new Models(options.models, {
    memoryBudget: options.memoryBudget,
    scheduler: () => createScheduler({ ...limits, predictor: new LengthPredictor() }),
    events: (model) => ({
      onOutput: (line) => log.warn({ model, line }, "engine says"),
      onExit: (exit) => log.error({ model, ...exit }, "engine ended"),
      onReady: ({ pid, ms }) => log.info({ model, pid, ms }, "engine ready"),
    }),
  });
  const metrics = createMetrics(() => models);
  const app = createApp({
    models,
    metrics,
    limits,
    log,
    keys,
    deadline: limits.deadline,
    version: packageVersion(),
    logPrompts: options.logPrompts ?? false,
    files: readStaticFiles(options.webFolder ?? playground),
    host: {
      bound,
      keyed: keys.length > 0,
      allowHosts: (options.allowHosts ?? []).map((name) => name.toLowerCase()),
      allowOrigins: options.allowOrigins ?? [],
    },
    ready: () => loaded && !stopping,
  });
  const refuse = createRefuse(metrics, log);
  const http = createServer(
    {
      requireHostHeader: false, // is asked for below, where the answer is ours
      headersTimeout: limits.headerTimeout,
      requestTimeout: limits.headerTimeout + limits.bodyTimeout,
      keepAliveTimeout: limits.idleTimeout,
      connectionsCheckingInterval: Math.min(1000, limits.headerTimeout),
    },
    getRequestListener(app.fetch, {
      overrideGlobalObjects: false,
      errorHandler: (error) => answerWithout(error, refuse, log),
    }),
  );
  const answering = new Set<ServerResponse>();
  http.on("request", (_, response) => {
    answering.add(response);
    response.once("close", () => answering.delete(response));
  });
  watchConnections(http, limits, refuse);
  await listen(http, options.port ?? 8080, bound);
  const { port } = http.address() as AddressInfo;
  const url = `http://${bound.includes(":") ? `[${bound}]` : bound}:${port}`;

  let closing: Promise<void> | undefined;
  const close = async () => {
    stopping = true;
    if (loaded) log.info({ answers: answering.size }, "stopping");
    const ended = new Promise<void>((resolve) => http.close(() => resolve()));
    http.closeIdleConnections();
    // A connection whose answer is over is idle, and would be kept for the client's next request. Node finds it idle a
    // turn after the response has closed.
    for (const response of answering)
      response.once("close", () => setImmediate(() => http.closeIdleConnections()));
    const timer = setTimeout(() => http.closeAllConnections(), limits.drain);
    await ended;
    clearTimeout(timer);
    await models.close();
    if (loaded) log.info("stopped");
  };
  const server: Server = {
    url,
    port,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
  try {
    (await models.lease(models.first)).release();
    loaded = true;
  } catch (error) {
    if (!stopping) {
      await server.close();
      throw error;
    }
  }
  return server;
}

function resolveKeys({ apiKeys = [], apiKeyHashes = [] }: ServeOptions): Buffer[] {
  if (apiKeys.some((key) => key === ""))
    throw new OutriderError("ERR_BAD_REQUEST", "an API key is empty", { param: "apiKeys" });
  const wrong = apiKeyHashes.findIndex((hash) => !/^[0-9a-f]{64}$/i.test(hash));
  if (wrong >= 0)
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      `the hash of API key ${wrong + 1} is not 64 hexadecimal digits (printf %s KEY | sha256sum)`,
      { param: "apiKeyHashes" },
    );
  return [...apiKeys.map(sha256), ...apiKeyHashes.map((hash) => Buffer.from(hash, "hex"))];
}

/** To stderr, and never a header: a key must not get there. */
function createLog(level: string): Logger {
  return pino({ level, base: null }, pino.destination({ fd: 2, sync: true }));
}

/** For a request that did not reach the app, or that the app could not answer. */
function answerWithout(cause: unknown, refuse: Refuse, log: Logger): Response {
  const bad = cause instanceof RequestError;
  if (!bad) log.error({ err: cause }, "request failed");
  const { status, headers, body } = refuse(
    bad
      ? new OutriderError("ERR_BAD_REQUEST", "the request's target and its Host give no valid URL", { cause })
      : new OutriderError("ERR_RUNTIME", "something went wrong in the server", { cause }),
  );
  return new Response(body, { status, headers });
}

function listen(http: HttpServer, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    http.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        new OutriderError("ERR_RUNTIME", `cannot listen on ${host}:${port}: ${error.code ?? error.message}`, {
          cause: error,
        }),
      ),
    );
    http.listen(port, host, resolve);
  });
}
