import type { ChatMessage } from "../text/chat-template.js";
import { Generation } from "./generation.js";
import type { GenerateOptions, Model } from "./model.js";

/**
 * A conversation. Each turn's prompt begins with all that was said, whose keys and values are still in the cache: only
 * the new message is processed.
 */
export class ChatSession {
  readonly #model: Model;
  readonly #options: Omit<GenerateOptions, "raw" | "signal">;
  #messages: ChatMessage[] = [];

  /** @internal */
  constructor(model: Model, options: Omit<GenerateOptions, "raw" | "signal">) {
    this.#model = model;
    this.#options = options;
  }

  /** What was said so far, the system message not among it. */
  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  /** Says something; the answer streams. An aborted answer stays in the conversation as far as it came. */
  send(content: string, options: { signal?: AbortSignal } = {}): Generation {
    const { system, ...rest } = this.#options;
    const head: ChatMessage[] = system === undefined ? [] : [{ role: "system", content: system }];
    const said: ChatMessage[] = [...this.#messages, { role: "user", content }];
    const run = this.#model.generate([...head, ...said], { ...rest, signal: options.signal });
    const remember = () => {
      this.#messages = [...said, { role: "assistant", content: run.partial.text }];
    };
    return new Generation(run.partial, async function* () {
      try {
        yield* run;
      } finally {
        remember();
      }
    });
  }

  /** Forgets what was said. */
  reset(): void {
    this.#messages = [];
  }
}
