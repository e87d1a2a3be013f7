/** What scripts that write GGUF files share: the header of a file as it is in its bytes, and numbers as bytes. */
const STRING = 8;
const ARRAY = 9;
const SCALAR_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, undefined, undefined, 8, 8, 8];

/** `entries`: by key, with the entry's own `bytes`; `tensors`: name, shape, typeId, offset from `dataOffset`. */
export function readGguf(file, path) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let at = 0;
  const take = (count) => {
    const start = at;
    at += count;
    return start;
  };
  const u32 = () => view.getUint32(take(4), true);
  const u64 = () => Number(view.getBigUint64(take(8), true));
  const string = () => {
    const start = take(u64());
    return file.toString("utf8", start, at);
  };
  const skip = (type) => {
    if (type === STRING) string();
    else if (type === ARRAY) {
      const element = u32();
      const count = u64();
      if (SCALAR_BYTES[element]) take(SCALAR_BYTES[element] * count);
      else for (let i = 0; i < count; i++) skip(element);
    } else if (SCALAR_BYTES[type]) take(SCALAR_BYTES[type]);
    else throw new Error(`${path}: metadata value of type ${type} at byte ${at}, expected 0 to 12`);
  };

  const magic = file.toString("latin1", 0, 4);
  at = 4;
  const version = u32();
  if (magic !== "GGUF" || version < 2 || version > 3) {
    throw new Error(`${path}: expected a GGUF file of version 2 or 3`);
  }
  const numTensors = u64();
  const numKeys = u64();
  const entries = new Map();
  for (let i = 0; i < numKeys; i++) {
    const start = at;
    const key = string();
    const type = u32();
    const valueAt = at;
    skip(type);
    entries.set(key, { type, valueAt, bytes: file.subarray(start, at) });
  }
  const tensors = [];
  for (let i = 0; i < numTensors; i++) {
    const name = string();
    const shape = Array.from({ length: u32() }, u64);
    tensors.push({ name, shape, typeId: u32(), offset: u64() });
  }
  const alignmentAt = entries.get("general.alignment")?.valueAt;
  const alignment = alignmentAt === undefined ? 32 : view.getUint32(alignmentAt, true);
  return { version, entries, tensors, alignment, dataOffset: roundUp(at, alignment) };
}

export const roundUp = (value, multiple) => Math.ceil(value / multiple) * multiple;

export const lengthBytes = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
export const u32Bytes = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
export const stringBytes = (text) => [lengthBytes(Buffer.byteLength(text)), Buffer.from(text)];
