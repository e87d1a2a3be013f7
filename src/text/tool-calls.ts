import { type CallValue, parsePythonCalls } from "./python-calls.js";

/** A call of a tool by the model. */
export interface ToolCall {
  /** Nine letters and digits: some templates accept no other. */
  readonly id: string;
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

type Call = Omit<ToolCall, "id">;

/** Calls between two marks. */
interface Block {
  readonly open: string;
  /** "": the calls end with the answer or where the next begin. */
  readonly close: string;
  /** The calls in what lies between; undefined if it is something else. */
  parse(body: string): Call[] | undefined;
}

interface Format {
  /** What in a template tells that its model writes calls so. */
  readonly template: RegExp;
  readonly blocks: readonly Block[];
  /** The whole answer may be calls, as JSON without marks. */
  readonly bare?: boolean;
}

const fences: readonly Block[] = ["tool_code", "tool_call", "python"].map((language) => ({
  open: `\`\`\`${language}\n`,
  close: "```",
  parse: (body) => parseJsonCalls(body) ?? parsePythonCalls(body),
}));
const jsonFence: Block = { open: "```json\n", close: "```", parse: parseJsonCalls };

/** How the families write calls, by name. The first whose mark a template has is its model's. */
const formats = {
  deepseek: {
    template: /<｜tool▁calls▁begin｜>/,
    blocks: [{ open: "<｜tool▁calls▁begin｜>", close: "<｜tool▁calls▁end｜>", parse: parseDeepseek }],
    // Older templates of the family do not tell the model of tools, so that Outrider does, and asks for JSON.
    bare: true,
  },
  gemma: {
    template: /<start_function_call>/,
    blocks: [{ open: "<start_function_call>", close: "<end_function_call>", parse: parseFunctionGemma }],
  },
  mistral: {
    template: /\[TOOL_CALLS\]/,
    blocks: [{ open: "[TOOL_CALLS]", close: "", parse: parseMistral }],
  },
  /** Qwen, Hermes, SmolLM 3, Granite 4. */
  hermes: {
    template: /<tool_call>/,
    blocks: [
      {
        open: "<tool_call>",
        close: "</tool_call>",
        parse: (body) => parseJsonCalls(body) ?? parseFunctionTags(body),
      },
    ],
  },
  /** Granite 3 and Phi 4. */
  granite: {
    template: /<\|tool_call\|>|<\|tool\|>/,
    blocks: [
      { open: "<|tool_call|>", close: "", parse: parseJsonCalls },
      { open: "functools[", close: "", parse: (body) => parseJsonCalls(`[${body}`) },
    ],
  },
  llama: {
    template: /<\|python_tag\|>|<\|start_header_id\|>/,
    blocks: [
      {
        open: "<|python_tag|>",
        close: "",
        parse: (body) => parseJsonSequence(body) ?? parsePythonCalls(body),
      },
      { open: "<function=", close: "</function>", parse: (body) => parseFunctionTag(body) },
    ],
    bare: true,
  },
  /** Gemma 2 and 3, which have no format of their own. */
  fenced: { template: /<start_of_turn>/, blocks: [...fences, jsonFence], bare: true },
  json: { template: /(?:)/, blocks: [jsonFence], bare: true },
} satisfies Record<string, Format>;

export type ToolCallFormat = keyof typeof formats;

/** How a model with this chat template writes calls of tools. */
export function toolCallFormat(template: string): ToolCallFormat {
  const names = Object.keys(formats) as ToolCallFormat[];
  return names.find((name) => formats[name].template.test(template))!;
}

const reasoningMarks = [
  ["<think>", "</think>"],
  ["[THINK]", "[/THINK]"],
] as const;

/** Control tokens that an answer is parsed by: they must be written out in its text. */
export const answerMarks: readonly string[] = [
  ...Object.values(formats as Record<string, Format>).flatMap(({ blocks }) =>
    blocks.flatMap(({ open, close }) => [open, close]),
  ),
  ...reasoningMarks.flat(),
  ...["[ARGS]", "[CALL_ID]", "<|/tool_call|>", "<escape>"],
  ...["<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"],
].filter((mark) => mark !== "");

/** Whether a prompt ends within reasoning, which the answer then begins with. */
export function endsInReasoning(prompt: string): boolean {
  const tail = prompt.slice(-200);
  return reasoningMarks.some(([open, close]) => {
    const opened = tail.lastIndexOf(open);
    return opened > tail.lastIndexOf(close) && tail.slice(opened + open.length).trim() === "";
  });
}

/** A part of an answer; text and reasoning come piece by piece, a call as a whole. */
export type AnswerPart =
  | { readonly type: "text" | "reasoning"; readonly text: string }
  | { readonly type: "toolCall"; readonly call: ToolCall };

export interface AnswerOptions {
  /** How calls are written; undefined: they are text. */
  readonly format?: ToolCallFormat | undefined;
  /** Names of the tools there are: JSON without marks is a call only of one of these. Undefined: any. */
  readonly tools?: readonly string[] | undefined;
  /** The prompt ended within reasoning. */
  readonly reasoning?: boolean;
  /** Gives the next call's id: nine letters and digits. Default: `call00000` and so on. */
  readonly newId?: () => string;
}

/**
 * Takes an answer apart while it streams: reasoning, text, calls of tools. What looks like a call but is not stays
 * text; nothing is lost but marks and the white space around them.
 */
export class AnswerParser {
  readonly #blocks: readonly Block[];
  readonly #bare: boolean;
  readonly #tools: ReadonlySet<string> | undefined;
  readonly #newId: () => string;
  #state: "start" | "reasoning" | "answer" | "text" | "block" | "json" = "start";
  /** Not yet taken apart. */
  #rest = "";
  /** What of a block or of JSON has been searched in vain for its end, before `#rest`. */
  #held: string[] = [];
  /** Whether reasoning, or text behind a call, has begun with something other than white space. */
  #begun = false;
  #block: Block | undefined;
  #closeReasoning = reasoningMarks[0][1] as string;
  #json = new JsonScanner();
  #calls = 0;

  constructor(options: AnswerOptions = {}) {
    const format: Format =
      options.format === undefined ? { template: /^/, blocks: [] } : formats[options.format];
    this.#blocks = format.blocks;
    this.#bare = format.bare ?? false;
    this.#tools = options.tools === undefined ? undefined : new Set(options.tools);
    this.#newId = options.newId ?? (() => `call${String(this.#calls).padStart(5, "0")}`);
    if (options.reasoning) this.#state = "reasoning";
  }

  /** Adds text; returns the parts that are certain now. */
  push(text: string): AnswerPart[] {
    this.#rest += text;
    return this.#advance(false);
  }

  /** Ends the answer; returns what was held back. */
  finish(): AnswerPart[] {
    return this.#advance(true);
  }

  #advance(over: boolean): AnswerPart[] {
    const parts: AnswerPart[] = [];
    const add = (type: "text" | "reasoning", text: string) => {
      const last = parts.at(-1);
      if (text === "") return;
      if (last?.type === type) parts[parts.length - 1] = { type, text: last.text + text };
      else parts.push({ type, text });
    };
    const addCalls = (calls: readonly Call[]) => {
      for (const call of calls) {
        parts.push({ type: "toolCall", call: { id: this.#newId(), ...call } });
        this.#calls++;
      }
    };
    for (;;) {
      const before = this.#rest;
      const state = this.#state;
      switch (state) {
        case "start":
          this.#start(over);
          break;
        case "reasoning":
          add("reasoning", this.#reason(over));
          break;
        case "answer":
          this.#answer(over);
          break;
        case "text":
          add("text", this.#text(over));
          break;
        case "block": {
          const found = this.#blockEnd(over);
          if (found === undefined) return parts;
          if (found.calls === undefined) add("text", found.text);
          else addCalls(found.calls);
          break;
        }
        case "json": {
          const found = this.#jsonEnd(over);
          if (found !== undefined) addCalls(found);
          break;
        }
      }
      if (this.#state === state && (this.#rest === before || this.#rest === "")) return parts;
    }
  }

  #start(over: boolean): void {
    const text = this.#rest.trimStart();
    for (const [open, close] of reasoningMarks) {
      if (text.startsWith(open)) {
        this.#rest = text.slice(open.length);
        this.#closeReasoning = close;
        this.#state = "reasoning";
        return;
      }
      if (!over && open.startsWith(text) && this.#rest.length < MAX_SPACE) return;
    }
    this.#state = "answer";
  }

  /** Reasoning that is certain: without white space at its ends. */
  #reason(over: boolean): string {
    const close = this.#closeReasoning;
    if (!this.#begun) this.#rest = this.#rest.trimStart();
    const end = this.#rest.indexOf(close);
    if (end >= 0) {
      const text = this.#rest.slice(0, end).trimEnd();
      this.#rest = this.#rest.slice(end + close.length).trimStart();
      this.#state = "answer";
      this.#begun = false;
      return text;
    }
    const text = this.#certain([close], over, over);
    this.#begun ||= text !== "";
    return text;
  }

  /** Whether the answer is JSON as a whole. */
  #answer(over: boolean): void {
    const text = this.#rest.replace(this.#calls > 0 ? /^[\s;,]+/ : /^\s+/, "");
    if (text === "" && !over && this.#rest.length < MAX_SPACE) return;
    this.#state = "text";
    if (!this.#bare || !/^[[{]/.test(text)) return;
    this.#state = "json";
    this.#rest = text;
    this.#json = new JsonScanner();
  }

  /** Text that is certain. White space before and between calls is left out, so it is held back. */
  #text(over: boolean): string {
    if (over && this.#calls > 0 && !this.#begun && this.#rest.trim() === "") this.#rest = "";
    let first: { at: number; block: Block } | undefined;
    for (const block of this.#blocks) {
      const at = this.#rest.indexOf(block.open);
      if (at >= 0 && (first === undefined || at < first.at)) first = { at, block };
    }
    if (first !== undefined) {
      const text = this.#rest.slice(0, first.at).trimEnd();
      this.#block = first.block;
      this.#rest = this.#rest.slice(first.at + first.block.open.length);
      this.#state = "block";
      return text;
    }
    const opens = this.#blocks.map(({ open }) => open);
    const text = this.#certain(opens, over, over || opens.length === 0);
    this.#begun ||= text !== "";
    return text;
  }

  /** Takes what is before the beginning of one of these marks, and before white space at the end unless `spaces`. */
  #certain(marks: readonly string[], over: boolean, spaces: boolean): string {
    const end = over ? this.#rest.length : this.#rest.length - heldEnd(this.#rest, marks);
    const trimmed = spaces ? end : this.#rest.slice(0, end).trimEnd().length;
    const taken = end - trimmed < MAX_SPACE ? trimmed : end;
    const text = this.#rest.slice(0, taken);
    this.#rest = this.#rest.slice(taken);
    return text;
  }

  /** The calls of a block that is complete, or its text; undefined if it may go on. */
  #blockEnd(over: boolean): { calls?: Call[]; text: string } | undefined {
    const { open, close, parse } = this.#block!;
    const mark = close === "" ? open : close;
    const end = this.#rest.indexOf(mark);
    if (end < 0 && !over) {
      const searched = Math.max(0, this.#rest.length - mark.length + 1);
      this.#held.push(this.#rest.slice(0, searched));
      this.#rest = this.#rest.slice(searched);
      return undefined;
    }
    const body = this.#held.join("") + (end < 0 ? this.#rest : this.#rest.slice(0, end));
    this.#held = [];
    this.#rest = end < 0 ? "" : this.#rest.slice(end + close.length);
    this.#state = "text";
    this.#begun = false;
    const calls = parse(body);
    if (calls?.every(this.#isTool)) return { calls, text: "" };
    this.#begun = true;
    return { text: `${open}${body}${end < 0 ? "" : close}` };
  }

  /** The calls of JSON that is complete; if it is none of a call, it is text from there on. */
  #jsonEnd(over: boolean): Call[] | undefined {
    const end = this.#json.scan(this.#rest);
    if (end < 0) {
      this.#held.push(this.#rest);
      this.#rest = "";
      if (!over) return undefined;
    }
    const body = this.#held.join("") + this.#rest.slice(0, Math.max(0, end));
    this.#held = [];
    const rest = this.#rest.slice(Math.max(0, end));
    const calls = end < 0 ? undefined : parseJsonCalls(body);
    if (calls?.every(this.#isTool)) {
      this.#rest = rest;
      this.#state = "answer";
      return calls;
    }
    this.#rest = body + rest;
    this.#state = "text";
    this.#begun = true;
    return undefined;
  }

  readonly #isTool = ({ name }: Call): boolean => this.#tools?.has(name) ?? true;
}

/** White space that is held back at most: it could be endless. */
const MAX_SPACE = 1024;

/** How many characters at the end may be the beginning of one of these. */
function heldEnd(text: string, marks: readonly string[]): number {
  let held = 0;
  for (const mark of marks) {
    for (let length = Math.min(mark.length - 1, text.length); length > held; length--) {
      if (mark.startsWith(text.slice(text.length - length))) held = length;
    }
  }
  return held;
}

/** Finds where a JSON value ends, however it is cut into pieces. */
class JsonScanner {
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** Where the value ends in this piece of it, the next; -1 if it goes on. */
  scan(piece: string): number {
    for (let at = 0; at < piece.length; at++) {
      const character = piece[at]!;
      if (this.#escaped) this.#escaped = false;
      else if (this.#inString) {
        if (character === "\\") this.#escaped = true;
        else if (character === '"') this.#inString = false;
      } else if (character === '"') this.#inString = true;
      else if (character === "{" || character === "[") this.#depth++;
      else if ((character === "}" || character === "]") && --this.#depth === 0) return at + 1;
    }
    return -1;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** One call as an object, or an array of them, in the spellings that models use. */
function parseJsonCalls(text: string): Call[] | undefined {
  const value = parseJson(text.replace(/<\|\/tool_call\|>\s*$/, ""));
  const list = Array.isArray(value)
    ? value
    : [(value as { tool_calls?: unknown })?.tool_calls ?? value].flat();
  const calls = list.map(toCall);
  return calls.length > 0 && calls.every((call) => call !== undefined) ? calls : undefined;
}

function toCall(value: unknown): Call | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const fields = value as Record<string, unknown>;
  if (typeof fields.function === "object") return toCall(fields.function);
  const name = fields.name ?? fields.function ?? fields.tool_name;
  const given = fields.arguments ?? fields.parameters ?? fields.args ?? {};
  const object = typeof given === "string" ? parseJson(given) : given;
  if (typeof name !== "string" || typeof object !== "object" || object === null || Array.isArray(object)) {
    return undefined;
  }
  return { name, arguments: object as Record<string, unknown> };
}

/** Calls as JSON with semicolons between. */
function parseJsonSequence(text: string): Call[] | undefined {
  const calls: Call[] = [];
  for (let rest = text.trim(); rest !== ""; ) {
    const end = new JsonScanner().scan(rest);
    const found = end < 0 ? undefined : parseJsonCalls(rest.slice(0, end));
    if (found === undefined) return undefined;
    calls.push(...found);
    rest = rest.slice(end).replace(/^[\s;,]+/, "");
  }
  return calls.length > 0 ? calls : undefined;
}

/** `NAME>{…}`, what follows `<function=`. */
function parseFunctionTag(body: string): Call[] | undefined {
  const [, name, text] = /^([\w.-]+)>\s*([\s\S]*)$/.exec(body) ?? [];
  const given = text === undefined ? undefined : parseJson(text);
  if (name === undefined || typeof given !== "object" || given === null || Array.isArray(given))
    return undefined;
  return [{ name, arguments: given as Record<string, unknown> }];
}

/** `<function=NAME><parameter=KEY>VALUE</parameter>…</function>`: Qwen 3 Coder. */
function parseFunctionTags(body: string): Call[] | undefined {
  const [, name, inner] = /^\s*<function=([^>]+)>([\s\S]*?)(?:<\/function>\s*)?$/.exec(body) ?? [];
  if (name === undefined || inner === undefined) return undefined;
  const given: Record<string, unknown> = {};
  for (const [, key, text] of inner.matchAll(/<parameter=([^>]+)>\n?([\s\S]*?)\n?<\/parameter>/g)) {
    const value = parseJson(text!);
    put(given, key!, value === undefined ? text : value);
  }
  return [{ name, arguments: given }];
}

/** `[{…}]`, or `NAME[ARGS]{…}` with perhaps `[CALL_ID]…` before the arguments. */
function parseMistral(body: string): Call[] | undefined {
  const listed = parseJsonSequence(body);
  if (listed !== undefined) return listed;
  const [, name, text] = /^\s*([\w.-]+?)(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(\{[\s\S]*)$/.exec(body) ?? [];
  const given = text === undefined ? undefined : parseJson(text);
  if (name === undefined || typeof given !== "object" || given === null) return undefined;
  return [{ name, arguments: given as Record<string, unknown> }];
}

/** `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME` and JSON in a fence, or `NAME<｜tool▁sep｜>{…}`. */
function parseDeepseek(body: string): Call[] | undefined {
  const calls = body
    .split("<｜tool▁call▁begin｜>")
    .slice(1)
    .map((text): Call | undefined => {
      const call = text.replace(/<｜tool▁call▁end｜>\s*$/, "");
      const [, name, json] =
        /^function<｜tool▁sep｜>([^\n]+)\n```json\n([\s\S]*?)\n?```\s*$/.exec(call) ??
        /^([^\n]+?)<｜tool▁sep｜>([\s\S]*)$/.exec(call) ??
        [];
      return name === undefined ? undefined : toCall({ name: name.trim(), arguments: json });
    });
  return calls.length > 0 && calls.every((call) => call !== undefined) ? calls : undefined;
}

/** `call:NAME{key:value,…}`, strings between `<escape>`. */
function parseFunctionGemma(body: string): Call[] | undefined {
  const [, name, inner] = /^\s*call:([\w.-]+)\s*(\{[\s\S]*\})\s*$/.exec(body) ?? [];
  if (name === undefined || inner === undefined) return undefined;
  const strings: string[] = [];
  const quoted = inner.replace(
    /<escape>([\s\S]*?)<escape>/g,
    (_, text: string) => `"${strings.push(text) - 1}"`,
  );
  const value = parseJson(quoted.replace(/([{,])\s*([A-Za-z_][\w.-]*)\s*:/g, '$1"@$2":'));
  if (typeof value !== "object" || value === null) return undefined;
  return [{ name, arguments: restore(value, strings) as Record<string, unknown> }];
}

/** Puts back the strings that stood for their numbers, and the names of fields. */
function restore(value: unknown, strings: readonly string[]): unknown {
  if (typeof value === "string") return strings[Number(value)] ?? value;
  if (Array.isArray(value)) return value.map((item) => restore(item, strings));
  if (typeof value !== "object" || value === null) return value;
  const object: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) put(object, key.replace(/^@/, ""), restore(item, strings));
  return object;
}

/** Also where the name is `__proto__`. */
function put(object: Record<string, CallValue | unknown>, name: string, value: unknown): void {
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}
