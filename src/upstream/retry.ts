import { setTimeout as sleep } from "node:timers/promises";
import { OutriderError } from "../errors.js";

const firstDelayMs = 500;
const longestDelayMs = 60_000;

/**
 * Milliseconds after which a request that failed is worth sending again, undefined where it is not: the server was busy
 * (429) or not ready (503). Retry-After is kept to unless it asks for more than a minute; without one, twice as long
 * each time, less up to a half that chance decides, so that many do not come back at once. `attempt` counts from 0.
 */
export function retryDelay(error: unknown, attempt: number, chance: number): number | undefined {
  const { status, retryAfter } = (error instanceof OutriderError && error.details) || {};
  if (status !== 429 && status !== 503) return undefined;
  if (retryAfter === undefined)
    return Math.min(longestDelayMs, firstDelayMs * 2 ** attempt) * (1 - chance / 2);
  return retryAfter * 1000 <= longestDelayMs ? retryAfter * 1000 : undefined;
}

/** Tries again, `retries` times at most, what failed for a reason that passes. */
export async function withRetries<T>(
  work: () => Promise<T>,
  retries: number,
  signal?: AbortSignal,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const delay = attempt < retries ? retryDelay(error, attempt, Math.random()) : undefined;
      if (delay === undefined) throw error;
      await sleep(delay, undefined, { signal });
    }
  }
}
