/** Rows of F32, F16 or BF16 as float32 numbers; exact. `bytes` may stand at any address. */
export function toFloat32(type: "F32" | "F16" | "BF16", bytes: Uint8Array): Float32Array<ArrayBuffer> {
  if (type === "F32") return new Float32Array(new Uint8Array(bytes).buffer);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length / 2;
  const out = new Float32Array(length);
  const bits = new Uint32Array(out.buffer);
  for (let i = 0; i < length; i++) {
    const half = view.getUint16(2 * i, true);
    if (type === "BF16") bits[i] = half << 16;
    else out[i] = halfToFloat(half);
  }
  return out;
}

function halfToFloat(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}
