import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { OutriderError, quote } from "../errors.js";
import {
  type TemplateReply,
  type TemplateRequest,
  type TemplateWorkerData,
  templateWorkerSource,
} from "./template-worker.js";
import type { Tokenizer } from "./tokenizer.js";
import type { ToolCall } from "./tool-calls.js";

const roles = ["system", "user", "assistant", "tool"] as const;

/** A piece of a message; several are one text. */
export interface TextPart {
  readonly type: "text";
  readonly text: string;
}

/** One turn of a conversation. */
export interface ChatMessage {
  readonly role: (typeof roles)[number];
  /** "" for an assistant that only called tools. */
  readonly content: string | readonly TextPart[];
  /** What an assistant called. */
  readonly toolCalls?: readonly ToolCall[];
  /** What an assistant thought before; most templates leave out all but the last. */
  readonly reasoning?: string;
  /** Which call the content of a tool's message is the result of, and the tool's name. */
  readonly toolCallId?: string;
  readonly name?: string;
}

/** The text of a message. */
export function messageText({ content }: ChatMessage): string {
  return typeof content === "string" ? content : content.map(({ text }) => text).join("");
}

/** What a chat template is rendered from. */
export interface TemplateInput {
  /** 1 to 4096. */
  readonly messages: readonly ChatMessage[];
  /** Whether the text ends where the assistant's answer begins. */
  readonly addGenerationPrompt: boolean;
  /** Text of the BOS and EOS tokens; "" if there is none. */
  readonly bosToken: string;
  readonly eosToken: string;
  /** JSON descriptions of the tools that the model may call, as its template expects them. */
  readonly tools?: readonly unknown[];
  /** More variables of the template, e.g. `enable_thinking`; JSON values. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** A model's templates by name. */
export type TemplateSources = ReadonlyMap<string, string>;

export interface TemplateLimits {
  /** Most characters (UTF-16 units) in the result, and in what it is made from: give 8 × context. Default 2^20. */
  readonly outputLength?: number;
  /** Most time for one rendering, in milliseconds. Default 1000. */
  readonly timeMs?: number;
}

const MAX_MESSAGES = 4096;
const MAX_TOOLS = 128;
const MAX_TEMPLATE_BYTES = 256 * 1024;
const DEFAULT_OUTPUT_LENGTH = 1 << 20;
const DEFAULT_TIME_MS = 1000;

const jinjaLibrary = createRequire(import.meta.url).resolve("@huggingface/jinja");

/** A running worker. */
interface Renderer {
  readonly worker: Worker;
  readonly online: Promise<void>;
  /** Resolves when the worker has ended, with what to tell who waits for it. */
  readonly gone: Promise<OutriderError>;
}

/**
 * A model's Jinja template for conversations. It comes with the model file and is not trusted: it runs in a worker
 * with limits on time, memory and output, so that it can neither stop the event loop nor end the process.
 * The worker starts with the object (3 ms here; 35 ms elsewhere, while the weights load; 10 MB) and does not keep
 * the process alive. `close` when done.
 */
export class ChatTemplate {
  readonly sources: TemplateSources;
  readonly #outputLength: number;
  readonly #timeMs: number;
  #renderer: Renderer | undefined;
  /** Renderings take turns. */
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  /**
   * @param sources one template, or several by name: `tool_use` is taken where there are tools, else `default`
   * Throws ERR_TEMPLATE_LIMIT for more than 256 KB. Errors in a source come with `render`.
   */
  constructor(sources: string | TemplateSources, limits: TemplateLimits = {}) {
    this.sources = typeof sources === "string" ? new Map([["default", sources]]) : sources;
    const bytes = [...this.sources.values()].reduce((sum, source) => sum + Buffer.byteLength(source), 0);
    if (bytes > MAX_TEMPLATE_BYTES) {
      throw new OutriderError(
        "ERR_TEMPLATE_LIMIT",
        `the chat template has ${bytes} bytes, at most ${MAX_TEMPLATE_BYTES} are allowed`,
      );
    }
    this.#outputLength = limits.outputLength ?? DEFAULT_OUTPUT_LENGTH;
    this.#timeMs = limits.timeMs ?? DEFAULT_TIME_MS;
    this.#renderer = this.#start();
  }

  /**
   * The text of a conversation. Rejects with ERR_BAD_REQUEST (`param` set) for messages that are not valid,
   * ERR_TEMPLATE for an error in the template or one that it raises, ERR_TEMPLATE_LIMIT at a limit,
   * ERR_DISPOSED after `close`.
   */
  async render(input: TemplateInput): Promise<string> {
    checkMessages(input.messages);
    const name = this.#name(input.tools);
    const variables = this.#variables(input, this.sources.get(name)!);
    const rendered = this.#turn.then(() => this.#render({ name, variables }));
    this.#turn = rendered.catch(() => {});
    return rendered;
  }

  /** Ends the worker; a rendering that waits is rejected. A second call is harmless. */
  close(): void {
    this.#closed = true;
    void this.#renderer?.worker.terminate();
    this.#renderer = undefined;
  }

  /** Which template is taken. */
  #name(tools: readonly unknown[] | undefined): string {
    const wanted =
      tools !== undefined && tools.length > 0 && this.sources.has("tool_use") ? "tool_use" : "default";
    const name = this.sources.has(wanted) ? wanted : [...this.sources.keys()][0];
    if (name === undefined) throw new OutriderError("ERR_TEMPLATE", "the model has no chat template");
    return name;
  }

  /** The template's variables as JSON: nothing but data can reach the worker. */
  #variables(input: TemplateInput, source: string): string {
    const { messages, tools = null, variables = {} } = input;
    const extra = toJson({ tools, variables, calls: messages.map(({ toolCalls }) => toolCalls) }).length;
    const length = messages.reduce(
      (sum, message) => sum + messageText(message).length + (message.reasoning?.length ?? 0),
      extra,
    );
    if (length > this.#outputLength) {
      throw new OutriderError(
        "ERR_TEMPLATE_LIMIT",
        `the messages have ${length} characters, at most ${this.#outputLength} can fit the context: shorten them`,
        { param: "messages" },
      );
    }
    return JSON.stringify({
      ...variables,
      messages: messages.map(messageForm(source)),
      add_generation_prompt: input.addGenerationPrompt,
      bos_token: input.bosToken,
      eos_token: input.eosToken,
      // Templates are tested where these are None, not undefined.
      tools: tools?.length === 0 ? null : tools,
      documents: null,
    });
  }

  async #render(request: TemplateRequest): Promise<string> {
    if (this.#closed) throw disposed();
    this.#renderer ??= this.#start();
    const { worker, online, gone } = this.#renderer;
    // Not to end while someone waits.
    worker.ref();
    let timer: NodeJS.Timeout | undefined;
    const late = online.then(
      () =>
        new Promise<OutriderError>((resolve) => {
          worker.postMessage(request);
          // If this thread was busy the answer may be here when the time is up: let it be read first.
          timer = setTimeout(
            () => setImmediate(resolve, limitError(`it takes more than ${this.#timeMs} ms`)),
            this.#timeMs,
          ).unref();
        }),
    );
    try {
      const answer = new Promise<TemplateReply>((resolve) => worker.once("message", resolve));
      const reply = await Promise.race([answer, gone, late]);
      if (reply instanceof OutriderError) {
        await worker.terminate();
        throw this.#closed ? disposed() : reply;
      }
      if ("text" in reply) return reply.text;
      if (reply.limit) throw limitError(reply.error);
      throw new OutriderError("ERR_TEMPLATE", `the chat template failed: ${quote(reply.error)}`);
    } finally {
      clearTimeout(timer);
      worker.removeAllListeners("message");
      worker.unref();
    }
  }

  #start(): Renderer {
    const workerData: TemplateWorkerData = {
      library: jinjaLibrary,
      sources: Object.fromEntries(this.sources),
      maxLength: this.#outputLength,
    };
    const worker = new Worker(templateWorkerSource, {
      eval: true,
      workerData,
      env: {},
      execArgv: [],
      resourceLimits: {
        maxOldGenerationSizeMb: 64 + Math.ceil((32 * this.#outputLength) / DEFAULT_OUTPUT_LENGTH),
        maxYoungGenerationSizeMb: 4,
      },
    });
    worker.unref();
    const online = new Promise<void>((resolve) => worker.once("online", resolve));
    const gone = new Promise<OutriderError>((resolve) => {
      worker.once("error", (error: NodeJS.ErrnoException) => {
        const memory = error.code === "ERR_WORKER_OUT_OF_MEMORY";
        resolve(memory ? limitError("it takes too much memory") : workerError(error.message));
      });
      worker.once("exit", () => resolve(workerError("it ended")));
    });
    const renderer = { worker, online, gone };
    // The next rendering starts another.
    void gone.then(() => {
      if (this.#renderer === renderer) this.#renderer = undefined;
    });
    return renderer;
  }
}

function workerError(problem: string): OutriderError {
  return new OutriderError("ERR_TEMPLATE", `the chat template's worker failed: ${quote(problem)}`);
}

function limitError(problem: string): OutriderError {
  return new OutriderError(
    "ERR_TEMPLATE_LIMIT",
    `the chat template was stopped: ${quote(problem).slice(1, -1)}`,
  );
}

function disposed(): OutriderError {
  return new OutriderError("ERR_DISPOSED", "the chat template was used after its model was closed");
}

/**
 * How a template wants a message. Templates were written against two habits of the chat APIs: an assistant's content
 * beside tool calls is null or "", the arguments of a call are an object or its JSON.
 */
function messageForm(source: string): (message: ChatMessage) => Record<string, unknown> {
  const nullContent = /(?:\.|\[['"])content(?:['"]\])? is (?:not )?none/.test(source);
  const textArguments = /[+~]\s*[\w.['"\]]+\barguments['"]?\]?\s*[+~]/.test(source);
  return (message) => {
    const { role, toolCalls, reasoning, toolCallId, name } = message;
    const text = messageText(message);
    const calls = toolCalls !== undefined && toolCalls.length > 0;
    return {
      role,
      content: text === "" && calls && nullContent ? null : text,
      ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
      ...(toolCallId === undefined ? {} : { tool_call_id: toolCallId }),
      ...(name === undefined ? {} : { name }),
      ...(calls
        ? {
            tool_calls: toolCalls.map(({ id, name, arguments: given }) => ({
              id,
              type: "function",
              function: { name, arguments: textArguments ? JSON.stringify(given) : given },
            })),
          }
        : {}),
    };
  };
}

export interface ChatOptions {
  /** Whether the text ends where the assistant's answer begins. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** JSON descriptions of the tools that the model may call, as its template expects them; most: as OpenAI's. */
  readonly tools?: readonly unknown[];
  /** More variables of the template; JSON values. */
  readonly variables?: Readonly<Record<string, unknown>>;
  readonly signal?: AbortSignal;
}

/**
 * The prompt of a conversation as token ids. Control tokens come from the template alone: where a message, a tool or
 * a variable spells one (`<|im_end|>`), the letters are encoded as text. BOS is added if the tokenizer wants it and
 * the template did not write it. A system message goes before the first user's text where the template refuses it.
 *
 * `template` undefined is ERR_TEMPLATE. Rejects as `ChatTemplate.render` does, and with ERR_ABORTED.
 */
export async function encodeChat(
  tokenizer: Tokenizer,
  template: ChatTemplate | undefined,
  messages: readonly ChatMessage[],
  options: ChatOptions = {},
): Promise<number[]> {
  checkMessages(messages);
  checkTools(options.tools);
  if (template === undefined) {
    throw new OutriderError(
      "ERR_TEMPLATE",
      "the model has no chat template; give it the prompt as plain text instead",
    );
  }
  const { bosId, eosId, controlTokens } = tokenizer;
  const { tools, variables, signal } = options;
  const mark = unusedMark([...template.sources.values(), toJson({ messages, tools, variables })]);
  const guard = (text: string) => controlTokens.guard(text, mark);
  const said = withoutTools(messages, tools, [...template.sources.values()].join("\n"));
  const render = (turns: readonly ChatMessage[]) =>
    template.render({
      messages: turns.map(({ role, ...said }) => ({
        role,
        ...guardStrings(said, guard, keptKeys),
      })),
      addGenerationPrompt: options.addGenerationPrompt ?? true,
      bosToken: bosId === undefined ? "" : tokenizer.text(bosId),
      eosToken: eosId === undefined ? "" : tokenizer.text(eosId),
      tools: guardStrings(tools, guard),
      variables: guardStrings(variables, guard),
    });
  const rendered = await render(said).catch((error: unknown) => {
    const merged = withoutSystem(said);
    const refused =
      error instanceof OutriderError && error.code === "ERR_TEMPLATE" && /system/i.test(error.message);
    if (merged === undefined || !refused) throw error;
    return render(merged);
  });
  const ids = await tokenizer.encodeAsync(rendered, { special: true, mark, signal });
  if (tokenizer.addBos && bosId !== undefined && ids[0] !== bosId) ids.unshift(bosId);
  return ids;
}

/**
 * The messages for a template that knows no tools: they are described in the system message, calls are JSON in the
 * assistant's text, results come from the user. To leave them out without a word would be worse.
 */
function withoutTools(
  messages: readonly ChatMessage[],
  tools: readonly unknown[] | undefined,
  source: string,
): readonly ChatMessage[] {
  let turns = messages;
  if (!/\btool_calls\b/.test(source)) {
    turns = messages.reduce<ChatMessage[]>((done, message) => {
      const { role, name, toolCalls } = message;
      const last = done.at(-1);
      if (role === "tool") {
        const text = `Result of ${name ?? "the call"}: ${messageText(message)}`;
        if (last?.role === "user")
          done[done.length - 1] = { ...last, content: `${messageText(last)}\n${text}` };
        else done.push({ role: "user", content: text });
      } else if (toolCalls !== undefined && toolCalls.length > 0) {
        const calls = toolCalls.map((call) => JSON.stringify({ name: call.name, arguments: call.arguments }));
        done.push({
          role,
          content: [messageText(message), ...calls].filter((text) => text !== "").join("\n"),
        });
      } else done.push(message);
      return done;
    }, []);
  }
  if (tools === undefined || tools.length === 0 || /\btools\b/.test(source)) return turns;
  const described =
    `You may call these tools:\n${tools.map((tool) => JSON.stringify(tool)).join("\n")}\n` +
    'To call one, answer with nothing but JSON: {"name": NAME, "arguments": {…}}';
  const [first, ...rest] = turns;
  if (first?.role !== "system") return [{ role: "system", content: described }, ...turns];
  return [{ ...first, content: `${messageText(first)}\n\n${described}` }, ...rest];
}

/** The messages with the system's text before the user's that follows it; undefined if there is none. */
function withoutSystem([system, user, ...rest]: readonly ChatMessage[]): ChatMessage[] | undefined {
  if (system?.role !== "system" || user?.role !== "user") return undefined;
  return [{ ...user, content: `${messageText(system)}\n\n${messageText(user)}` }, ...rest];
}

function toJson(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    throw new OutriderError("ERR_BAD_REQUEST", "tools and template variables must be JSON values", {
      param: "tools",
      cause,
    });
  }
}

/** A private-use character that occurs nowhere in these. */
function unusedMark(texts: readonly string[]): string {
  const used = new Set(texts.flatMap((text) => text.match(/[\ue000-\uf8ff]/g) ?? []));
  for (let unit = 0xf8ff; unit >= 0xe000; unit--) {
    const mark = String.fromCharCode(unit);
    if (!used.has(mark)) return mark;
  }
  throw new OutriderError(
    "ERR_BAD_REQUEST",
    "the messages contain every private-use character; one must be unused",
    {
      param: "messages",
    },
  );
}

/** Names of fields that this code reads. */
const keptKeys = [
  "content",
  "type",
  "text",
  "toolCalls",
  "id",
  "name",
  "arguments",
  "reasoning",
  "toolCallId",
];

/** A copy of a JSON value with every string changed, the names of fields in it as well, but for those `kept`. */
function guardStrings<T>(value: T, guard: (text: string) => string, kept?: readonly string[]): T;
function guardStrings(
  value: unknown,
  guard: (text: string) => string,
  kept: readonly string[] = [],
): unknown {
  if (typeof value === "string") return guard(value);
  if (Array.isArray(value)) return value.map((item) => guardStrings(item, guard, kept));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      kept.includes(key) ? key : guard(key),
      guardStrings(item, guard, kept),
    ]),
  );
}

/** Throws ERR_BAD_REQUEST with `param` for messages that are not 1 to 4096 of a known role and text. */
export function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages)) throw badMessage("messages", "must be an array");
  if (messages.length === 0) throw badMessage("messages", "is empty; at least one message is needed");
  if (messages.length > MAX_MESSAGES) {
    throw badMessage("messages", `has ${messages.length} messages, at most ${MAX_MESSAGES} are allowed`);
  }
  messages.forEach((message: unknown, i) => {
    const at = `messages[${i}]`;
    if (typeof message !== "object" || message === null) {
      throw badMessage(at, "must be an object with role and content");
    }
    const { role, content, ...rest } = message as Record<string, unknown>;
    if (!roles.some((known) => known === role)) {
      const found = typeof role === "string" ? quote(role) : kindOf(role);
      throw badMessage(`${at}.role`, `is ${found}, expected ${roles.join(", ")}`);
    }
    if (Array.isArray(content)) {
      for (const [j, part] of content.entries()) checkPart(part, `${at}.content[${j}]`);
    } else if (typeof content !== "string") {
      throw badMessage(`${at}.content`, `is ${kindOf(content)}, expected a string or text parts`);
    }
    for (const field of ["reasoning", "toolCallId", "name"]) {
      if (rest[field] !== undefined && typeof rest[field] !== "string") {
        throw badMessage(`${at}.${field}`, `is ${kindOf(rest[field])}, expected a string`);
      }
    }
    if (rest.toolCalls !== undefined) checkToolCalls(rest.toolCalls, `${at}.toolCalls`, role === "assistant");
  });
}

function checkPart(part: unknown, at: string): void {
  const { type, text } = (typeof part === "object" && part !== null ? part : {}) as Record<string, unknown>;
  if (type !== "text") {
    throw badMessage(
      `${at}.type`,
      `is ${typeof type === "string" ? quote(type) : kindOf(type)}, expected "text"`,
    );
  }
  if (typeof text !== "string") throw badMessage(`${at}.text`, `is ${kindOf(text)}, expected a string`);
}

function checkToolCalls(calls: unknown, at: string, allowed: boolean): void {
  if (!allowed) throw badMessage(at, "is allowed in an assistant's message only");
  if (!Array.isArray(calls)) throw badMessage(at, `is ${kindOf(calls)}, expected an array`);
  calls.forEach((call: unknown, i) => {
    const {
      id,
      name,
      arguments: given,
    } = (typeof call === "object" && call !== null ? call : {}) as Record<string, unknown>;
    if (typeof id !== "string") throw badMessage(`${at}[${i}].id`, `is ${kindOf(id)}, expected a string`);
    if (typeof name !== "string")
      throw badMessage(`${at}[${i}].name`, `is ${kindOf(name)}, expected a string`);
    if (typeof given !== "object" || given === null || Array.isArray(given)) {
      throw badMessage(`${at}[${i}].arguments`, `is ${kindOf(given)}, expected an object`);
    }
  });
}

function checkTools(tools: unknown): void {
  if (tools === undefined) return;
  if (!Array.isArray(tools)) throw badMessage("tools", `is ${kindOf(tools)}, expected an array`);
  if (tools.length > MAX_TOOLS) {
    throw badMessage("tools", `has ${tools.length} tools, at most ${MAX_TOOLS} are allowed`);
  }
  tools.forEach((tool: unknown, i) => {
    if (typeof tool !== "object" || tool === null || Array.isArray(tool))
      throw badMessage(`tools[${i}]`, `is ${kindOf(tool)}, expected an object`);
  });
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : typeof value;
}

function badMessage(param: string, problem: string): OutriderError {
  return new OutriderError("ERR_BAD_REQUEST", `${param} ${problem}`, { param });
}
