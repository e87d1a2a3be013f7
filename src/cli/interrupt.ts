import { interrupted } from "./failure.js";

/**
 * Runs work that Ctrl-C stops through its signal; a second Ctrl-C ends the process at once. Outside of such work the
 * first one does, see `exitOnInterrupt`.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onInterrupt = () => {
    if (controller.signal.aborted) process.exit(interrupted);
    controller.abort();
  };
  process.on("SIGINT", onInterrupt);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", onInterrupt);
  }
}

/** Ctrl-C ends the process unless something interruptible runs, which then listens too. */
export function exitOnInterrupt(): void {
  process.on("SIGINT", () => {
    if (process.listenerCount("SIGINT") === 1) process.exit(interrupted);
  });
}
