import { expect, test } from "vitest";
import { blocksOf, type Node, nodesOf, type Run } from "./markdown.js";

const parse = (source: string) => blocksOf(source).flatMap(nodesOf);
const runs = (nodes: readonly Node[]): Run[] =>
  nodes.flatMap((node) => ("tag" in node ? runs(node.children) : [node]));
/** As HTML would have it, for reading. */
const show = (nodes: readonly Node[]): string =>
  nodes
    .map((node) =>
      "tag" in node
        ? `<${node.tag}${node.href === undefined ? "" : ` ${node.href}`}>${show(node.children)}</${node.tag}>`
        : node.text,
    )
    .join("");

const answer = `# Colours of *the* sky

It is **blue**, a*b & \`code\` <b>not bold</b>
on two lines: [a link](https://example.org "t"), https://example.org and \\*stars\\*.

1. one
   goes **on**
   - two \`x\`
2. one again

> said
> twice

\`\`\`js
let a = "**b**";
  if (a) b();
\`\`\`

| n | square |
| --- | --- |
| 1 | *1* |

---
- [x] done`;

test("an answer's blocks and their text", () => {
  expect(show(parse(answer))).toBe(
    [
      "<h3>Colours of <em>the</em> sky</h3>",
      "<p>It is <strong>blue</strong>, a*b & <code>code</code> <b>not bold</b>\non two lines: ",
      "<a https://example.org>a link</a>, <a https://example.org>https://example.org</a> and *stars*.</p>",
      "<ol><li>one\ngoes <strong>on</strong><ul><li>two <code>x</code></li></ul></li><li>one again</li></ol>",
      "<blockquote><p>said\ntwice</p></blockquote>",
      '<pre><code>let a = "**b**";\n  if (a) b();</code></pre>',
      "<table><thead><tr><th>n</th><th>square</th></tr></thead>",
      "<tbody><tr><td>1</td><td><em>1</em></td></tr></tbody></table>",
      "<hr></hr><ul><li>☑ done</li></ul>",
    ].join(""),
  );
});

test("every run stands in the source where it says, in order, each letter once", () => {
  let end = 0;
  for (const { text, at } of runs(parse(answer))) {
    if (text === "☑ ") continue;
    expect(at, text).toBeTypeOf("number");
    expect(answer.slice(at, at! + text.length)).toBe(text);
    expect(at).toBeGreaterThanOrEqual(end);
    end = at! + text.length;
  }
});

test("however much of it has come, it is parsed and every run is found", () => {
  for (let length = 0; length <= answer.length; length++) {
    const part = answer.slice(0, length);
    for (const { text, at } of runs(parse(part)))
      if (at !== undefined) expect(part.slice(at, at + text.length)).toBe(text);
  }
});

test("only the last block changes while an answer grows", () => {
  const whole = blocksOf(answer);
  const part = blocksOf(answer.slice(0, answer.indexOf("on two lines")));
  expect(part[0]).toEqual(whole[0]);
  expect(part[1]!.at).toBe(whole[1]!.at);
  expect(part[1]!.source).not.toBe(whole[1]!.source);
});

test.each([
  "javascript:alert(1)",
  "JaVaScRiPt:alert(1)",
  "data:text/html,x",
  "vbscript:x",
  "/v1/models",
  "//evil.example",
  "file:///etc/passwd",
])("a link to %s is none", (href) => {
  expect(show(parse(`[x](${href}) ![y](${href})`))).not.toContain("<a");
});

test("a heading without a word is shown as it is, and so is a link's definition", () => {
  expect(show(parse("# a\n\n###\n\n###\n\nb"))).toBe("<h3>a</h3><p>###</p><p>###</p><p>b</p>");
  expect(show(parse("[a]: https://example.org\n"))).toBe("<p>[a]: https://example.org\n</p>");
});

test("images are links, HTML is text", () => {
  expect(show(parse("![a](https://e.example/p.png) <img src=x onerror=alert(1)>"))).toBe(
    "<p><a https://e.example/p.png>a</a> <img src=x onerror=alert(1)></p>",
  );
  expect(show(parse("<script>alert(1)</script>\n\n<div>\n*x*\n</div>"))).toContain(
    "<script>alert(1)</script>",
  );
});

test.each([
  ["[", 20_000],
  ["> ", 5_000],
  ["> ", 500],
  ["1. ", 1_000],
  ["*a", 10_000],
  ["`", 20_000],
  ["x", 70_000],
])("%j %i times is shown, nested as deep as a page bears", (text, times) => {
  const depth = (list: readonly Node[]): number =>
    list.reduce((most, node) => Math.max(most, "tag" in node ? 1 + depth(node.children) : 0), 0);
  const parsed = parse(text.repeat(times));
  expect(runs(parsed).length).toBeGreaterThan(0);
  expect(depth(parsed)).toBeLessThan(150);
});
