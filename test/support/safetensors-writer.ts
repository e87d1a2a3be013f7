/** Builds safetensors files for tests. Checks nothing: `header` may be changed as a test wants it. */
export interface FloatTensor {
  readonly name: string;
  readonly dtype: string;
  /** Row-major. */
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

export type Header = Record<string, unknown>;

export function writeSafetensors(
  tensors: readonly FloatTensor[],
  change: (header: Header) => unknown = (header) => header,
): Buffer {
  let at = 0;
  const header: Header = { __metadata__: { format: "pt" } };
  for (const { name, dtype, shape, data } of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, at + data.length] };
    at += data.length;
  }
  return joinSafetensors(JSON.stringify(change(header)), Buffer.concat(tensors.map(({ data }) => data)));
}

/** A header as text, filled up with spaces to whole 8 bytes, and the data. */
export function joinSafetensors(header: string, data: Uint8Array): Buffer {
  const text = Buffer.from(header.padEnd(Math.ceil(Buffer.byteLength(header) / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}
