import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { OutriderError } from "../errors.js";
import {
  type CallName,
  type EngineCalls,
  type EngineInfo,
  type EngineSource,
  type FromEngine,
  fromWire,
  type Job,
  type JobPiece,
  type JobResult,
  type ToEngine,
} from "./protocol.js";

const entry = fileURLToPath(new URL("./engine-main.js", import.meta.url));

/** Work, the loading of the model too, is given to so many further processes when one dies of it; then it is an error. */
const maxReplays = 2;
const firstBackoffMs = 100;
const longestBackoffMs = 10_000;
const pingMs = 5_000;
/** Text of 4 MB is tokenized within two seconds, so a process that says nothing for so long hangs. */
const silenceMs = 30_000;
const closeMs = 5_000;

export interface EngineEvents {
  /** Lines that the process wrote. */
  onOutput?: (line: string) => void;
  onExit?: (exit: {
    code: number | null;
    signal: string | null;
    restartInMs: number;
    waiting: number;
  }) => void;
  onReady?: (ready: { info: EngineInfo; pid: number; ms: number }) => void;
}

/** Something that a process was asked for and has not finished. */
interface Waiting {
  readonly message: Extract<ToEngine, { type: "generate" | "call" }>;
  replays: number;
  take(message: Extract<FromEngine, { id: number }>): void;
  fail(error: OutriderError): void;
  /** A new process begins the work from its start. */
  restart(): void;
}

/**
 * A model in a process of its own. When it dies, what was under way is given to the next one from its start; since its
 * output is the same bit for bit, a text that was partly streamed goes on where it was.
 */
export class EngineProcess {
  readonly #source: EngineSource;
  readonly #events: EngineEvents;
  readonly #waiting = new Map<number, Waiting>();
  #child: ChildProcess | undefined;
  #ready: { info: EngineInfo } | undefined;
  #loading: Promise<EngineInfo> | undefined;
  #settleLoading: { resolve(info: EngineInfo): void; reject(error: unknown): void } | undefined;
  /** Processes that died one after another before the model was loaded. */
  #lostLoading = 0;
  #backoffMs = firstBackoffMs;
  #restart: NodeJS.Timeout | undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #heard = 0;
  #nextId = 1;
  #closed: Promise<void> | undefined;
  restarts = 0;

  constructor(source: EngineSource, events: EngineEvents = {}) {
    this.#source = source;
    this.#events = events;
  }

  get info(): EngineInfo | undefined {
    return this.#ready?.info;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** How much is under way. */
  get busy(): number {
    return this.#waiting.size;
  }

  /** Starts the process unless it runs; resolves once the model is loaded. Rejects with what is wrong with the file. */
  start(): Promise<EngineInfo> {
    if (this.#closed !== undefined) return Promise.reject(closed());
    this.#loading ??= new Promise((resolve, reject) => {
      this.#settleLoading = { resolve, reject };
      this.#fork();
    });
    return this.#loading;
  }

  /** The pieces of a text, then its result. Leaving the loop or aborting ends the work within a pass. */
  async *generate(job: Job, signal: AbortSignal): AsyncGenerator<JobPiece, JobResult, undefined> {
    const id = this.#nextId++;
    const queue: JobPiece[] = [];
    let result: JobResult | undefined;
    let failure: OutriderError | undefined;
    let wake: (() => void) | undefined;
    const received = { tokens: 0, characters: 0 };
    let repeated = { tokens: 0, characters: 0 };
    const onAbort = () => {
      failure ??= aborted(signal);
      wake?.();
    };
    if (signal.aborted) throw aborted(signal);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#ask({
      message: { type: "generate", id, job },
      replays: 0,
      restart: () => {
        repeated = { ...received };
      },
      take: (message) => {
        if (message.type === "piece") {
          const fresh = withoutRepeated(message.piece, repeated);
          received.tokens += fresh.tokens.length;
          received.characters += fresh.text.length;
          // One that was all seen before is not the consumer's to take.
          if (fresh.tokens.length + fresh.text.length > 0 || message.piece.tokens.length === 0)
            queue.push(fresh);
          else this.#send({ type: "credit", id, pieces: 1 });
        } else if (message.type === "done") result = message.result;
        wake?.();
      },
      fail: (error) => {
        failure ??= error;
        wake?.();
      },
    });
    try {
      while (true) {
        if (failure) throw failure;
        const piece = queue.shift();
        if (piece) {
          this.#send({ type: "credit", id, pieces: 1 });
          yield piece;
        } else if (result) return result;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      if (this.#waiting.delete(id)) this.#send({ type: "abort", id });
    }
  }

  call<Name extends CallName>(
    name: Name,
    request: Parameters<EngineCalls[Name]>[0],
    signal?: AbortSignal,
  ): Promise<ReturnType<EngineCalls[Name]>> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(aborted(signal));
      const id = this.#nextId++;
      const onAbort = () => {
        if (this.#waiting.delete(id)) this.#send({ type: "abort", id });
        reject(aborted(signal!));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      const settled = () => signal?.removeEventListener("abort", onAbort);
      this.#ask({
        message: { type: "call", id, name, request },
        replays: 0,
        restart: () => undefined,
        take: (message) => {
          settled();
          if (message.type === "reply") resolve(message.value as ReturnType<EngineCalls[Name]>);
        },
        fail: (error) => {
          settled();
          reject(error);
        },
      });
    });
  }

  /** Ends the process; what is under way fails with ERR_DISPOSED. */
  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    clearTimeout(this.#restart);
    clearInterval(this.#heartbeat);
    const child = this.#child;
    this.#failAll(closed());
    this.#settleLoading?.reject(closed());
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    await new Promise<void>((resolve) => {
      child.once("exit", () => resolve());
      const timer = setTimeout(() => child.kill("SIGKILL"), closeMs);
      child.once("exit", () => clearTimeout(timer));
      this.#send({ type: "close" });
    });
  }

  #ask(waiting: Waiting): void {
    if (this.#closed !== undefined) {
      waiting.fail(closed());
      return;
    }
    this.#waiting.set(waiting.message.id, waiting);
    if (this.#ready) this.#send(waiting.message);
    // Sent when it is ready; its failure is everybody's.
    else this.start().catch(() => undefined);
  }

  #send(message: ToEngine): void {
    // A process that is just dying closes its channel first.
    if (this.#child?.connected) this.#child.send(message, () => undefined);
  }

  #fork(): void {
    const started = performance.now();
    const child = fork(entry, [], {
      serialization: "advanced",
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      execArgv: [],
    });
    this.#child = child;
    this.#heard = started;
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding("utf8").on("data", (text: string) => {
        for (const line of text.split("\n")) if (line.trim() !== "") this.#events.onOutput?.(line);
      });
    child.on("message", (message: FromEngine) => {
      if (this.#child === child) this.#take(message, started);
    });
    child.on("error", () => undefined); // it could not be started or signalled: "exit" or the heartbeat tell
    child.on("exit", (code, signal) => {
      if (this.#child === child) this.#lost(code, signal);
    });
    clearInterval(this.#heartbeat);
    this.#heartbeat = setInterval(() => {
      if (this.#ready && performance.now() - this.#heard > silenceMs) child.kill("SIGKILL");
      else if (this.#ready) this.#send({ type: "ping" });
    }, pingMs);
    this.#heartbeat.unref();
    this.#send({ type: "load", source: this.#source });
  }

  #take(message: FromEngine, started: number): void {
    this.#heard = performance.now();
    switch (message.type) {
      case "ready":
        this.#ready = { info: message.info };
        this.#lostLoading = 0;
        this.#events.onReady?.({ info: message.info, pid: this.#child!.pid!, ms: this.#heard - started });
        this.#settleLoading?.resolve(message.info);
        for (const waiting of this.#waiting.values()) this.#send(waiting.message);
        break;
      case "failed": {
        // The file is at fault: another process would find the same.
        this.#child = undefined;
        clearInterval(this.#heartbeat);
        this.#failLoading(fromWire(message.error));
        break;
      }
      case "piece":
        this.#waiting.get(message.id)?.take(message);
        break;
      case "done":
      case "reply":
      case "error": {
        // A process that finished something is healthy: its end is no reason to wait longer than the first time.
        this.#backoffMs = firstBackoffMs;
        const waiting = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        if (message.type === "error") waiting?.fail(fromWire(message.error));
        else waiting?.take(message);
        break;
      }
    }
  }

  #lost(code: number | null, signal: string | null): void {
    clearInterval(this.#heartbeat);
    this.#child = undefined;
    const wasReady = this.#ready !== undefined;
    this.#ready = undefined;
    if (this.#closed !== undefined) return;
    const restartInMs = this.#backoffMs;
    this.#backoffMs = Math.min(2 * this.#backoffMs, longestBackoffMs);
    const cause = signal ?? `exit code ${code}`;
    for (const [id, waiting] of this.#waiting) {
      if (waiting.replays++ < maxReplays) waiting.restart();
      else {
        this.#waiting.delete(id);
        waiting.fail(
          new OutriderError(
            "ERR_RUNTIME",
            `the model's process ended ${maxReplays + 1} times during this request (${cause}): send it again`,
          ),
        );
      }
    }
    this.#events.onExit?.({ code, signal, restartInMs, waiting: this.#waiting.size });
    if (!wasReady && this.#lostLoading++ >= maxReplays) {
      const ended = `the model's process ended ${this.#lostLoading} times while it loaded the model (${cause})`;
      this.#lostLoading = 0;
      this.#failLoading(new OutriderError("ERR_RUNTIME", `${ended}: is there enough memory for it?`));
      return;
    }
    this.restarts++;
    // Whoever waits for `start` waits for the next process.
    if (wasReady) {
      this.#loading = new Promise((resolve, reject) => {
        this.#settleLoading = { resolve, reject };
      });
      this.#loading.catch(() => undefined);
    }
    this.#restart = setTimeout(() => this.#fork(), restartInMs);
  }

  /** The next request tries again. */
  #failLoading(error: OutriderError): void {
    this.#settleLoading?.reject(error);
    this.#loading = undefined;
    this.#failAll(error);
  }

  #failAll(error: OutriderError): void {
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiting of all) waiting.fail(error);
  }
}

/** A piece less what was received before its process died. */
function withoutRepeated(piece: JobPiece, repeated: { tokens: number; characters: number }): JobPiece {
  const tokens = Math.min(repeated.tokens, piece.tokens.length);
  const characters = Math.min(repeated.characters, piece.text.length);
  repeated.tokens -= tokens;
  repeated.characters -= characters;
  if (tokens === 0 && characters === 0) return piece;
  return {
    ...piece,
    text: piece.text.slice(characters),
    tokens: piece.tokens.slice(tokens),
    logprobs: piece.logprobs?.slice(tokens),
  };
}

const closed = () => new OutriderError("ERR_DISPOSED", "the model was unloaded");

/** The reason of an abort, where it is one of ours (a deadline), else ERR_ABORTED. */
function aborted(signal: AbortSignal): OutriderError {
  if (signal.reason instanceof OutriderError) return signal.reason;
  return new OutriderError("ERR_ABORTED", "the request was aborted", { cause: signal.reason });
}
