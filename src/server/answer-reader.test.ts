import { expect, test } from "vitest";
import { collect, readAnswer } from "./answer-reader.js";

const forced = () =>
  readAnswer({ tools: ["f"], forced: true }, { toolCallFormat: undefined as never, reasoning: false });
const call = (name: string, args: object) => JSON.stringify({ name, arguments: args });
const tricky = { a: 'a "} quoted {" brace', b: "\\", c: { d: ["}", "]"] } };

test.each([1, 2, 7, 1000])(
  "enforced calls, %i characters at a time, each told with its last brace",
  (size) => {
    const text = `[${call("f", tricky)}, ${call("g", {})}]`;
    const reader = forced();
    const told: [number, string][] = [];
    for (let at = 0; at < text.length; at += size)
      for (const { name, arguments: args } of collect(reader.push(text.slice(at, at + size))).calls)
        told.push([Math.min(at + size, text.length), `${name} ${JSON.stringify(args)}`]);
    expect(told.map(([, what]) => what)).toEqual([`f ${JSON.stringify(tricky)}`, "g {}"]);
    const ends = [call("f", tricky).length + 1, text.length - 1];
    expect(told.map(([at]) => at)).toEqual(
      ends.map((end) => Math.min(size * Math.ceil(end / size), text.length)),
    );
    expect(reader.finish()).toEqual([]);
  },
);

test("one call alone; what was cut is text", () => {
  const reader = forced();
  expect(collect(reader.push(call("f", tricky))).calls).toMatchObject([{ name: "f", arguments: tricky }]);
  expect(reader.finish()).toEqual([]);
  const cut = forced();
  expect(cut.push(`[${call("f", {})}, {"name": "g", "argu`)).toHaveLength(1);
  expect(cut.finish()).toEqual([{ type: "text", text: '{"name": "g", "argu' }]);
});
