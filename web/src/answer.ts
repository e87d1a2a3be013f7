import { type Signal, signal } from "@preact/signals";
import { type ChatRequest, type Chunk, type Logprob, type PassTrace, streamChat } from "./api.js";
import { acceptedPath, own, type Pass, rejectedDrafts, type Token } from "./passes.js";

export type Status = "waiting" | "streaming" | "done" | "length" | "stopped" | "failed";

/** An answer as it comes. Passes are added in place; `frame` moves at most once for each picture on the screen. */
export interface Answer {
  readonly request: ChatRequest;
  readonly passes: readonly Pass[];
  readonly frame: Signal<number>;
  readonly status: Signal<Status>;
  readonly content: () => string;
  readonly ids: () => readonly number[];
  /** Tokens per second of decoding: while it runs from the passes' times, then as the server measured. */
  readonly speed: () => number;
  readonly seed: () => number | undefined;
  readonly error: () => string;
  readonly ended: Promise<void>;
  stop(): void;
}

export const isRunning = ({ status }: Answer) => status.value === "waiting" || status.value === "streaming";

export function ask(request: ChatRequest): Answer {
  const abort = new AbortController();
  const passes: Pass[] = [];
  const frame = signal(0);
  const status = signal<Status>("waiting");
  const decoder = new TextDecoder();
  const ids: number[] = [];
  let content = "";
  let seed: number | undefined;
  let error = "";
  let ms = 0;
  let measured: number | undefined;

  let scheduled = 0;
  const show = () => {
    cancelAnimationFrame(scheduled);
    scheduled = 0;
    frame.value++;
  };

  function take({ choices: [choice], outrider, timings }: Chunk): Status | undefined {
    content += choice?.delta.content ?? "";
    seed = outrider?.seed ?? seed;
    measured = timings?.predicted_per_second || measured;
    if (outrider?.pass) {
      const added = addPass(outrider.pass, choice?.logprobs?.content ?? []);
      ids.push(...outrider.pass.tokens);
      ms += added.ms;
      passes.push(added);
      if (scheduled === 0) scheduled = requestAnimationFrame(show);
    }
    if (!choice?.finish_reason) return undefined;
    if (choice.finish_reason === "length") return "length";
    markEnd();
    return "done";
  }

  /** The control token that ended the answer is named by its bytes, and its text does not have it. */
  function markEnd(): void {
    const pass = passes.at(-1);
    const last = pass?.tokens.at(-1);
    if (!pass || !last || !/^<\S+>$/.test(last.text) || content.endsWith(last.text)) return;
    passes[passes.length - 1] = { ...pass, tokens: [...pass.tokens.slice(0, -1), { ...last, end: true }] };
  }

  function addPass(trace: PassTrace, said: readonly Logprob[]): Pass {
    const path = acceptedPath(trace);
    const tokens = trace.tokens.map((id, i): Token => {
      const { bytes, logprob } = said[i] ?? { bytes: [] };
      return {
        id,
        text: decoder.decode(new Uint8Array(bytes), { stream: true }),
        source: i < path.length ? trace.sources[path[i]!]! : own,
        probability: logprob === undefined ? undefined : Math.exp(logprob),
      };
    });
    return {
      index: passes.length,
      tokens,
      rejected: rejectedDrafts(trace),
      drafted: trace.drafted.length,
      accepted: trace.accepted,
      ms: trace.ms,
    };
  }

  async function run(): Promise<void> {
    let end: Status | undefined;
    try {
      for await (const chunk of streamChat(request, abort.signal)) {
        if (status.value === "waiting") status.value = "streaming";
        end = take(chunk) ?? end;
      }
      end ??= "done";
    } catch (reason) {
      end = abort.signal.aborted ? "stopped" : "failed";
      error = reason instanceof Error ? reason.message : String(reason);
    }
    show();
    status.value = end;
  }

  return {
    request,
    passes,
    frame,
    status,
    content: () => content,
    ids: () => ids,
    speed: () => measured ?? (ms > 0 ? (1000 * ids.length) / ms : 0),
    seed: () => seed,
    error: () => error,
    ended: run(),
    stop: () => abort.abort(),
  };
}
