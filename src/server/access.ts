import { createHash, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { OutriderError, quote } from "../errors.js";

export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);

export const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();

/** The number of the key that a request carries; every key is compared, in the same time. Throws ERR_AUTH. */
export function checkKey(authorization: string | undefined, keys: readonly Buffer[]): number {
  const token = /^Bearer ([^\s,]+)$/i.exec(authorization ?? "")?.[1];
  const given = sha256(token ?? "");
  let found = -1;
  for (const [i, key] of keys.entries()) if (timingSafeEqual(given, key)) found = i;
  if (token === undefined || found < 0)
    throw new OutriderError(
      "ERR_AUTH",
      token === undefined
        ? "an API key is needed: Authorization: Bearer KEY"
        : "the API key is not one of this server's",
    );
  return found;
}

export interface HostRules {
  /** The address that the server is bound to. */
  readonly bound: string;
  readonly keyed: boolean;
  readonly allowHosts: readonly string[];
  readonly allowOrigins: readonly string[];
}

/**
 * Against DNS rebinding: a page of evil.example whose name points here must not reach the server. On loopback only its
 * own names are taken; elsewhere addresses and this machine's name, and any name where a key is needed anyway. Throws ERR_HOST.
 */
export function checkHost(header: string | undefined, rules: HostRules): void {
  const name = hostName(header);
  const allowed =
    name !== undefined &&
    (isLoopback(name) ||
      rules.allowHosts.includes(name) ||
      (!isLoopback(rules.bound) &&
        (rules.keyed || isIP(name.replace(/^\[|\]$/g, "")) !== 0 || name === hostname().toLowerCase())));
  if (!allowed)
    throw new OutriderError(
      "ERR_HOST",
      `the Host ${header === undefined ? "is missing" : quote(header)} is not this server's (--allow-host)`,
    );
}

function hostName(header: string | undefined): string | undefined {
  return /^(\[[0-9a-f:.]+\]|[^:[\]/@\s]+)(:\d{1,5})?$/i.exec(header ?? "")?.[1]?.toLowerCase();
}

/** Whether a browser's page from elsewhere may read the answer. Throws ERR_HOST for origins that are not allowed. */
export function checkOrigin(
  origin: string | undefined,
  host: string | undefined,
  rules: HostRules,
): { cross: boolean } {
  if (origin === undefined) return { cross: false };
  if (rules.allowOrigins.includes(origin)) return { cross: true };
  if (origin.replace(/^https?:\/\//, "").toLowerCase() === host?.toLowerCase()) return { cross: false };
  throw new OutriderError("ERR_HOST", `the Origin ${quote(origin)} is not allowed (--allow-origin)`);
}
