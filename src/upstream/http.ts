// Requests to a server that speaks OpenAI's API, its streams of events, and its errors as OutriderError.
import { EventSourceParserStream } from "eventsource-parser/stream";
import { type ErrorCode, errorCodes, OutriderError, quote } from "../errors.js";

export interface ServerOptions {
  /** E.g. http://127.0.0.1:8080; with or without the /v1 at its end. */
  readonly baseURL: string;
  readonly apiKey?: string | undefined;
  readonly fetch?: typeof fetch;
}

export interface Sent {
  /** A GET without one. */
  readonly body?: object;
  readonly headers?: object;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Gives the function that sends to a path below /v1 and resolves with the response where its status is a good one.
 * Errors: what the server says; `ERR_UPSTREAM` where it cannot be reached. An abort rejects with the signal's reason.
 */
export function requester({ baseURL, apiKey, fetch: send = fetch }: ServerOptions) {
  const base = serverURL(baseURL);
  return async (path: string, { body, headers, signal }: Sent = {}): Promise<Response> => {
    let response: Response;
    try {
      response = await send(`${base}/v1/${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          ...(body && { "content-type": "application/json" }),
          ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
          ...headers,
        },
        ...(body && { body: JSON.stringify(body) }),
        ...(signal && { signal }),
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new OutriderError(
        "ERR_UPSTREAM",
        `${new URL(base).origin} cannot be reached: ${reason(error)}. Is the server running there?`,
        { cause: error },
      );
    }
    if (response.ok) return response;
    const answer: unknown = await response.json().catch(() => undefined);
    throw failure(path, response, answer);
  };
}

function serverURL(baseURL: string): string {
  const url = URL.canParse(baseURL) ? new URL(baseURL) : undefined;
  if (url && /^https?:$/.test(url.protocol) && !url.username && !url.password && !url.search && !url.hash)
    return url.href.replace(/\/+(v1\/*)?$/, "");
  throw new OutriderError(
    "ERR_BAD_REQUEST",
    "baseURL is not the address of a server, expected e.g. http://127.0.0.1:8080/v1; a key goes into apiKey",
    { param: "baseURL" },
  );
}

/** Characters of an event; the longest hold log-probabilities. */
const mostEventLength = 1 << 24;

/** The events of a streamed answer, parsed; `ERR_UPSTREAM` where they are no JSON, or end before [DONE]. */
export async function* events(
  path: string,
  response: Response,
  signal?: AbortSignal,
  // biome-ignore lint/suspicious/noExplicitAny: JSON from outside, each reader checks what it takes
): AsyncGenerator<any, void, undefined> {
  const stream = response.body
    ?.pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream({ maxBufferSize: mostEventLength }));
  try {
    for await (const { data } of stream ?? []) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event?.error) throw failure(path, undefined, event);
      yield event;
    }
  } catch (error) {
    if (signal?.aborted || error instanceof OutriderError) throw error;
    throw new OutriderError("ERR_UPSTREAM", `${path}: the answer broke off: ${reason(error)}`, {
      cause: error,
    });
  }
  throw new OutriderError("ERR_UPSTREAM", `${path}: the answer ended before its [DONE]`);
}

/** fetch says only that it failed; its cause says why. */
function reason(error: unknown): string {
  const cause = (error as Error)?.cause ?? error;
  return quote(
    cause instanceof Error ? ((cause as NodeJS.ErrnoException).code ?? cause.message) : String(cause),
  );
}

const codes: Readonly<Record<number, ErrorCode>> = {
  400: "ERR_BAD_REQUEST",
  401: "ERR_AUTH",
  403: "ERR_AUTH",
  404: "ERR_NOT_FOUND",
  405: "ERR_METHOD",
  408: "ERR_TIMEOUT",
  413: "ERR_TOO_LARGE",
  415: "ERR_MEDIA_TYPE",
  422: "ERR_BAD_REQUEST",
  429: "ERR_BUSY",
  503: "ERR_LOADING",
  504: "ERR_TIMEOUT",
};

/** How OpenAI's and llama.cpp's servers call a prompt that is too long. */
const tooLong = ["context_length_exceeded", "exceed_context_size_error"];

/** `{ error: { message, type, code, param } }`; some engines leave out the `error` around it. */
function failure(path: string, response: Response | undefined, answer: unknown): OutriderError {
  const given = fieldsOf(fieldsOf(answer).error ?? answer);
  const own = errorCodes.find((code) => code === given.code);
  const code =
    own ??
    (tooLong.includes(String(given.code)) || tooLong.includes(String(given.type))
      ? "ERR_CONTEXT"
      : undefined) ??
    codes[response?.status ?? Number(given.code)] ??
    "ERR_UPSTREAM";
  const text = typeof given.message === "string" ? given.message : response?.statusText;
  const printable = text?.slice(0, 1000).replace(/\p{Cc}+/gu, " ");
  const retryAfter = secondsUntil(response?.headers.get("retry-after"), Date.now());
  return new OutriderError(
    code,
    `${path}: the server answered ${response?.status ?? "with an error"}: ${printable || "nothing more"}`,
    {
      ...(typeof given.param === "string" && { param: given.param.slice(0, 80) }),
      details: {
        ...(response && { status: response.status }),
        ...(retryAfter !== undefined && { retryAfter }),
      },
    },
  );
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/** A Retry-After header, seconds or a date, in seconds from now (milliseconds since 1970). */
export function secondsUntil(retryAfter: string | null | undefined, now: number): number | undefined {
  if (!retryAfter) return undefined;
  if (/^\d+(\.\d+)?$/.test(retryAfter)) return Number(retryAfter);
  const date = Date.parse(retryAfter);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - now) / 1000);
}
