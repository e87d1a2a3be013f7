import type { Request, Scheduler } from "../scheduling/scheduler.js";

/** A request's turn, for work that is a stream. */
export interface Turn {
  /** Aborts with the request's own, and at its deadline. */
  readonly signal: AbortSignal;
  /** So many tokens more came. */
  emitted(tokens: number): void;
  /** The turn is over; `whole`: the answer came to its end, so that its length is one to learn from. */
  release(whole: boolean): void;
}

/** Resolves when the request's turn has come; rejects as `Scheduler.run` does. */
export function takeTurn(scheduler: Scheduler, request: Request): Promise<Turn> {
  return new Promise((resolve, reject) => {
    scheduler
      .run(
        request,
        (signal, emitted) =>
          new Promise<void>((done, leave) =>
            resolve({ signal, emitted, release: (whole) => (whole ? done() : leave(new Error("left"))) }),
          ),
      )
      .catch(reject); // nobody hears of a turn that was given up
  });
}
