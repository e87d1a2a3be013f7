import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TextStream } from "./text-stream.js";

/** A tokenizer whose token i is the i-th of these; undefined is a control token. */
function toy(pieces: readonly (Uint8Array | undefined)[]) {
  return {
    bytes: (id: number) => pieces[id] ?? Buffer.from("<|end|>"),
    isControl: (id: number) => pieces[id] === undefined,
  };
}

/** What is shown after each token, and what `finish` adds. */
function run(pieces: readonly (Uint8Array | string | undefined)[], stops?: readonly string[]) {
  const bytes = pieces.map((piece) => (typeof piece === "string" ? Buffer.from(piece) : piece));
  const stream = new TextStream(toy(bytes), { stops });
  const shown = pieces.map((_, id) => stream.push(id));
  const stopped = stream.stopped;
  const rest = stream.finish();
  return { shown, rest, stopped, text: shown.join("") + rest };
}

/** The rule, said once more: the first character at which some stop string ends; of several the longest. */
function cut(text: string, stops: readonly string[]): string {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
    if (found.length > 0) return text.slice(0, end - Math.max(...found));
  }
  return text;
}

describe("characters", () => {
  test("are held back until they are complete", () => {
    const [a, b, c, d] = Buffer.from("😀");
    const bytes = [a, b, c, d].map((byte) => Uint8Array.of(byte!));
    expect(run(["x", ...bytes, "y"])).toMatchObject({ shown: ["x", "", "", "", "😀", "y"], rest: "" });
    expect(run(["x", bytes[0], bytes[1]])).toMatchObject({ shown: ["x", "", ""], rest: "\ufffd" });
    expect(run([bytes[0], "y"])).toMatchObject({ shown: ["", "\ufffdy"], rest: "" });
  });

  test("control tokens add nothing, even within a character; a byte order mark is text", () => {
    const e = Buffer.from("é");
    expect(run(["a", e.subarray(0, 1), undefined, e.subarray(1), undefined]).shown).toEqual([
      "a",
      "",
      "",
      "é",
      "",
    ]);
    expect(run(["\ufeffa", "\ufeff"]).text).toBe("\ufeffa\ufeff");
  });

  test("any bytes in any pieces are the text of all bytes together", () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 5 }),
      fc.constantFrom(
        ...[[0xf0, 0x9f], [0x98, 0x80], [0xe2, 0x82], [0xac], [0xef, 0xbb], [0xbf], [0xc3], [0x41]].map(
          (bytes) => Uint8Array.from(bytes),
        ),
      ),
    );
    const property = fc.property(fc.array(piece), (pieces) => {
      const whole = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(pieces));
      expect(run(pieces).text).toBe(whole);
    });
    fc.assert(property, { seed: 1, numRuns: 5000 });
  });
});

describe("stop strings", () => {
  test.each<[string, string[], string[], string[], string]>([
    ["within a token", ["Hello wor", "ld"], ["o w"], ["Hell", ""], ""],
    ["over several tokens", ["a", "EN", "", "D", "b"], ["END"], ["a", "", "", "", ""], ""],
    ["not completed", ["a", "EN", "x"], ["END"], ["a", "", "ENx"], ""],
    ["not completed at the end", ["a", "EN"], ["END"], ["a", ""], "EN"],
    ["begun again within itself", ["aa", "a", "b"], ["aab"], ["", "a", ""], ""],
    ["one the beginning of another", ["x", "ab", "c"], ["abc", "ab"], ["x", "", ""], ""],
    ["one the end of another", ["x", "ab", "c"], ["bc", "abc"], ["x", "", ""], ""],
    ["the first to be complete wins", ["abcd"], ["bcd", "c"], ["ab"], ""],
    ["of more than one unit a character", ["a😀", "b"], ["😀b"], ["a", ""], ""],
    ["at the very beginning", ["stop"], ["stop"], [""], ""],
  ])("%s", (_name, tokens, stops, shown, rest) => {
    expect(run(tokens, stops)).toMatchObject({ shown, rest });
    expect(run(tokens, stops).text).toBe(cut(tokens.join(""), stops));
  });

  test("half a character does not match within a whole one", () => {
    expect(run(["a😀b"], ["\ud83d"])).toMatchObject({ text: "a😀b", stopped: false });
    expect(run(["a", Uint8Array.of(0xf0, 0x9f)], ["\ud83d"]).text).toBe("a");
  });

  test("nothing comes after one", () => {
    const stream = new TextStream(toy([Buffer.from("aXb"), Buffer.from("c")]), { stops: ["X"] });
    expect([stream.push(0), stream.stopped, stream.push(1), stream.finish()]).toEqual(["a", true, "", ""]);
  });

  test("cut at the same place however the text arrives", () => {
    const unit = fc.constantFrom("a", "b", "é", "😀");
    const stop = fc.string({ unit, minLength: 1, maxLength: 6 });
    const property = fc.property(
      fc.string({ unit, maxLength: 60 }),
      fc.array(stop, { maxLength: 16 }),
      fc.array(fc.nat({ max: 200 })),
      (text, stops, cuts) => {
        const bytes = Buffer.from(text);
        const places = [...new Set([0, ...cuts.map((at) => at % (bytes.length + 1)), bytes.length])].sort(
          (a, b) => a - b,
        );
        const pieces = places.slice(1).map((end, i) => bytes.subarray(places[i], end));
        const expected = cut(text, stops);
        const { text: got, stopped, shown } = run(pieces, stops);
        expect(got).toBe(expected);
        expect(stopped).toBe(expected !== text || stops.some((each) => text.endsWith(each)));
        // What is shown early is never taken back, and nothing that is safe is held.
        let seen = "";
        shown.forEach((part, i) => {
          seen += part;
          expect(expected.startsWith(seen)).toBe(true);
          const decoded = new TextDecoder().decode(bytes.subarray(0, places[i + 1]), { stream: true });
          const held = decoded.slice(seen.length);
          if (cut(decoded, stops) === decoded)
            expect(held === "" || stops.some((each) => each.startsWith(held))).toBe(true);
        });
      },
    );
    fc.assert(property, { seed: 2, numRuns: 3000 });
  });

  test.each<[string, unknown, string]>([
    ["an empty one", [""], "stop[0] is empty"],
    ["too many", Array(17).fill("x"), "stop must be an array of at most 16 strings"],
    ["10,000", Array(10_000).fill("x"), "at most 16"],
    ["too long", ["ok", "é".repeat(129)], "stop[1] has 258 bytes, at most 256"],
    ["not a string", ["ok", null], "stop[1] must be a string, not null"],
    ["not an array", "END", "stop must be an array"],
  ])("refused: %s", (_name, stops, message) => {
    expect(() => new TextStream(toy([]), { stops: stops as string[] })).toThrow(
      expect.objectContaining({
        code: "ERR_BAD_REQUEST",
        param: "stop",
        message: expect.stringContaining(message),
      }),
    );
  });

  test("of exactly the greatest size are accepted", () => {
    const stop = `${"é".repeat(127)}ab`;
    expect(run(["x", stop, "y"], Array(16).fill(stop)).text).toBe("x");
  });
});
