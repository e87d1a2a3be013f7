import { TokenType, type Vocabulary } from "./vocabulary.js";

/** Ids of the tokens `<0x00>` to `<0xFF>`; -1 where there is none. */
export function byteTokens({ types, idOf }: Vocabulary): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => {
    const id = idOf.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    return id !== undefined && types[id] === TokenType.byte ? id : -1;
  });
}

const encoder = new TextEncoder();
const utf8 = new Uint8Array(4);

/**
 * Appends what stands for a character without a token: its bytes' tokens, else the unknown token, else nothing.
 * `fuse`: an unknown token that follows one is left out.
 */
export function appendUnknown(
  point: number,
  out: number[],
  bytes: Int32Array | undefined,
  unknownId: number | undefined,
  fuse: boolean,
): void {
  if (bytes !== undefined) {
    const { written } = encoder.encodeInto(String.fromCodePoint(point), utf8);
    const ids = Array.from(utf8.subarray(0, written), (byte) => bytes[byte]!);
    if (ids.every((id) => id >= 0)) {
      out.push(...ids);
      return;
    }
  }
  if (unknownId !== undefined && !(fuse && out.at(-1) === unknownId)) out.push(unknownId);
}
