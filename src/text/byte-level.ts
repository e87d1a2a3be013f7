/**
 * Byte-level BPE writes each byte of text as one printable character (from GPT-2): printable Latin-1 as itself,
 * the other 68 bytes as U+0100 and following.
 */
export const byteCharacters: readonly string[] = (() => {
  const printable = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

/** Byte by UTF-16 unit; -1 where the unit writes none. */
const byteOf = new Int16Array(256 + 68).fill(-1);
for (let byte = 0; byte < 256; byte++) byteOf[byteCharacters[byte]!.charCodeAt(0)] = byte;

const encoder = new TextEncoder();

/** The bytes that a byte-level token stands for. A token that is not written so stands for its own UTF-8. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = byteOf[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return encoder.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}
