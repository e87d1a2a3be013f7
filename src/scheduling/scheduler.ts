import { OutriderError } from "../errors.js";
import type { LengthPredictor } from "./length-predictor.js";

/** What is known of a piece of work before it begins. */
export interface Request {
  /** Whose it is: an API key's name, or one name for all. */
  readonly key: string;
  /** Tokens, or an estimate. */
  readonly promptLength: number;
  /** Tokens of the answer at most. */
  readonly maxTokens: number;
  /** From now on; then ERR_TIMEOUT. */
  readonly deadlineMs: number;
  /** Before all others of a lower one; default 0. */
  readonly priority?: number | undefined;
  /** What is asked, for the careful predictor of the answer's length; default: it has nothing to go by. */
  readonly text?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Decides which work runs when. */
export interface Scheduler {
  /**
   * Runs the work when its turn has come. Its signal aborts with the request's, and at the deadline; `emitted` hears of
   * every token of the answer, so that later lengths are predicted better. Rejects with ERR_BUSY where too many wait
   * (`details.retryAfter`: seconds), ERR_TIMEOUT, ERR_ABORTED, or as the work does.
   */
  run<T>(
    request: Request,
    work: (signal: AbortSignal, emitted: (tokens: number) => void) => Promise<T>,
  ): Promise<T>;
  readonly running: number;
  readonly waiting: number;
  readonly counts: SchedulerCounts;
}

/** What happened so far. */
export interface SchedulerCounts {
  /** Requests that began, and how long all of them waited. */
  readonly started: number;
  readonly waitedMs: number;
  /** Requests refused since the queue was full, and those whose deadline or signal came while they waited. */
  readonly refused: number;
  readonly gaveUp: number;
  /** Requests whose length the careful predictor said, and the time that took. */
  readonly predictions: number;
  readonly predictionMs: number;
}

export interface SchedulerOptions {
  /** Most requests that run side by side. */
  readonly parallel: number;
  /** Most requests that wait. */
  readonly queue: number;
  /** Default: none, first come first served. */
  readonly predictor?: LengthPredictor | undefined;
  /** Milliseconds from any origin. Default: `performance.now`. */
  readonly now?: () => number;
}

/** A prompt's token costs this part of an answer's: many go through one pass. */
const PROMPT_TOKEN = 1 / 8;
/**
 * Who waits moves forward by this part of the time: a request is never overtaken by one that comes more than its own
 * predicted time, divided by this, later.
 */
const AGEING = 1 / 4;
/** Tokens' worth of work that a key may be ahead of the others that wait; beyond it, theirs come first. */
const AHEAD = 1024;
/** Milliseconds a token's worth of work, until it was measured. */
const USUAL_MS = 10;
const MS_KEPT = 0.9;

interface Waiting {
  readonly request: Request;
  readonly arrived: number;
  /** In tokens of an answer, the prompt included. */
  work: number;
  start(): void;
}

/**
 * Shortest predicted work first: the mean latency's best order where lengths are known, and a good one where they are
 * guessed. Guesses come from a predictor that costs nothing; a careful one is asked only about those that may be long,
 * and only when that can save more time than it takes (SkipPredict, Shahout and Mitzenmacher 2024). Waiting counts, so
 * nobody starves, and among keys whoever was served least goes first once another is far ahead.
 */
export function createScheduler(options: SchedulerOptions): Scheduler {
  const { parallel, queue, predictor, now = () => performance.now() } = options;
  const waiting: Waiting[] = [];
  const running = new Map<object, { readonly work: number }>();
  /** By key, the work that began, over the least of those that want something. */
  const served = new Map<string, number>();
  let msPerToken = USUAL_MS;
  const counts = { started: 0, waitedMs: 0, refused: 0, gaveUp: 0, predictions: 0, predictionMs: 0 };

  const workOf = ({ promptLength, maxTokens }: Request, tokens: number) =>
    promptLength * PROMPT_TOKEN + Math.min(tokens, maxTokens);

  /** Who goes first; the order of any two that wait stays the same as time goes by. */
  const before = (a: Waiting, b: Waiting) => {
    const priority = (b.request.priority ?? 0) - (a.request.priority ?? 0);
    const rank = ({ arrived, work }: Waiting) =>
      predictor === undefined ? arrived : arrived * AGEING + work * msPerToken;
    return priority || rank(a) - rank(b) || a.arrived - b.arrived;
  };

  const next = (): Waiting => {
    const least = Math.min(...waiting.map(({ request }) => served.get(request.key) ?? 0));
    const fair = waiting.filter(({ request }) => (served.get(request.key) ?? 0) <= least + AHEAD);
    return fair.reduce((first, one) => (before(one, first) < 0 ? one : first));
  };

  const begin = (key: string, work: number, token: object) => {
    running.set(token, { work });
    // A key that comes back does not find the service that it never asked for waiting for it.
    const active = waiting.map(({ request }) => served.get(request.key) ?? 0);
    const least = active.length > 0 ? Math.min(...active) : 0;
    served.set(key, Math.max(served.get(key) ?? 0, least) + work);
    if (waiting.length === 0 && running.size === 1) served.clear();
  };

  const retryAfter = () => {
    const ahead = waiting.reduce((sum, { work }) => sum + work, 0);
    const now = [...running.values()].reduce((sum, { work }) => sum + work / 2, 0);
    return Math.max(1, Math.ceil(((ahead / 2 + now) * msPerToken) / parallel / 1000));
  };

  /** The careful prediction is worth it where others wait whom a wrong guess would hold up for longer than it takes. */
  const predictCarefully = (entry: Waiting) => {
    if (predictor === undefined) return;
    const { request } = entry;
    const others = waiting.length;
    const gain = others * predictor.spread(request) * msPerToken;
    if (request.text === undefined || predictor.isShort(request) || gain <= predictor.cost) return;
    const began = performance.now();
    entry.work = workOf(request, predictor.careful(request));
    counts.predictions++;
    counts.predictionMs += performance.now() - began;
  };

  const turn = (request: Request, signal: AbortSignal, token: object): Promise<void> => {
    const work = workOf(request, predictor?.quick(request) ?? request.maxTokens);
    if (running.size < parallel && waiting.length === 0) {
      begin(request.key, work, token);
      counts.started++;
      return Promise.resolve();
    }
    if (waiting.length >= queue) {
      counts.refused++;
      throw new OutriderError(
        "ERR_BUSY",
        `${running.size} requests run and ${waiting.length} wait, more are not taken: try again in ${retryAfter()} s`,
        { details: { retryAfter: retryAfter() } },
      );
    }
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        waiting.splice(waiting.indexOf(entry), 1);
        counts.gaveUp++;
        reject(signal.reason);
      };
      const entry: Waiting = {
        request,
        arrived: now(),
        work,
        start() {
          signal.removeEventListener("abort", giveUp);
          waiting.splice(waiting.indexOf(entry), 1);
          begin(request.key, entry.work, token);
          counts.started++;
          counts.waitedMs += now() - entry.arrived;
          resolve();
        },
      };
      signal.addEventListener("abort", giveUp, { once: true });
      predictCarefully(entry);
      waiting.push(entry);
    });
  };

  return {
    get running() {
      return running.size;
    },
    get waiting() {
      return waiting.length;
    },
    counts,
    async run(request, work) {
      const { signal, stop } = withDeadline(request.signal, request.deadlineMs);
      const token = {};
      try {
        signal.throwIfAborted();
        await turn(request, signal, token);
        const began = now();
        let tokens = 0;
        try {
          const result = await work(signal, (more) => {
            tokens += more;
          });
          if (tokens > 0) {
            predictor?.observe(request, tokens);
            msPerToken = MS_KEPT * msPerToken + ((1 - MS_KEPT) * (now() - began)) / workOf(request, tokens);
          }
          return result;
        } finally {
          running.delete(token);
          while (running.size < parallel && waiting.length > 0) next().start();
        }
      } finally {
        stop();
      }
    },
  };
}

/** Aborts as `outer` does, and with ERR_TIMEOUT when the time is over. */
function withDeadline(outer: AbortSignal | undefined, ms: number): { signal: AbortSignal; stop(): void } {
  const controller = new AbortController();
  const onAbort = () =>
    controller.abort(
      outer?.reason instanceof OutriderError
        ? outer.reason
        : new OutriderError("ERR_ABORTED", "the request was aborted", { cause: outer?.reason }),
    );
  const timer = setTimeout(
    () => controller.abort(new OutriderError("ERR_TIMEOUT", `the request took longer than ${ms} ms`)),
    ms,
  );
  if (outer?.aborted) onAbort();
  else outer?.addEventListener("abort", onAbort, { once: true });
  return {
    signal: controller.signal,
    stop() {
      clearTimeout(timer);
      outer?.removeEventListener("abort", onAbort);
    },
  };
}
