import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type ErrorCode, OutriderError } from "../errors.js";
import { loadWasm } from "./wasm.js";

/** An object that lives in the native core. It is released by `close`, at the latest by the garbage collector. */
export type Handle = { readonly __handle: unique symbol };

/** A program as the core takes it; `native/src/program.h` says what the numbers mean. */
export interface NativeProgramSpec {
  /** Four numbers a buffer: quantised, one row per output, width, slots. */
  buffers: Int32Array;
  /** Eight numbers an operator: opcode and fields. */
  ops: Int32Array;
  scalars: Float32Array;
  weights: Handle[];
  constants: Float32Array[];
  cache: Handle;
  logits: number;
  vocab: number;
  /** Token ids are below this. */
  tokens: number;
  maxRows: number;
  maxOutputs: number;
  maxPosition: number;
}

export interface NativePass {
  /** Six numbers a row: token, table, position, parent (-1: none in this pass), cell, wants output. */
  rows: Int32Array;
  tables: Int32Array;
  tableOffsets: Int32Array;
  /** Five numbers an output: temperature, top-k, top-p, min-p, seed. */
  settings: Float64Array;
  /** A token for each output whose log-probability is wanted beside the pick's. */
  scored?: Int32Array | undefined;
  /** Two numbers an output: a point that draws, negative where noise does, and its resolution. */
  codes?: Float64Array;
  /** Changes to logits before the draw, all four or none: [outputs + 1], then one each. */
  adjustOffsets?: Int32Array;
  adjustTokens?: Int32Array;
  adjustRepetition?: Float32Array;
  adjustAdd?: Float32Array;
  /** For each output which of `masks` bounds the pick, -1: none. Both or neither. */
  maskOf?: Int32Array;
  /** [masks × words] bit `id & 31` of word `id >> 5`: the token may be picked; words of 32 cover the vocabulary. */
  masks?: Int32Array;
  top: number;
  wantLogits: boolean;
  /**
   * Of a pass over one row: so many more passes go on with the token drawn, in the table's next cells, until it is one of
   * `ends`, they have taken `followMs` or another pass waits. All three or none; only with settings, codes and `top`.
   */
  follow?: number;
  followMs?: number;
  ends?: Int32Array;
}

/** Where passes followed, their numbers stand behind those of the first. */
export interface NativeResult {
  finished: boolean;
  milliseconds: number;
  tokens: Int32Array;
  logprobs: Float32Array;
  /** Log-probabilities of the tokens `scored`. */
  scores?: Float32Array;
  /** Two numbers an output, for the token after the drawn one. */
  codes?: Float64Array;
  topTokens?: Int32Array;
  topLogprobs?: Float32Array;
  logits?: Float32Array;
}

/** The core's face: the same for the addon and for WebAssembly. */
export interface Addon {
  info(): { sourceHash: string; instructionSets: string[]; liveBytes: number; liveBlocks: number };
  createCore(threads: number, instructionSet: string): Handle;
  packedBytes(type: number, rows: number, columns: number): number;
  createArena(bytes: number): Handle;
  createWeight(arena: Handle, type: number, rows: number, columns: number): Handle;
  packWeight(weight: Handle, bytes: Uint8Array, firstRow: number): Promise<void>;
  quantiseWeight(weight: Handle, bytes: Uint8Array, firstRow: number, from: number): Promise<void>;
  unpackRow(weight: Handle, row: number): Float32Array;
  createCache(layers: number, heads: number, headDim: number, blocks: number, half: boolean): Handle;
  copyCells(cache: Handle, from: Int32Array, to: Int32Array): void;
  createProgram(core: Handle, spec: NativeProgramSpec): Handle;
  measureReading(core: Handle, bytes: number, repetitions: number): Promise<number>;
  createCancel(): Handle;
  cancel(cancel: Handle): void;
  run(program: Handle, pass: NativePass, cancel: Handle): Promise<NativeResult>;
  close(handle: Handle): void;
}

let loaded: Addon | undefined;

/** The core, loaded at first use. Throws `ERR_PLATFORM` where no build fits this machine. */
export function addon(): Addon {
  loaded ??= load(process.env.OUTRIDER_NATIVE || undefined); // set but empty is not set
  return loaded;
}

const folder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../native/prebuilt");
const prebuilt = path.join(folder, `outrider.${process.platform}-${process.arch}.node`);
const wasmFiles = ["relaxed-simd", "simd"].map((name) => path.join(folder, `outrider.wasm-${name}.wasm`));

/** wanted: a file, or "wasm"; otherwise the build for this platform, and WebAssembly where there is none. */
function load(wanted: string | undefined): Addon {
  let cause: unknown;
  if (wanted !== "wasm" && (wanted !== undefined || existsSync(prebuilt))) {
    const file = wanted ?? prebuilt;
    try {
      return file.endsWith(".wasm") ? loadWasm([file]) : (createRequire(import.meta.url)(file) as Addon);
    } catch (error) {
      if (wanted !== undefined)
        throw platformError(`the core could not be loaded from ${file}, as OUTRIDER_NATIVE says`, error);
      cause = error;
    }
  }
  try {
    const core = loadWasm(wasmFiles);
    if (cause)
      process.emitWarning(
        `outrider: ${prebuilt} could not be loaded, WebAssembly takes its place and is slower. ` +
          `It needs glibc 2.34 or newer. Cause: ${firstLine(cause)}`,
      );
    return core;
  } catch (error) {
    throw platformError(`no build of the core runs on ${process.platform}-${process.arch}`, cause ?? error);
  }
}

const firstLine = (cause: unknown) => (cause instanceof Error ? cause.message.split("\n")[0] : String(cause));

function platformError(what: string, cause: unknown): OutriderError {
  return new OutriderError(
    "ERR_PLATFORM",
    `${what}. OUTRIDER_NATIVE=FILE names a core that you built yourself (npm run native), OUTRIDER_NATIVE=wasm ` +
      `takes WebAssembly. Cause: ${firstLine(cause)}`,
    { cause },
  );
}

/** Errors of the core carry a code of ours; this gives them our class. */
export function translate(error: unknown): unknown {
  if (error instanceof OutriderError || !(error instanceof Error)) return error;
  const code = (error as { code?: unknown }).code;
  if (typeof code !== "string" || !code.startsWith("ERR_")) return error;
  return new OutriderError(code as ErrorCode, error.message, { cause: error });
}

/** Runs a call into the core; what it refuses becomes an `OutriderError`. */
export function native<T>(call: (core: Addon) => T): T {
  try {
    return call(addon());
  } catch (error) {
    throw translate(error);
  }
}

/** One owner of one native object. Use after release is `ERR_DISPOSED`, a second release is harmless. */
export class Owned implements Disposable {
  #handle: Handle | undefined;
  readonly #label: string;

  constructor(handle: Handle, label: string) {
    this.#handle = handle;
    this.#label = label;
  }

  get handle(): Handle {
    if (!this.#handle) throw new OutriderError("ERR_DISPOSED", `${this.#label} was used after it was closed`);
    return this.#handle;
  }

  [Symbol.dispose](): void {
    const handle = this.#handle;
    this.#handle = undefined;
    if (handle) addon().close(handle);
  }
}

/** What the core holds now and what this processor can run. */
export function coreInfo() {
  return native((core) => core.info());
}
