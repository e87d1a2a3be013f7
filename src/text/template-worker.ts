import type * as threads from "node:worker_threads";
import type * as jinja from "@huggingface/jinja";

/** What the worker is started with. */
export interface TemplateWorkerData {
  /** Where the Jinja library is. */
  readonly library: string;
  /** Templates by name. */
  readonly sources: Readonly<Record<string, string>>;
  /** The longest string that a template may make, in UTF-16 units. */
  readonly maxLength: number;
}

/** Which template is to be rendered, and a JSON text of its variables. */
export interface TemplateRequest {
  readonly name: string;
  readonly variables: string;
}

/** The worker's answer. */
export type TemplateReply = { readonly text: string } | { readonly error: string; readonly limit: boolean };

/**
 * The worker's whole program, started from its own text: that works in TypeScript sources under test and built
 * alike, so it must not use anything from outside itself.
 *
 * A worker's heap limit ends the worker only between steps of JavaScript. One operation of V8 that passes the limit
 * by itself ends the process: replace, join, split and range can (seen with Node 20, 20 doublings of a string and
 * one replace). So nothing long is made: every value has a greatest length, and these four check before they begin.
 */
function templateWorker({ parentPort, workerData }: typeof threads, load: (path: string) => unknown): void {
  const { library, sources, maxLength } = workerData as TemplateWorkerData;
  const { Interpreter, Template } = load(library) as typeof jinja;
  const MAX_ITEMS = 1 << 16;

  class LimitError extends Error {}
  function checkLength(length: number): void {
    if (length > maxLength) throw new LimitError(`it makes more than ${maxLength} characters`);
  }
  function checkItems(count: number): void {
    if (count > MAX_ITEMS) throw new LimitError(`it makes a list of more than ${MAX_ITEMS} items`);
  }

  type Value = { value: unknown };
  type Call = (args: Value[], scope: unknown) => unknown;
  type Scope = { lookupVariable(name: string): { value: Call } };
  const { evaluate } = Interpreter.prototype;
  Interpreter.prototype.evaluate = function (statement: { type: string } | undefined, scope: Scope): Value {
    if (statement?.type === "Program") boundRange(scope);
    const result = evaluate.call(this, statement, scope);
    if (typeof result.value === "string") checkLength(result.value.length);
    else if (Array.isArray(result.value)) checkItems(result.value.length);
    return result;
  };

  function boundRange(scope: Scope): void {
    const range = scope.lookupVariable("range");
    const make = range.value;
    range.value = (args, inner) => {
      const [first = 0, second, step = 1] = args.map(({ value }) => Number(value));
      checkItems((second === undefined ? first : second - first) / step);
      return make(args, inner);
    };
  }

  // This realm belongs to the template alone, so its built-in objects may be changed.
  const { join } = Array.prototype;
  Array.prototype.join = function (separator = ",") {
    const parts = Array.from(this as unknown[], (item) => String(item ?? ""));
    checkLength(parts.reduce((length, part) => length + part.length + separator.length, -separator.length));
    return join.call(parts, separator);
  };

  const { repeat, replace, replaceAll, split } = String.prototype;
  String.prototype.repeat = function (count) {
    checkLength(this.length * count);
    return repeat.call(this, count);
  };
  String.prototype.split = function (separator: unknown, limit?: number) {
    if (typeof separator === "string" && separator !== "") {
      let parts = 1;
      for (let at = this.indexOf(separator); at >= 0; at = this.indexOf(separator, at + separator.length)) {
        checkItems(++parts);
      }
    }
    return split.call(this, separator as never, limit);
  };
  type Replace = (this: string, pattern: string | RegExp, replacement: string) => string;
  function bounded(native: Replace) {
    return function (this: string, pattern: string | RegExp, replacement: unknown): string {
      if (!(pattern instanceof RegExp) || !pattern.global || typeof replacement !== "function") {
        return native.call(this, pattern, replacement as string);
      }
      let result = "";
      let end = 0;
      for (const match of this.matchAll(pattern)) {
        result += this.slice(end, match.index) + replacement(match[0]);
        end = match.index + match[0].length;
        checkLength(result.length);
      }
      return result + this.slice(end);
    };
  }
  Object.assign(String.prototype, {
    replace: bounded(replace as Replace),
    replaceAll: bounded(replaceAll as Replace),
  });

  const templates = new Map<string, jinja.Template>();
  parentPort!.on("message", ({ name, variables }: TemplateRequest) => {
    let reply: TemplateReply;
    try {
      // Not before: reading can take minutes (250,000 empty lines), and only a rendering has a time limit.
      const template = templates.get(name) ?? new Template(sources[name]!);
      templates.set(name, template);
      reply = { text: template.render(JSON.parse(variables)) };
    } catch (error) {
      // RangeError: the stack is too deep, a string too long.
      const limit = error instanceof LimitError || error instanceof RangeError;
      reply = { error: String((error as Error)?.message ?? error).slice(0, 1000), limit };
    }
    parentPort!.postMessage(reply);
  });
}

/** JavaScript to evaluate in a new worker. */
export const templateWorkerSource = `(${templateWorker})(require("node:worker_threads"), require)`;
