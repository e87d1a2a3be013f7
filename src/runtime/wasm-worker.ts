import type { WasmMemory, WasmModule } from "./webassembly.js";

/** What a worker of the WebAssembly core begins with. */
export interface WasmWorkerData {
  readonly module: WasmModule;
  readonly memory: WasmMemory;
  /** One of the core's threads, to run to its end; otherwise the worker takes jobs. */
  readonly thread?: number | undefined;
  /** Addresses of the worker's own thread-local values and of its stack's end. */
  readonly tls: number;
  readonly stack: number;
}

/** Another instance of the module over the same memory. A text, so that it needs no file that could be missing. */
export const wasmWorkerSource = `
"use strict";
const { parentPort, workerData } = require("node:worker_threads");
const { module, memory, thread, tls, stack } = workerData;
const known = {
  memory,
  spawn: () => 1,
  processors: () => 1,
  clock_time_get(clock, precision, out) {
    new DataView(memory.buffer).setBigUint64(out >>> 0, process.hrtime.bigint(), true);
    return 0;
  },
};
const imports = {};
for (const { module: from, name } of WebAssembly.Module.imports(module))
  (imports[from] ??= {})[name] = known[name] ?? (() => 52);
const { exports } = new WebAssembly.Instance(module, imports);
exports.__stack_pointer.value = stack;
exports.__wasm_init_tls(tls);
if (thread !== undefined) exports.outrider_thread(thread);
else
  parentPort.on("message", (work) => {
    exports.outrider_execute(work);
    parentPort.postMessage(work);
  });
`;
