import { availableParallelism } from "node:os";
import { coreInfo, native, Owned } from "./native.js";

/** Those of all builds; `coreInfo().instructionSets` has this machine's. */
export const instructionSets = [
  "avx512",
  "avx2",
  "neon-dotprod",
  "neon",
  "wasm-relaxed-simd",
  "wasm-simd",
  "scalar",
] as const;
export type InstructionSet = (typeof instructionSets)[number];

/** Threads and an instruction set. The results do not depend on either. */
export class Core extends Owned {
  constructor(
    /** 1 to 64; default: one a processor core, at most 8. */
    readonly threads: number = Math.min(8, availableParallelism()),
    readonly instructionSet: InstructionSet = coreInfo().instructionSets[0] as InstructionSet,
  ) {
    super(
      native((core) => core.createCore(threads, instructionSet)),
      "core",
    );
  }

  /** Milliseconds to read so many bytes once with all threads: the floor of a pass over weights of that size. */
  readMilliseconds(bytes: number, repetitions = 10): Promise<number> {
    return native((core) => core.measureReading(this.handle, bytes, repetitions));
  }
}
