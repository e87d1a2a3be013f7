/** What a client may ask for, and how much of the server it may hold. Beyond a limit a request is refused. */
export interface Limits {
  /** Bytes of a request's body. */
  readonly body: number;
  readonly jsonDepth: number;
  readonly messages: number;
  /** Answers to one request. */
  readonly n: number;
  readonly topLogprobs: number;
  readonly logitBias: number;
  readonly tools: number;
  /** Bytes of a JSON schema. */
  readonly schema: number;
  readonly schemaDepth: number;
  /** Texts to embed in one request. */
  readonly inputs: number;
  /** Requests that run side by side, for each model. */
  readonly parallel: number;
  /** Requests that wait, for each model. */
  readonly queue: number;
  /** Milliseconds from a request's arrival to the end of its answer. */
  readonly deadline: number;
  /** Milliseconds for a request's headers to arrive. */
  readonly headerTimeout: number;
  /** Milliseconds for its body, from then on. */
  readonly bodyTimeout: number;
  /** Milliseconds that a connection may be idle. */
  readonly idleTimeout: number;
  readonly sockets: number;
  /** Milliseconds that answers under way get when the server is told to stop. */
  readonly drain: number;
}

/** What a timer takes. */
export const mostLimit = 2 ** 31 - 1;

/** With 0 of most of them no request could be answered, or a connection would have no end. */
export function leastLimit(limit: keyof Limits): number {
  return ["topLogprobs", "logitBias", "tools", "queue", "drain"].includes(limit) ? 0 : 1;
}

export const defaultLimits: Limits = {
  body: 4 << 20,
  jsonDepth: 64,
  messages: 4096,
  n: 8,
  topLogprobs: 20,
  logitBias: 1024,
  tools: 128,
  schema: 64 << 10,
  schemaDepth: 64,
  inputs: 256,
  parallel: 16,
  queue: 64,
  deadline: 600_000,
  headerTimeout: 10_000,
  bodyTimeout: 60_000, // of the allowed size over a slow line
  idleTimeout: 60_000,
  sockets: 512,
  drain: 10_000,
};
