import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { OutriderError, quote } from "../errors.js";
import { type TemplateReply, type TemplateWorkerData, templateWorkerSource } from "./template-worker.js";
import type { Tokenizer } from "./tokenizer.js";

const roles = ["system", "user", "assistant", "tool"] as const;

/** One turn of a conversation. */
export interface ChatMessage {
  readonly role: (typeof roles)[number];
  readonly content: string;
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

export interface TemplateLimits {
  /** Most characters (UTF-16 units) in the result, and in what it is made from: give 8 × context. Default 2^20. */
  readonly outputLength?: number;
  /** Most time for one rendering, in milliseconds. Default 1000. */
  readonly timeMs?: number;
}

const MAX_MESSAGES = 4096;
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
  readonly source: string;
  readonly #outputLength: number;
  readonly #timeMs: number;
  #renderer: Renderer | undefined;
  /** Renderings take turns. */
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  /** Throws ERR_TEMPLATE_LIMIT for a source of more than 256 KB. Errors in the source come with `render`. */
  constructor(source: string, limits: TemplateLimits = {}) {
    const bytes = Buffer.byteLength(source);
    if (bytes > MAX_TEMPLATE_BYTES) {
      throw new OutriderError(
        "ERR_TEMPLATE_LIMIT",
        `the chat template has ${bytes} bytes, at most ${MAX_TEMPLATE_BYTES} are allowed`,
      );
    }
    this.source = source;
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
    const variables = this.#variables(input);
    const rendered = this.#turn.then(() => this.#render(variables));
    this.#turn = rendered.catch(() => {});
    return rendered;
  }

  /** Ends the worker; a rendering that waits is rejected. A second call is harmless. */
  close(): void {
    this.#closed = true;
    void this.#renderer?.worker.terminate();
    this.#renderer = undefined;
  }

  /** The template's variables as JSON: nothing but data can reach the worker. */
  #variables(input: TemplateInput): string {
    const { messages, tools = null, variables = {} } = input;
    const extra = toJson({ tools, variables }).length;
    const length = messages.reduce((sum, { content }) => sum + content.length, extra);
    if (length > this.#outputLength) {
      throw new OutriderError(
        "ERR_TEMPLATE_LIMIT",
        `the messages have ${length} characters, at most ${this.#outputLength} can fit the context: shorten them`,
        { param: "messages" },
      );
    }
    return JSON.stringify({
      ...variables,
      messages: messages.map(({ role, content }) => ({ role, content })),
      add_generation_prompt: input.addGenerationPrompt,
      bos_token: input.bosToken,
      eos_token: input.eosToken,
      // Templates are tested where these are None, not undefined.
      tools,
      documents: null,
    });
  }

  async #render(variables: string): Promise<string> {
    if (this.#closed) throw disposed();
    this.#renderer ??= this.#start();
    const { worker, online, gone } = this.#renderer;
    // Not to end while someone waits.
    worker.ref();
    let timer: NodeJS.Timeout | undefined;
    const late = online.then(
      () =>
        new Promise<OutriderError>((resolve) => {
          worker.postMessage(variables);
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
      source: this.source,
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
  return new OutriderError("ERR_DISPOSED", "the chat template was used after close");
}

/**
 * The prompt of a conversation as token ids. Control tokens come from the template alone: where a message, a tool or
 * a variable spells one (`<|im_end|>`), the letters are encoded as text. BOS is added if the tokenizer wants it and
 * the template did not write it.
 *
 * `template` undefined is ERR_TEMPLATE: turns joined in a form that the model never saw give bad answers without
 * saying why. Rejects as `ChatTemplate.render` does.
 */
export async function encodeChat(
  tokenizer: Tokenizer,
  template: ChatTemplate | undefined,
  messages: readonly ChatMessage[],
  options: {
    /** Default true. */
    addGenerationPrompt?: boolean;
    tools?: readonly unknown[];
    variables?: Readonly<Record<string, unknown>>;
  } = {},
): Promise<number[]> {
  checkMessages(messages);
  if (template === undefined) {
    throw new OutriderError(
      "ERR_TEMPLATE",
      "the model has no chat template; give it the prompt as plain text instead",
    );
  }
  const { bosId, eosId, controlTokens } = tokenizer;
  const mark = unusedMark([template.source, ...messages.map(({ content }) => content)], options);
  const guard = (text: string) => controlTokens.guard(text, mark);
  const rendered = await template.render({
    messages: messages.map(({ role, content }) => ({ role, content: guard(content) })),
    addGenerationPrompt: options.addGenerationPrompt ?? true,
    bosToken: bosId === undefined ? "" : tokenizer.text(bosId),
    eosToken: eosId === undefined ? "" : tokenizer.text(eosId),
    tools: guardStrings(options.tools, guard),
    variables: guardStrings(options.variables, guard),
  });
  const ids = await tokenizer.encodeAsync(rendered, { special: true, mark });
  if (tokenizer.addBos && bosId !== undefined && ids[0] !== bosId) ids.unshift(bosId);
  return ids;
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
function unusedMark(texts: readonly string[], options: unknown): string {
  const used = new Set([...texts, toJson(options)].flatMap((text) => text.match(/[\ue000-\uf8ff]/g) ?? []));
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

/** A copy of a JSON value with every string changed, the names of fields in it as well. */
function guardStrings<T>(value: T, guard: (text: string) => string): T;
function guardStrings(value: unknown, guard: (text: string) => string): unknown {
  if (typeof value === "string") return guard(value);
  if (Array.isArray(value)) return value.map((item) => guardStrings(item, guard));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [guard(key), guardStrings(item, guard)]),
  );
}

/** Throws ERR_BAD_REQUEST with `param` for messages that are not 1 to 4096 of a known role and text. */
function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages)) throw badMessage("messages", "must be an array");
  if (messages.length === 0) throw badMessage("messages", "is empty; at least one message is needed");
  if (messages.length > MAX_MESSAGES) {
    throw badMessage("messages", `has ${messages.length} messages, at most ${MAX_MESSAGES} are allowed`);
  }
  messages.forEach((message: unknown, i) => {
    if (typeof message !== "object" || message === null) {
      throw badMessage(`messages[${i}]`, "must be an object with role and content");
    }
    const { role, content } = message as Record<string, unknown>;
    if (!roles.some((known) => known === role)) {
      const found = typeof role === "string" ? quote(role) : role === null ? "null" : typeof role;
      throw badMessage(`messages[${i}].role`, `is ${found}, expected ${roles.join(", ")}`);
    }
    if (typeof content !== "string") {
      const found = content === null ? "null" : Array.isArray(content) ? "an array" : typeof content;
      throw badMessage(`messages[${i}].content`, `is ${found}, expected a string`);
    }
  });
}

function badMessage(param: string, problem: string): OutriderError {
  return new OutriderError("ERR_BAD_REQUEST", `${param} ${problem}`, { param });
}
