import { Automaton } from "./automaton.js";
import { type Guide, guideNetwork } from "./constraint.js";

/** Whether the guide allows the whole of `text`. */
export function accepts(guide: Guide, text: string): boolean {
  const automaton = new Automaton(guideNetwork(guide));
  let at: ReturnType<typeof automaton.step> = automaton.start;
  for (const byte of new TextEncoder().encode(text)) at = at && automaton.step(at, byte);
  return at?.isComplete ?? false;
}

/** A text that the guide allows, by the choices of `pick(n)`, 0 to n - 1; undefined if it does not end in `most` bytes. */
export function randomText(guide: Guide, pick: (n: number) => number, most = 400): string | undefined {
  const automaton = new Automaton(guideNetwork(guide));
  let at = automaton.start;
  const bytes: number[] = [];
  while (bytes.length < most) {
    const next = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => automaton.step(at, byte));
    if (at.isComplete && (next.length === 0 || pick(4) === 0)) return Buffer.from(bytes).toString("utf8");
    // Closing characters are taken more often than 1 in 100, or strings would not end.
    const closing = next.filter((byte) => '"]}'.includes(String.fromCharCode(byte)));
    const from = closing.length > 0 && pick(3) === 0 ? closing : next;
    const byte = from[pick(from.length)]!;
    bytes.push(byte);
    at = automaton.step(at, byte)!;
  }
  return undefined;
}
