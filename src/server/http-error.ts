import { type ErrorCode, OutriderError } from "../errors.js";

/** What an error looks like over HTTP. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly code: string;
    readonly param: string | null;
    readonly [detail: string]: string | number | null;
  };
}

type Status = 400 | 401 | 403 | 404 | 405 | 413 | 415 | 422 | 429 | 499 | 500 | 502 | 503 | 504;

const statuses: Partial<Record<ErrorCode, Status>> = {
  ERR_BAD_REQUEST: 400,
  ERR_CONTEXT: 400,
  ERR_GRAMMAR: 400,
  ERR_TEMPLATE: 400,
  ERR_TEMPLATE_LIMIT: 400,
  ERR_AUTH: 401,
  ERR_HOST: 403,
  ERR_NOT_FOUND: 404,
  ERR_METHOD: 405,
  ERR_TOO_LARGE: 413,
  ERR_MEDIA_TYPE: 415,
  ERR_MODEL_FORMAT: 422,
  ERR_MODEL_TRUNCATED: 422,
  ERR_MODEL_LIMIT: 422,
  ERR_MODEL_UNSUPPORTED: 422,
  ERR_PATH: 422,
  ERR_TOKENIZER: 422,
  ERR_DRAFT_MISMATCH: 422,
  ERR_BUSY: 429,
  ERR_DOWNLOAD: 502,
  ERR_ABORTED: 499,
  ERR_DISPOSED: 503,
  ERR_LOADING: 503,
  ERR_TIMEOUT: 504,
};

const types: Record<Status, string> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  405: "invalid_request_error",
  413: "invalid_request_error",
  415: "invalid_request_error",
  422: "invalid_request_error",
  429: "rate_limit_error",
  499: "aborted_error",
  500: "server_error",
  502: "server_error",
  503: "unavailable_error",
  504: "timeout_error",
};

/** The library's names of options, as the HTTP API writes them. */
const apiNames: Readonly<Record<string, string>> = {
  topK: "top_k",
  topP: "top_p",
  minP: "min_p",
  repetitionPenalty: "repetition_penalty",
  presencePenalty: "presence_penalty",
  frequencyPenalty: "frequency_penalty",
  logitBias: "logit_bias",
  maxTokens: "max_tokens",
  draftLength: "outrider.draft_length",
  strategy: "outrider.strategy",
  ignoreEnd: "ignore_eos",
};

/** The field at fault where the library knows none. */
const fields: Partial<Record<ErrorCode, string>> = {
  ERR_TEMPLATE: "messages",
  ERR_TEMPLATE_LIMIT: "messages",
};

/** The answer to a request that failed. What was not thrown on purpose tells nothing of the server's insides. */
export function describeError(error: unknown): { status: Status; body: ErrorBody; retryAfter?: number } {
  if (!(error instanceof OutriderError))
    return describeError(
      new OutriderError(
        "ERR_RUNTIME",
        "something went wrong in the server; its log says more under this request's id",
      ),
    );
  const status = statuses[error.code] ?? 500;
  const inner = error.param?.replace(/[[.].*$/s, "");
  const name = inner === undefined ? undefined : apiNames[inner];
  const param = name === undefined ? error.param : name + error.param!.slice(inner!.length);
  const message = name === undefined ? error.message : error.message.replaceAll(inner!, name);
  return {
    status,
    body: {
      error: {
        message,
        type: error.code === "ERR_CONTEXT" ? "exceed_context_size_error" : types[status],
        code: error.code,
        param: param ?? fields[error.code] ?? null,
        ...error.details,
      },
    },
    ...(status === 429 || status === 503 ? { retryAfter: error.details?.retryAfter ?? 1 } : undefined),
  };
}
