import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parsePythonCalls } from "./python-calls.js";
import {
  type AnswerOptions,
  AnswerParser,
  type AnswerPart,
  endsInReasoning,
  type ToolCallFormat,
  toolCallFormat,
} from "./tool-calls.js";

/** What an answer comes to: calls, and text and reasoning as far as there is any. */
function taken(parts: readonly AnswerPart[]) {
  const texts = (type: string) =>
    parts.flatMap((part) => (part.type === type && "text" in part ? [part.text] : []));
  return {
    text: texts("text").join(""),
    reasoning: texts("reasoning").join(""),
    calls: parts.flatMap((part) => (part.type === "toolCall" ? [[part.call.name, part.call.arguments]] : [])),
  };
}

function parse(answer: string, options: AnswerOptions) {
  const parser = new AnswerParser(options);
  return taken([...parser.push(answer), ...parser.finish()]);
}

const oslo = ["weather", { city: "Oslo", days: 3 }];
const rome = ["weather", { city: "Rome", days: 1 }];
const json = '{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}';
const json2 = '{"name": "weather", "parameters": {"city": "Rome", "days": 1}}';

interface Case {
  readonly format: ToolCallFormat;
  readonly answer: string;
  readonly text?: string;
  readonly reasoning?: string;
  readonly calls?: unknown[];
  readonly tools?: string[];
}

const cases: Case[] = [
  // Qwen, Hermes
  { format: "hermes", answer: `<tool_call>\n${json}\n</tool_call>`, calls: [oslo] },
  {
    format: "hermes",
    answer: `Let me look.\n<tool_call>\n${json}\n</tool_call>\n<tool_call>\n${json2}\n</tool_call>\n`,
    text: "Let me look.",
    calls: [oslo, rome],
  },
  {
    format: "hermes",
    answer: `<think>\nThe user\nasks.\n</think>\n\n<tool_call>\n${json}\n</tool_call>`,
    reasoning: "The user\nasks.",
    calls: [oslo],
  },
  { format: "hermes", answer: `<tool_call>\n${json}`, calls: [oslo] },
  {
    format: "hermes",
    answer: "a <tool_call>not JSON</tool_call> b",
    text: "a<tool_call>not JSON</tool_call> b",
  },
  { format: "hermes", answer: "1 < 2 and <tool", text: "1 < 2 and <tool" },
  {
    format: "hermes",
    answer:
      "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
    calls: [oslo],
  },
  {
    format: "hermes",
    answer: '<tool_call>{"name": "f", "arguments": "{\\"__proto__\\": \\"</tool_\\"}"}</tool_call>',
    calls: [["f", JSON.parse('{"__proto__": "</tool_"}')]],
  },
  { format: "hermes", answer: `${json}`, text: json },
  // Llama 3
  { format: "llama", answer: json, calls: [oslo] },
  { format: "llama", answer: `${json}; ${json2}`, calls: [oslo, rome] },
  { format: "llama", answer: `<|python_tag|>${json2}`, calls: [rome] },
  { format: "llama", answer: '<|python_tag|>weather.call(city="Oslo", days=3)', calls: [oslo] },
  { format: "llama", answer: '<function=weather>{"city": "Oslo", "days": 3}</function>', calls: [oslo] },
  { format: "llama", answer: '{"answer": 42}', text: '{"answer": 42}' },
  { format: "llama", answer: json, tools: ["other"], text: json },
  { format: "llama", answer: '{"name": ', text: '{"name": ' },
  { format: "llama", answer: "Plain {text}.", text: "Plain {text}." },
  // Mistral
  { format: "mistral", answer: `[TOOL_CALLS][${json}, ${json2}]`, calls: [oslo, rome] },
  { format: "mistral", answer: `[TOOL_CALLS] [${json}]\n`, calls: [oslo] },
  {
    format: "mistral",
    answer:
      '[TOOL_CALLS]weather[CALL_ID]abc123XYZ[ARGS]{"city": "Oslo", "days": 3}[TOOL_CALLS]weather{"city": "Rome", "days": 1}',
    calls: [oslo, rome],
  },
  {
    format: "mistral",
    answer: `[THINK]Hm.[/THINK]So:[TOOL_CALLS][${json}]`,
    reasoning: "Hm.",
    text: "So:",
    calls: [oslo],
  },
  // Granite, Phi
  { format: "granite", answer: `<|tool_call|>[${json}]`, calls: [oslo] },
  { format: "granite", answer: `<|tool_call|>[${json}]<|/tool_call|>`, calls: [oslo] },
  { format: "granite", answer: `functools[${json}, ${json2}]`, calls: [oslo, rome] },
  // DeepSeek
  {
    format: "deepseek",
    answer:
      '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "Oslo", "days": 3}\n```<｜tool▁call▁end｜>\n' +
      '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Rome", "days": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    calls: [oslo, rome],
  },
  // Gemma
  {
    format: "gemma",
    answer: "<start_function_call>call:weather{city:<escape>Oslo<escape>,days:3}<end_function_call>",
    calls: [oslo],
  },
  {
    format: "gemma",
    answer:
      '<start_function_call>call:f{a:{b:[<escape>x, "y": {z:1}<escape>,true]},c:<escape><escape>}<end_function_call>',
    calls: [["f", { a: { b: ['x, "y": {z:1}', true] }, c: "" }]],
  },
  {
    format: "fenced",
    answer: 'I look.\n```tool_code\nprint(default_api.weather(city="Oslo", days=3))\n```',
    text: "I look.",
    calls: [oslo],
  },
  { format: "fenced", answer: `\`\`\`json\n${json}\n\`\`\``, tools: ["weather"], calls: [oslo] },
  { format: "fenced", answer: '```json\n{"a": 1}\n```', text: '```json\n{"a": 1}\n```' },
  // Any
  { format: "json", answer: `[${json}, ${json2}]`, calls: [oslo, rome] },
  { format: "json", answer: `{"tool_calls": [${json}]}`, calls: [oslo] },
  { format: "json", answer: `{"type": "function", "function": ${json}}`, calls: [oslo] },
  { format: "json", answer: "", text: "" },
];

describe("answers", () => {
  test.each(cases)("$format: $answer", ({ format, answer, text = "", reasoning = "", calls = [], tools }) => {
    expect(parse(answer, { format, tools })).toEqual({ text, reasoning, calls });
  });

  test("come apart alike however they arrive", () => {
    const property = fc.property(
      fc.constantFrom(...cases),
      fc.array(fc.nat({ max: 12 }), { minLength: 1, maxLength: 40 }),
      ({ format, answer, tools }, sizes) => {
        const parser = new AnswerParser({ format, tools });
        const parts: AnswerPart[] = [];
        for (let at = 0, i = 0; at < answer.length; i++) {
          const size = Math.max(1, sizes[i % sizes.length]!);
          parts.push(...parser.push(answer.slice(at, at + size)));
          at += size;
        }
        parts.push(...parser.finish());
        expect(taken(parts)).toEqual(parse(answer, { format, tools }));
      },
    );
    fc.assert(property, { seed: 1, numRuns: 2000 });
  });

  test("without a format are text to the last character, reasoning aside", () => {
    const text = fc.array(
      fc.constantFrom("<think>", "</think>", "<tool_call>", "{", "[TOOL_CALLS]", " ", "\n", "word", '"'),
    );
    const property = fc.property(text, (words) => {
      const answer = `x${words.join("")}`;
      const parser = new AnswerParser();
      const parts = [...answer].flatMap((character) => parser.push(character));
      expect(taken([...parts, ...parser.finish()]).text).toBe(answer);
    });
    fc.assert(property, { seed: 2, numRuns: 500 });
  });

  test("text leaves as soon as it is certain", () => {
    const parser = new AnswerParser({ format: "hermes" });
    expect(parser.push("Hello")).toEqual([{ type: "text", text: "Hello" }]);
    expect(parser.push(" wor")).toEqual([{ type: "text", text: " wor" }]);
    expect(parser.push("ld <to")).toEqual([{ type: "text", text: "ld" }]);
    expect(parser.push("ken>")).toEqual([{ type: "text", text: " <token>" }]);
  });

  test("reasoning that the prompt began", () => {
    expect(parse("It is 4.\n</think>\n\n4", { reasoning: true })).toEqual({
      ...{ reasoning: "It is 4.", text: "4", calls: [] },
    });
    expect(parse("It is", { reasoning: true }).reasoning).toBe("It is");
    expect(endsInReasoning("<|im_start|>assistant\n<think>\n")).toBe(true);
    expect(endsInReasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")).toBe(false);
    expect(endsInReasoning("what is <think> for?<|im_end|>\n<|im_start|>assistant\n")).toBe(false);
  });

  test("ids count up, or are the caller's", () => {
    const answer = `<tool_call>${json}</tool_call><tool_call>${json}</tool_call>`;
    const ids = (options: AnswerOptions) =>
      new AnswerParser(options).push(answer).map((part) => (part.type === "toolCall" ? part.call.id : part));
    expect(ids({ format: "hermes" })).toEqual(["call00000", "call00001"]);
    expect(ids({ format: "hermes", newId: () => "abcdefghi" })).toEqual(["abcdefghi", "abcdefghi"]);
  });

  test("take time in proportion to their length", () => {
    for (const answer of [
      `<tool_call>${"<".repeat(200_000)}`,
      `{"name": "${"\\\\".repeat(100_000)}`,
      " ".repeat(200_000),
    ]) {
      const parser = new AnswerParser({ format: answer.startsWith("{") ? "llama" : "hermes" });
      const start = process.cpuUsage();
      for (let at = 0; at < answer.length; at += 5) parser.push(answer.slice(at, at + 5));
      parser.finish();
      // 0.1 s; what looked at all of it each time would take minutes.
      expect(process.cpuUsage(start).user).toBeLessThan(10e6);
    }
  });
});

test.each<[string, ToolCallFormat]>([
  ["{{ '<tool_call>' }}", "hermes"],
  ["{{ '[TOOL_CALLS]' }}", "mistral"],
  ["<|start_header_id|>", "llama"],
  ["<|tool|>", "granite"],
  ["<start_of_turn>", "fenced"],
  ["<start_of_turn><start_function_call>", "gemma"],
  ["<｜tool▁calls▁begin｜>", "deepseek"],
  ["[INST]", "json"],
])("a template with %s", (template, format) => {
  expect(toolCallFormat(template)).toBe(format);
});

describe("calls in Python", () => {
  test.each<[string, unknown]>([
    ["f()", [{ name: "f", arguments: {} }]],
    [
      "[a(x=1), b.c(y='it\\'s', z=None)]",
      [
        { name: "a", arguments: { x: 1 } },
        { name: "c", arguments: { y: "it's", z: null } },
      ],
    ],
    [
      'f(a=[1, -2.5, 1_000], b={"k": (True, False)}, c="""x\n"y" """,)\ng()',
      [
        { name: "f", arguments: { a: [1, -2.5, 1000], b: { k: [true, false] }, c: 'x\n"y" ' } },
        { name: "g", arguments: {} },
      ],
    ],
    ["f(__proto__=1)", [{ name: "f", arguments: JSON.parse('{"__proto__": 1}') }]],
    ["x = 1", undefined],
    ["f(1)", undefined],
    ["f(a=g())", undefined],
    ["f(a='x", undefined],
    ["", undefined],
    [`f(a=${"[".repeat(10_000)}`, undefined],
  ])("%s", (text, calls) => {
    expect(parsePythonCalls(text)).toEqual(calls);
  });
});
