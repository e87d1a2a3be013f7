import { OutriderError } from "../errors.js";
import type { ChatMessage } from "../text/chat-template.js";
import { Generation, type Piece } from "./generation.js";
import type { GenerateOptions, Model } from "./model.js";

/**
 * A conversation. Each turn's prompt begins with all that was said, whose keys and values are still in the cache: only
 * the new message is processed.
 */
export class ChatSession {
  readonly #model: Model;
  readonly #options: Omit<GenerateOptions, "raw" | "signal">;
  #messages: readonly ChatMessage[] = [];
  #answering = false;

  /** @internal */
  constructor(model: Model, options: Omit<GenerateOptions, "raw" | "signal">) {
    this.#model = model;
    this.#options = options;
  }

  /** What was said so far, the system message not among it. */
  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  /**
   * Says something; the answer streams. An aborted answer stays in the conversation as far as it came; a turn that
   * fails, `ERR_CONTEXT` for one, was never said. Turns follow one another: an answer that begins while another is
   * under way, or after the conversation has gone on without it, fails with `ERR_BAD_REQUEST`.
   */
  send(content: string, options: { signal?: AbortSignal } = {}): Generation {
    const { system, ...rest } = this.#options;
    const head: ChatMessage[] = system === undefined ? [] : [{ role: "system", content: system }];
    const before = this.#messages;
    const said: ChatMessage[] = [...before, { role: "user", content }];
    const run = this.#model.generate([...head, ...said], { ...rest, signal: options.signal });
    return new Generation(run.partial, () => this.#answer(run, before, said));
  }

  async *#answer(
    run: Generation,
    before: readonly ChatMessage[],
    said: readonly ChatMessage[],
  ): AsyncGenerator<Piece, void, undefined> {
    if (this.#answering || this.#messages !== before)
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        "the conversation has another turn under way, or went on since this one was sent: send it again afterwards",
      );
    this.#answering = true;
    let failed = false;
    try {
      yield* run;
    } catch (error) {
      failed = !(error instanceof OutriderError && error.code === "ERR_ABORTED");
      throw error;
    } finally {
      this.#answering = false;
      // Not what a reset has forgotten meanwhile.
      if (!failed && this.#messages === before)
        this.#messages = [...said, { role: "assistant", content: run.partial.text }];
    }
  }

  /** Forgets what was said. */
  reset(): void {
    this.#messages = [];
  }
}
