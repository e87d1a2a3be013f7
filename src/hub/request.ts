/**
 * Requests to the hub, one hop after another: where a redirect may lead, who sees the token, how long to wait, and when
 * to try again is decided here. Over node:http, since it lets the address be checked that is really connected to.
 */
import { lookup } from "node:dns";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { OutriderError, quote } from "../errors.js";
import type { HubSettings } from "./settings.js";

export interface RequestOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  readonly patience?: Patience | undefined;
}

/** How long to wait for what; tests are less patient. */
export interface Patience {
  /** Without a byte. */
  readonly idleMs: number;
  /** Before the second attempt; doubled before each one after it. */
  readonly retryMs: number;
  readonly attempts: number;
  /** What a server may ask to wait for. */
  readonly mostRetryAfterMs: number;
}

export const defaultPatience: Patience = {
  idleMs: 30_000,
  retryMs: 500,
  attempts: 5,
  mostRetryAfterMs: 60_000,
};

const MOST_REDIRECTS = 5;

/** The answer, its body still to be read. Status codes from 400 on that do not pass by themselves become errors. */
export async function requestHub(
  settings: HubSettings,
  url: string,
  options: RequestOptions = {},
): Promise<IncomingMessage> {
  const patience = options.patience ?? defaultPatience;
  for (let attempt = 1; ; attempt++) {
    let failure: unknown;
    let wait = patience.retryMs * 2 ** (attempt - 1);
    try {
      const response = await follow(settings, url, options, patience);
      const status = response.statusCode ?? 0;
      if (status < 400) return response;
      response.resume();
      failure = statusError(status, url, settings);
      if (status !== 429 && status < 500) throw failure;
      const asked = retryAfterMs(response.headers["retry-after"]);
      if (asked > patience.mostRetryAfterMs)
        throw new OutriderError(
          "ERR_DOWNLOAD",
          `${(failure as Error).message}; the server asks to wait ${Math.ceil(asked / 1000)} s`,
        );
      wait = Math.max(wait, asked);
    } catch (error) {
      if (error instanceof OutriderError) throw error;
      failure = networkError(error, url);
    }
    if (attempt >= patience.attempts) throw failure;
    await pause(wait, options.signal);
  }
}

/** Throws ERR_ABORTED when the signal does. */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal ? { signal } : {}).catch((cause) => {
    throw aborted(cause);
  });
}

export const aborted = (cause: unknown) =>
  new OutriderError("ERR_ABORTED", "The download was aborted.", { cause });

/** What went wrong below HTTP; the download may go on later. */
export function networkError(cause: unknown, url: string): OutriderError {
  const code = (cause as NodeJS.ErrnoException).code;
  const advice =
    code === "ENOTFOUND" || code === "EAI_AGAIN"
      ? "the host was not found; is there a network? HF_ENDPOINT names another hub, --offline uses what is in the cache"
      : `${code ?? (cause instanceof Error ? cause.message : String(cause))}; try again, what has arrived is kept`;
  return new OutriderError("ERR_DOWNLOAD", `${withoutQuery(url)}: the connection failed: ${advice}`, {
    cause,
  });
}

function statusError(status: number, url: string, settings: HubSettings): OutriderError {
  const problems: Record<number, string> = {
    401: settings.token
      ? "the hub refuses the token or has no such model (401); check the name and HF_TOKEN"
      : "the hub has no such public model (401); check the name, or set HF_TOKEN for a private or gated one",
    403: "access is refused (403): a gated model? Accept its terms on its page on the hub, and set HF_TOKEN",
    404: "there is no such model, revision or file (404); check the name",
    429: "too many requests (429); wait a few minutes, or set HF_TOKEN for a higher limit",
  };
  return new OutriderError(
    "ERR_DOWNLOAD",
    `${withoutQuery(url)}: ${problems[status] ?? `the server answers ${status}; try again later`}`,
  );
}

function retryAfterMs(value: string | undefined): number {
  if (value === undefined) return 0;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) && ms > 0 ? ms : 0;
}

async function follow(
  settings: HubSettings,
  start: string,
  { headers = {}, signal }: RequestOptions,
  patience: Patience,
): Promise<IncomingMessage> {
  const home = new URL(settings.endpoint);
  let url = new URL(start);
  for (let hop = 0; ; hop++) {
    const own = url.origin === home.origin;
    const trusted = own || [url.host, url.hostname].some((host) => settings.trustedHosts.includes(host));
    checkTarget(url, home, trusted);
    const token: Record<string, string> =
      own && settings.token ? { authorization: `Bearer ${settings.token}` } : {};
    const response = await once(url, { ...headers, ...token }, trusted, patience, signal);
    const status = response.statusCode ?? 0;
    const location = response.headers.location;
    if (status < 300 || status >= 400 || location === undefined) return response;
    response.resume();
    if (hop >= MOST_REDIRECTS)
      throw new OutriderError(
        "ERR_DOWNLOAD",
        `${withoutQuery(start)}: more than ${MOST_REDIRECTS} redirects`,
      );
    if (!URL.canParse(location, url.href))
      throw new OutriderError(
        "ERR_PATH",
        `${withoutQuery(start)}: redirected to ${quote(location)}, not an address`,
      );
    url = new URL(location, url);
  }
}

/** Only the web; never from an encrypted connection to an open one; other private hosts are not for servers to name. */
function checkTarget(url: URL, home: URL, trusted: boolean): void {
  const refuse = (why: string) => {
    throw new OutriderError("ERR_PATH", `the hub redirects to ${quote(withoutQuery(url.href))}: ${why}`);
  };
  if (url.protocol !== "https:" && url.protocol !== "http:") refuse("only http and https are followed");
  if (url.protocol === "http:" && home.protocol === "https:") refuse("that connection is not encrypted");
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (!trusted && (isPrivate(host) || /(^|\.)localhost$/i.test(host))) refuse(privateAddress);
}

const privateAddress =
  "an address of a private network; if that host is yours, name it in OUTRIDER_HUB_HOSTS";

function once(
  url: URL,
  headers: Readonly<Record<string, string>>,
  trusted: boolean,
  patience: Patience,
  signal: AbortSignal | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(aborted(signal.reason));
    const request = (url.protocol === "https:" ? httpsRequest : httpRequest)(
      url,
      {
        headers: { "user-agent": "outrider", ...headers },
        ...(trusted ? {} : { lookup: publicLookup }),
        signal,
      },
      resolve,
    );
    request.setTimeout(patience.idleMs, () =>
      request.destroy(new Error(`nothing arrived for ${patience.idleMs / 1000} s`)),
    );
    request.on("error", (error) => reject(signal?.aborted ? aborted(error) : error));
    request.end();
  });
}

/** Refuses private addresses at the moment of connecting, so that a name cannot lead elsewhere than it was checked. */
const publicLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, "", 0);
    const wrong = addresses.find(({ address }) => isPrivate(address));
    if (wrong !== undefined)
      return callback(
        new OutriderError("ERR_PATH", `the hub redirects to ${quote(hostname)}: ${privateAddress}`),
        "",
        0,
      );
    if (options.all) return callback(null, addresses);
    callback(null, addresses[0]!.address, addresses[0]!.family);
  });
};

const privateAddresses = new BlockList();
for (const [net, prefix] of [
  ...[
    ["0.0.0.0", 8],
    ["10.0.0.0", 8],
    ["100.64.0.0", 10],
    ["127.0.0.0", 8],
    ["169.254.0.0", 16],
  ],
  ...[
    ["172.16.0.0", 12],
    ["192.0.0.0", 24],
    ["192.168.0.0", 16],
    ["198.18.0.0", 15],
    ["224.0.0.0", 3],
  ],
] as const)
  privateAddresses.addSubnet(net, prefix, "ipv4");
for (const [net, prefix] of [
  ["::", 127],
  ["fc00::", 7],
  ["fe80::", 10],
  ["ff00::", 8],
  ["64:ff9b:1::", 48],
] as const)
  privateAddresses.addSubnet(net, prefix, "ipv6");

function isPrivate(host: string): boolean {
  const family = isIP(host);
  if (family === 0) return false;
  return privateAddresses.check(host, family === 6 ? "ipv6" : "ipv4");
}

/** Addresses of storage carry signatures behind the question mark, which are as good as a token. */
export function withoutQuery(url: string): string {
  return url.split(/[?#]/)[0]!;
}
