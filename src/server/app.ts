import { randomBytes } from "node:crypto";
import type { HttpBindings } from "@hono/node-server";
import { type Context, Hono } from "hono";
import type { Logger } from "pino";
import type { z } from "zod";
import { strategies } from "../decoding/strategies.js";
import { OutriderError } from "../errors.js";
import { checkHost, checkKey, checkOrigin, type HostRules } from "./access.js";
import type { Answering, Caller } from "./answer.js";
import { chatCompletion, chatCompletionStream } from "./chat.js";
import { completion, completionStream } from "./completions.js";
import { embeddings } from "./embeddings.js";
import { describeError } from "./http-error.js";
import { readJson } from "./json-body.js";
import type { Limits } from "./limits.js";
import { openApi } from "./openapi.js";
import { response, responseStream } from "./responses.js";
import {
  chatRequest,
  completionRequest,
  detokenizeRequest,
  embeddingsRequest,
  responsesRequest,
  tokenizeRequest,
} from "./schemas.js";
import { streamEvents } from "./sse.js";
import type { StaticFile } from "./static-files.js";
import { validate } from "./validate.js";

export interface AppOptions extends Answering {
  readonly version: string;
  readonly limits: Limits;
  readonly host: HostRules;
  /** SHA-256 of each API key; none: no key is asked for. */
  readonly keys: readonly Buffer[];
  readonly log: Logger;
  readonly logPrompts: boolean;
  /** The playground, by path. */
  readonly files: ReadonlyMap<string, StaticFile>;
  /** Whether the server takes requests: its first model is loaded and it is not stopping. */
  readonly ready: () => boolean;
}

type Env = { Bindings: HttpBindings; Variables: { caller: Caller; model?: string } };

/** One route, and what the OpenAPI document says of it. */
export interface Route {
  readonly method: "get" | "post";
  readonly path: string;
  readonly summary: string;
  /** Of the body; what validates it also describes it. */
  readonly schema?: z.ZodType;
  readonly handle: (context: Context<Env>, body: never) => Response | Promise<Response>;
}

/** Without a key: whether the server lives must be seen by those who watch it. The playground's files tell nothing. */
const open = (path: string, files: AppOptions["files"]) => path === "/health" || files.has(path);

/** The whole HTTP API. */
export function createApp(options: AppOptions): Hono<Env> {
  const { limits, models, log, host, keys, metrics } = options;
  const app = new Hono<Env>();
  const routes = createRoutes(options);

  app.use(async (c, next) => {
    const requestId = randomBytes(12).toString("hex");
    const started = performance.now();
    c.set("caller", { requestId, key: "", signal: c.req.raw.signal });
    c.header("x-request-id", requestId);
    c.header("x-content-type-options", "nosniff");
    try {
      const preflight = admit(c);
      if (preflight) c.res = preflight;
      else await next();
    } catch (error) {
      c.res = fail(c, error);
    }
    const { status } = c.res;
    const route = routes.some(({ path }) => path === c.req.path) ? c.req.path : "other";
    metrics.http(route, status);
    const record = () =>
      log.info(
        {
          requestId,
          method: c.req.method,
          route,
          status,
          model: c.get("model"),
          ms: performance.now() - started,
        },
        "request",
      );
    // The status may be that of a stream that only begins; who left has closed it before.
    if (c.env.outgoing && !c.env.outgoing.closed) c.env.outgoing.once("close", record);
    else record();
  });

  for (const route of routes) {
    app[route.method](route.path, async (c) => {
      if (!route.schema) return await route.handle(c, undefined as never);
      const body = validate(route.schema, await readJson(c.req.raw, limits));
      const model = (body as { model?: string | null }).model ?? models.first;
      models.get(model); // ERR_NOT_FOUND
      c.set("model", model);
      if (options.logPrompts) log.info({ requestId: c.get("caller").requestId, body }, "prompt");
      return await route.handle(c, body as never);
    });
  }
  for (const path of new Set(routes.map((route) => route.path)))
    app.all(path, (c) => {
      const methods = routes.filter((route) => route.path === path).map(({ method }) => method.toUpperCase());
      c.header("allow", methods.join(", "));
      throw new OutriderError(
        "ERR_METHOD",
        `${path} takes ${methods.join(", ")}, not ${c.req.method.slice(0, 20)}`,
      );
    });
  for (const [path, { bytes, headers }] of options.files)
    app.get(path, (c) =>
      c.req.header("if-none-match") === headers.etag
        ? c.body(null, 304, headers)
        : c.body(bytes, 200, headers),
    );
  app.notFound((c) =>
    fail(c, new OutriderError("ERR_NOT_FOUND", "there is no such path; see /openapi.json")),
  );
  app.onError((error, c) => fail(c, error));

  /** Who may not be here is thrown; the answer to a browser's question beforehand is returned. */
  function admit(c: Context<Env>): Response | undefined {
    const { headers } = c.env.incoming;
    checkHost(headers.host, host);
    if (checkOrigin(headers.origin, headers.host, host).cross) {
      c.header("access-control-allow-origin", headers.origin!);
      c.header("access-control-expose-headers", "x-request-id, retry-after");
      c.header("vary", "Origin");
      if (c.req.method === "OPTIONS") {
        c.header("access-control-allow-methods", "GET, POST");
        c.header("access-control-allow-headers", "authorization, content-type");
        c.header("access-control-max-age", "600");
        return c.body(null, 204);
      }
    }
    if (keys.length > 0 && !open(c.req.path, options.files)) {
      const key = checkKey(headers.authorization, keys);
      c.set("caller", { ...c.get("caller"), key: String(key) });
    }
    return undefined;
  }

  function fail(c: Context<Env>, error: unknown): Response {
    const { status, body, retryAfter } = describeError(error);
    // That it is loading or stopping is an answer, not a failure: who watches it asks all the time.
    if (status >= 500 && body.error.code !== "ERR_LOADING")
      log.error({ requestId: c.get("caller")?.requestId, err: error }, "request failed");
    if (retryAfter !== undefined) c.header("retry-after", String(retryAfter));
    if (status === 401) c.header("www-authenticate", "Bearer");
    c.status(status as never);
    return c.json(body);
  }
  return app;
}

function createRoutes(options: AppOptions): Route[] {
  const { limits, models, metrics, log } = options;
  const streamed = (c: Context<Env>, events: Parameters<typeof streamEvents>[0], done?: string) =>
    streamEvents(events, {
      done,
      onError: (error) => log.warn({ requestId: c.get("caller").requestId, err: error }, "stream failed"),
    }).then((response) => {
      for (const [name, value] of response.headers) c.header(name, value);
      return response.body === null ? c.body(null) : c.body(response.body);
    });
  const route = <T extends z.ZodType>(
    method: Route["method"],
    path: string,
    summary: string,
    schema: T | undefined,
    handle: (c: Context<Env>, body: z.infer<T>) => Response | Promise<Response>,
  ): Route => ({ method, path, summary, schema, handle });
  const withEngine = async <T>(
    c: Context<Env>,
    use: (engine: Awaited<ReturnType<typeof models.lease>>["engine"], signal: AbortSignal) => Promise<T>,
  ): Promise<T> => {
    const lease = await models.lease(c.get("model")!);
    try {
      return await use(lease.engine, c.get("caller").signal);
    } finally {
      lease.release();
    }
  };

  const routes: Route[] = [
    route("post", "/v1/chat/completions", "Answer a conversation.", chatRequest(limits), async (c, body) => {
      const [caller, model] = [c.get("caller"), c.get("model")!];
      return body.stream
        ? await streamed(c, chatCompletionStream(options, caller, model, body, limits), "[DONE]")
        : c.json(await chatCompletion(options, caller, model, body, limits));
    }),
    route("post", "/v1/completions", "Continue a text.", completionRequest(limits), async (c, body) => {
      const [caller, model] = [c.get("caller"), c.get("model")!];
      return body.stream
        ? await streamed(c, completionStream(options, caller, model, body, limits), "[DONE]")
        : c.json(await completion(options, caller, model, body, limits));
    }),
    route(
      "post",
      "/v1/responses",
      "Answer, in the newer form of OpenAI's API; nothing is kept.",
      responsesRequest(limits),
      async (c, body) => {
        const [caller, model] = [c.get("caller"), c.get("model")!];
        return body.stream
          ? await streamed(c, responseStream(options, caller, model, body, limits))
          : c.json(await response(options, caller, model, body, limits));
      },
    ),
    route(
      "post",
      "/v1/embeddings",
      "Texts as vectors of length 1.",
      embeddingsRequest(limits),
      async (c, body) => c.json(await embeddings(options, c.get("caller"), c.get("model")!, body)),
    ),
    route("post", "/tokenize", "Text to token ids.", tokenizeRequest, async (c, body) => {
      const tokens = await withEngine(c, async (engine, signal) => {
        const ids = await engine.call(
          "tokenize",
          { text: body.content, special: body.parse_special ?? true, addBos: body.add_special ?? false },
          signal,
        );
        if (!body.with_pieces) return ids;
        const bytes = await engine.call("tokenBytes", { tokens: ids }, signal);
        return ids.map((id, i) => ({ id, piece: pieceOf(bytes[i]!) }));
      });
      return c.json({ tokens });
    }),
    route("post", "/detokenize", "Token ids to text.", detokenizeRequest, async (c, body) => {
      const content = await withEngine(c, (engine, signal) =>
        engine.call("detokenize", { tokens: body.tokens }, signal),
      );
      return c.json({ content });
    }),
    route("get", "/v1/models", "The models that requests may name.", undefined, (c) =>
      c.json({
        object: "list",
        data: models.names.map((id) => ({ id, object: "model", created: 0, owned_by: "outrider" })),
      }),
    ),
    route("get", "/health", "Whether the server lives.", undefined, (c) => c.json({ status: "ok" })),
    route("get", "/ready", "Whether the server takes requests.", undefined, (c) => {
      if (options.ready()) return c.json({ status: "ready" });
      throw new OutriderError("ERR_LOADING", "the model is not loaded yet, or the server is stopping");
    }),
    route("get", "/metrics", "For Prometheus.", undefined, async (c) => {
      c.header("content-type", metrics.contentType);
      return c.body(await metrics.text());
    }),
    route(
      "get",
      "/outrider/info",
      "Models, strategies, what passes cost, and the load.",
      undefined,
      async (c) => {
        const loaded = await Promise.all(
          models.list().map(async ({ name, info, bytes, restarts, scheduler, engine }) => ({
            id: name,
            loaded: info !== undefined,
            ...(info && {
              name: info.name,
              architecture: info.architecture,
              context: info.context,
              vocab: info.config.vocab,
              threads: info.threads,
              instruction_set: info.instructionSet,
              chat_template: info.hasTemplate,
              state: await engine!.call("state", {}, c.get("caller").signal).catch(() => undefined),
            }),
            memory_bytes: bytes,
            restarts,
            running: scheduler.running,
            waiting: scheduler.waiting,
          })),
        );
        return c.json({
          version: options.version,
          strategies: Object.entries(strategies).map(([id, { summary, needs }]) => ({ id, summary, needs })),
          models: loaded,
          load: metrics.load(),
          limits,
        });
      },
    ),
    route("get", "/openapi.json", "This API.", undefined, (c) => c.json(document())),
  ];
  let described: object | undefined;
  const document = () => {
    described ??= openApi(routes, options.version);
    return described;
  };
  return routes;
}

/** A token's text, or its bytes where they are only part of a character. */
function pieceOf(bytes: Uint8Array): string | number[] {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return [...bytes];
  }
}
