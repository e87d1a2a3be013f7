import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import type { Addon, Handle } from "./native.js";
import { type WasmWorkerData, wasmWorkerSource } from "./wasm-worker.js";
import {
  type WasmGlobal,
  type WasmImports,
  type WasmMemory,
  type WasmModule,
  WebAssembly,
} from "./webassembly.js";

/** What a build of the core for WebAssembly exports; `native/wasm/` has it. */
interface Exports {
  readonly __tls_size: WasmGlobal;
  readonly __tls_align: WasmGlobal;
  malloc(bytes: number): number;
  free(pointer: number): void;
  _initialize(): void;
  outrider_functions(): number;
  outrider_call(index: number, message: number, bytes: number): number;
  outrider_complete(work: number): number;
  outrider_finalize(external: number): void;
  /** Only in the build with relaxed SIMD: whether its multiply-add rounds once on this processor. */
  outrider_fused?(): number;
}

const stackBytes = 1 << 20;
const mostPages = 65536; // 4 GiB
const drivers = 2; // workers that take jobs, so that two weights are packed at once

const Kind = {
  undefined: 0,
  boolean: 1,
  number: 2,
  string: 3,
  array: 4,
  object: 5,
  typedArray: 6,
  external: 7,
};
const Outcome = { value: 0, error: 1, work: 2 };

// In the order of Node-API's napi_typedarray_type.
const arrayTypes = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
] as const;
type NumberArray = InstanceType<(typeof arrayTypes)[number]>;

/** An object of the core, by its address there. */
class External {
  constructor(readonly pointer: number) {}
}

/**
 * The first of the files that this host can compile and whose multiply-add is fused, behind the same face as the addon.
 * Jobs run in workers over one shared memory; the calling thread only hands them over. Throws where none fits.
 */
export function loadWasm(files: readonly string[]): Addon {
  let failure: unknown;
  for (const file of files) {
    try {
      return new WasmCore(new WebAssembly.Module(readCore(file))).addon();
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

function readCore(file: string): Uint8Array<ArrayBuffer> {
  // Node 20 has relaxed SIMD behind this flag; later ones do not know it any more, and need not.
  if (file.includes("relaxed")) setFlagsFromString("--experimental-wasm-relaxed-simd");
  return new Uint8Array(readFileSync(file));
}

class WasmCore {
  readonly #module: WasmModule;
  readonly #memory = new WebAssembly.Memory({ initial: 64, maximum: mostPages, shared: true });
  readonly #exports: Exports;
  readonly #released = new FinalizationRegistry<number>((pointer) => {
    if (!this.#broken) this.#exports.outrider_finalize(pointer);
  });
  readonly #workers: Driver[] = [];
  readonly #waiting: Job[] = [];
  #broken: Error | undefined;

  constructor(module: WasmModule) {
    this.#module = module;
    const instance = new WebAssembly.Instance(
      module,
      wasmImports(module, this.#memory, availableParallelism(), (thread) => {
        this.#start(thread);
        return 0;
      }),
    );
    this.#exports = instance.exports as unknown as Exports;
    this.#exports._initialize();
    if (this.#exports.outrider_fused?.() === 0)
      throw new Error("this processor's relaxed multiply-add rounds twice");
  }

  addon(): Addon {
    const names = this.#read(this.#exports.outrider_functions()).value as string[];
    const call =
      (index: number) =>
      (...args: unknown[]) =>
        this.#call(index, args);
    return Object.fromEntries(names.map((name, i) => [name, call(i)])) as unknown as Addon;
  }

  #call(index: number, args: readonly unknown[]): unknown {
    const bytes = args.reduce<number>((sum, value) => sum + messageBytes(value), 8);
    const { outcome, detail, value } = this.#guarded(() => {
      const message = this.#exports.malloc(bytes);
      if (message === 0) throw coreError({ code: "ERR_RUNTIME", message: "out of memory" });
      new MessageWriter(this.#memory, message).write(args);
      return this.#read(this.#exports.outrider_call(index, message, bytes));
    });
    if (outcome === Outcome.error) throw coreError(value);
    if (outcome === Outcome.value) return value;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ work: detail, resolve, reject });
      this.#next();
    });
  }

  /** Hands waiting jobs to idle workers. They keep the process alive while they have one. */
  #next(): void {
    while (this.#waiting.length > 0) {
      let driver = this.#workers.find(({ job }) => !job);
      if (!driver) {
        if (this.#workers.length === drivers) return;
        driver = this.#startDriver();
      }
      driver.job = this.#waiting.shift()!;
      driver.worker.ref();
      driver.worker.postMessage(driver.job.work);
    }
  }

  #startDriver() {
    const driver: Driver = { worker: this.#start() };
    driver.worker.on("message", () => {
      const job = driver.job!;
      driver.job = undefined;
      driver.worker.unref();
      this.#next();
      try {
        const { outcome, value } = this.#guarded(() => this.#read(this.#exports.outrider_complete(job.work)));
        if (outcome === Outcome.error) job.reject(coreError(value));
        else job.resolve(value);
      } catch (error) {
        job.reject(error);
      }
    });
    this.#workers.push(driver);
    return driver;
  }

  /** A worker with a stack of its own: one that takes jobs, or one of the core's threads. */
  #start(thread?: number): Worker {
    const { malloc, free, __tls_size, __tls_align } = this.#exports;
    const align = Math.max(16, __tls_align.value);
    const memory = malloc(__tls_size.value + stackBytes + 3 * align);
    const tls = Math.ceil(memory / align) * align;
    const stack = Math.floor((tls + __tls_size.value + align + stackBytes) / 16) * 16;
    const workerData: WasmWorkerData = { module: this.#module, memory: this.#memory, thread, tls, stack };
    const worker = new Worker(wasmWorkerSource, { eval: true, workerData, env: {}, execArgv: [] });
    worker.unref();
    worker.on("error", (error) => this.#fail(error));
    worker.on("exit", () => free(memory));
    return worker;
  }

  /** A trap leaves locks held and work half done: nothing of this core may be used any more. */
  #guarded<T>(run: () => T): T {
    if (this.#broken) throw this.#broken;
    try {
      return run();
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) throw this.#fail(error);
      throw error;
    }
  }

  #fail(cause: Error): Error {
    this.#broken ??= coreError({
      code: "ERR_RUNTIME",
      message: `the WebAssembly core stopped: ${cause.message}`,
    });
    for (const { job, worker } of this.#workers.splice(0)) {
      job?.reject(this.#broken);
      void worker.terminate();
    }
    for (const job of this.#waiting.splice(0)) job.reject(this.#broken);
    return this.#broken;
  }

  #read(pointer: number): { outcome: number; detail: number; value: unknown } {
    const reader = new MessageReader(this.#memory, pointer >>> 0, (external) => {
      this.#released.register(external, external.pointer);
      return external as unknown as Handle;
    });
    return { ...reader.head(), value: reader.value() };
  }
}

interface Job {
  readonly work: number;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

interface Driver {
  readonly worker: Worker;
  job?: Job | undefined;
}

function coreError(value: unknown): Error {
  const { code, message } = value as { code: string; message: string };
  return Object.assign(new Error(message), { code });
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const utf8 = new Map<string, Uint8Array>(); // of property names

function encoded(text: string): Uint8Array {
  const known = utf8.get(text);
  if (known) return known;
  const bytes = encoder.encode(text);
  if (utf8.size < 256) utf8.set(text, bytes);
  return bytes;
}

const padded = (bytes: number) => Math.ceil(bytes / 8) * 8;

/** Bytes of a value in a message: `native/wasm/node_api.cpp` says what one looks like. */
function messageBytes(value: unknown): number {
  if (typeof value === "number" || value instanceof External) return 16;
  if (typeof value === "string") return 8 + padded(encoded(value).length);
  if (ArrayBuffer.isView(value)) return 16 + padded(value.byteLength);
  if (Array.isArray(value)) return value.reduce<number>((sum, item) => sum + messageBytes(item), 8);
  if (typeof value !== "object" || value === null) return 8;
  return Object.entries(value).reduce(
    (sum, [name, member]) => sum + messageBytes(name) + messageBytes(member),
    8,
  );
}

class MessageWriter {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  #at: number;

  constructor(memory: WasmMemory, at: number) {
    this.#view = new DataView(memory.buffer);
    this.#bytes = new Uint8Array(memory.buffer);
    this.#at = at >>> 0;
  }

  write(value: unknown): void {
    if (typeof value === "number") {
      this.#head(Kind.number, 0);
      this.#view.setFloat64(this.#at, value, true);
      this.#at += 8;
    } else if (typeof value === "string") {
      const text = encoded(value);
      this.#head(Kind.string, text.length);
      this.#put(text);
    } else if (value instanceof External) {
      this.#head(Kind.external, 0);
      this.#head(value.pointer, 0);
    } else if (ArrayBuffer.isView(value)) {
      this.#head(
        Kind.typedArray,
        arrayTypes.findIndex((type) => value instanceof type),
      );
      this.#head((value as NumberArray).length, value.byteLength);
      this.#put(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
    } else if (Array.isArray(value)) {
      this.#head(Kind.array, value.length);
      for (const item of value) this.write(item);
    } else if (typeof value === "object" && value !== null) {
      const entries = Object.entries(value);
      this.#head(Kind.object, entries.length);
      for (const [name, member] of entries) {
        this.write(name);
        this.write(member);
      }
    } else if (typeof value === "boolean") this.#head(Kind.boolean, value ? 1 : 0);
    else this.#head(Kind.undefined, 0);
  }

  #head(kind: number, detail: number): void {
    this.#view.setInt32(this.#at, kind, true);
    this.#view.setInt32(this.#at + 4, detail, true);
    this.#at += 8;
  }

  #put(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#at);
    this.#at += padded(bytes.length);
  }
}

class MessageReader {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #handle: (external: External) => Handle;
  #at: number;

  constructor(memory: WasmMemory, at: number, handle: (external: External) => Handle) {
    this.#view = new DataView(memory.buffer);
    this.#bytes = new Uint8Array(memory.buffer);
    this.#at = at;
    this.#handle = handle;
  }

  head(): { outcome: number; detail: number } {
    this.#at += 8;
    return {
      outcome: this.#view.getInt32(this.#at - 8, true),
      detail: this.#view.getInt32(this.#at - 4, true),
    };
  }

  value(): unknown {
    const { outcome: kind, detail } = this.head();
    switch (kind) {
      case Kind.boolean:
        return detail !== 0;
      case Kind.number:
        this.#at += 8;
        return this.#view.getFloat64(this.#at - 8, true);
      case Kind.string:
        return decoder.decode(this.#take(detail));
      case Kind.array:
        return Array.from({ length: detail }, () => this.value());
      case Kind.object:
        return Object.fromEntries(Array.from({ length: detail }, () => [this.value(), this.value()]));
      case Kind.typedArray: {
        const { detail: bytes } = this.head();
        return new arrayTypes[detail]!(this.#take(bytes).buffer);
      }
      case Kind.external:
        return this.#handle(new External(this.head().outcome));
      default:
        return undefined;
    }
  }

  /** A copy: shared memory is no place for what goes on living in JavaScript. */
  #take(bytes: number): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(bytes);
    copy.set(this.#bytes.subarray(this.#at, this.#at + bytes));
    this.#at += padded(bytes);
    return copy;
  }
}

/** What a build of the core needs of its host: clock, threads, and the C library's calls that it never makes. */
function wasmImports(
  module: WasmModule,
  memory: WasmMemory,
  processors: number,
  spawn: (thread: number) => number,
): WasmImports {
  const known: Record<string, unknown> = {
    memory,
    spawn,
    processors: () => processors,
    clock_time_get(_clock: number, _precision: bigint, out: number) {
      new DataView(memory.buffer).setBigUint64(out >>> 0, process.hrtime.bigint(), true);
      return 0;
    },
  };
  const imports: WasmImports = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    imports[from] ??= {};
    imports[from][name] = known[name] ?? (() => 52); // ENOSYS
  }
  return imports;
}
