// Runs a test program that was built for WebAssembly: arguments, output, clock, and workers as threads.
//   node native/wasm/run.mjs PROGRAM.wasm [argument...]
import { readFileSync, writeSync } from "node:fs";
import { availableParallelism } from "node:os";
import { isMainThread, Worker, workerData } from "node:worker_threads";

const stackBytes = 1 << 20;

async function instantiate(module, memory, args) {
  const view = () => new DataView(memory.buffer);
  const encoded = args.map((argument) => Buffer.from(`${argument}\0`));
  const wasi = {
    args_sizes_get(count, bytes) {
      view().setUint32(count, args.length, true);
      view().setUint32(bytes, Buffer.concat(encoded).length, true);
      return 0;
    },
    args_get(pointers, buffer) {
      for (const bytes of encoded) {
        view().setUint32(pointers, buffer, true);
        new Uint8Array(memory.buffer).set(bytes, buffer);
        pointers += 4;
        buffer += bytes.length;
      }
      return 0;
    },
    fd_write(fd, vectors, count, written) {
      let total = 0;
      for (let i = 0; i < count; i++) {
        const [at, length] = [view().getUint32(vectors + 8 * i, true), view().getUint32(vectors + 8 * i + 4, true)];
        writeSync(fd, new Uint8Array(memory.buffer).slice(at, at + length));
        total += length;
      }
      view().setUint32(written, total, true);
      return 0;
    },
    clock_time_get(_clock, _precision, out) {
      view().setBigUint64(out, process.hrtime.bigint(), true);
      return 0;
    },
    proc_exit: (code) => process.exit(code),
    fd_fdstat_get: (_fd, out) => {
      new Uint8Array(memory.buffer).fill(0, out, out + 24);
      view().setUint8(out, 2); // a character device
      return 0;
    },
  };
  const outrider = {
    processors: availableParallelism,
    spawn(thread) {
      const { malloc, __tls_size, __tls_align } = exports;
      const tls = malloc(__tls_size.value + __tls_align.value + stackBytes + 16);
      new Worker(new URL(import.meta.url), {
        argv: process.argv.slice(2),
        workerData: { module, memory, thread, tls: Math.ceil(tls / __tls_align.value) * __tls_align.value,
          stack: (tls + __tls_size.value + __tls_align.value + stackBytes) & ~15 },
      });
      return 0;
    },
  };
  const unknown = () => 52; // ENOSYS
  const imports = { env: { memory }, outrider, wasi_snapshot_preview1: new Proxy(wasi, { get: (o, name) => o[name] ?? unknown }) };
  const { exports } = await WebAssembly.instantiate(module, imports);
  return exports;
}

if (isMainThread) {
  const [file, ...args] = process.argv.slice(2);
  const module = await WebAssembly.compile(readFileSync(file));
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared: true });
  const exports = await instantiate(module, memory, [file, ...args]);
  exports._initialize();
  const code = exports.__main_void();
  exports.fflush(0);
  process.exit(code);
} else {
  const { module, memory, thread, tls, stack } = workerData;
  const exports = await instantiate(module, memory, []);
  exports.__stack_pointer.value = stack;
  exports.__wasm_init_tls(tls);
  exports.outrider_thread(thread);
}
