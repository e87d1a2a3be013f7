import { randomBytes } from "node:crypto";
import type { Logger } from "pino";
import type { OutriderError } from "../errors.js";
import { describeError } from "./http-error.js";
import type { Metrics } from "./metrics.js";

/** The answer to what cannot become a request of the app: the same JSON, headers, log line and count as the app's. */
export interface Refusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** `status`: where the error's code alone does not say it. */
export type Refuse = (error: OutriderError, status?: number) => Refusal;

/** Each refusal is counted and logged as it is made. */
export function createRefuse(metrics: Pick<Metrics, "http">, log: Logger): Refuse {
  return (error, given) => {
    const described = describeError(error);
    const status = given ?? described.status;
    const requestId = randomBytes(12).toString("hex");
    const { code, message } = (error.cause ?? {}) as NodeJS.ErrnoException;
    metrics.http("other", status);
    log.info({ requestId, route: "other", status, cause: code ?? message }, "request");
    const body = JSON.stringify(described.body);
    return {
      status,
      headers: {
        "content-type": "application/json",
        "content-length": String(Buffer.byteLength(body)),
        "x-content-type-options": "nosniff",
        "x-request-id": requestId,
        ...(described.retryAfter === undefined ? undefined : { "retry-after": String(described.retryAfter) }),
      },
      body,
    };
  };
}
