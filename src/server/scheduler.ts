import { OutriderError } from "../errors.js";

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
  readonly signal: AbortSignal;
}

/** Decides which work runs when. */
export interface Scheduler {
  /**
   * Runs the work when its turn has come. Its signal aborts with the request's, and at the deadline. Rejects with
   * ERR_BUSY where too many wait, ERR_TIMEOUT, ERR_ABORTED, or as the work does.
   */
  run<T>(request: Request, work: (signal: AbortSignal) => Promise<T>): Promise<T>;
  readonly running: number;
  readonly waiting: number;
}

/** First come, first served: at most `parallel` run side by side, at most `queue` wait. */
export function firstComeFirstServed({ parallel, queue }: { parallel: number; queue: number }): Scheduler {
  const waiting: (() => void)[] = [];
  let running = 0;

  const turn = (signal: AbortSignal): Promise<void> => {
    if (running < parallel) {
      running++;
      return Promise.resolve();
    }
    if (waiting.length >= queue)
      throw new OutriderError(
        "ERR_BUSY",
        `${running} requests run and ${waiting.length} wait, more are not taken: try again later`,
      );
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        waiting.splice(waiting.indexOf(start), 1);
        reject(signal.reason);
      };
      const start = () => {
        signal.removeEventListener("abort", onAbort);
        running++;
        resolve();
      };
      signal.addEventListener("abort", onAbort, { once: true });
      waiting.push(start);
    });
  };

  return {
    get running() {
      return running;
    },
    get waiting() {
      return waiting.length;
    },
    async run(request, work) {
      const { signal, stop } = withDeadline(request.signal, request.deadlineMs);
      try {
        signal.throwIfAborted();
        await turn(signal);
        try {
          return await work(signal);
        } finally {
          running--;
          waiting.shift()?.();
        }
      } finally {
        stop();
      }
    },
  };
}

/** Aborts as `outer` does, and with ERR_TIMEOUT when the time is over. */
function withDeadline(outer: AbortSignal, ms: number): { signal: AbortSignal; stop(): void } {
  const controller = new AbortController();
  const onAbort = () =>
    controller.abort(
      outer.reason instanceof OutriderError
        ? outer.reason
        : new OutriderError("ERR_ABORTED", "the request was aborted", { cause: outer.reason }),
    );
  const timer = setTimeout(
    () => controller.abort(new OutriderError("ERR_TIMEOUT", `the request took longer than ${ms} ms`)),
    ms,
  );
  if (outer.aborted) onAbort();
  else outer.addEventListener("abort", onAbort, { once: true });
  return {
    signal: controller.signal,
    stop() {
      clearTimeout(timer);
      outer.removeEventListener("abort", onAbort);
    },
  };
}

/** A turn that lasts until it is released, for work that is a stream. */
export function takeTurn(
  scheduler: Scheduler,
  request: Request,
): Promise<{ signal: AbortSignal; release(): void }> {
  return new Promise((resolve, reject) => {
    scheduler
      .run(request, (signal) => new Promise<void>((release) => resolve({ signal, release })))
      .catch(reject);
  });
}
