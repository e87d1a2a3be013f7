/** The part of the WebAssembly API that the core needs: TypeScript has its types only together with a browser's. */
interface WebAssemblyApi {
  readonly Module: {
    new (bytes: Uint8Array<ArrayBuffer>): WasmModule;
    imports(module: WasmModule): { module: string; name: string }[];
  };
  readonly Instance: new (
    module: WasmModule,
    imports: WasmImports,
  ) => { readonly exports: Readonly<Record<string, unknown>> };
  readonly Memory: new (pages: { initial: number; maximum: number; shared: boolean }) => WasmMemory;
  readonly RuntimeError: new (message?: string) => Error;
}

export type WasmModule = { readonly __module: unique symbol };
export type WasmImports = Record<string, Record<string, unknown>>;
export interface WasmMemory {
  /** Longer after the memory grew: always to be asked for anew. */
  readonly buffer: SharedArrayBuffer;
}
export interface WasmGlobal {
  readonly value: number;
}

export const WebAssembly = (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;
