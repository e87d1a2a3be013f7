import { Seeded } from "./seeded.js";
import { eventsOf, type ServerProcess } from "./server.js";

/** A request whose answer is known beforehand, however it is asked. */
export interface Case {
  readonly route: "/v1/chat/completions" | "/v1/completions";
  readonly body: Readonly<Record<string, unknown>>;
}

/** What must be equal, bit for bit: the text, its tokens and their log-probabilities, and where it ended. */
export interface Answer {
  readonly text: string;
  readonly finish: string;
  readonly tokens: number;
  readonly logprobs: unknown;
}

const questions = [
  "Name three colours.",
  "Write a limerick about a fox.",
  "Count from one to twenty in words.",
  "Why is the sky blue? Explain it to a child.",
  "Repeat after me: the quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog.",
  "List the days of the week, then list them again in reverse order.",
];
const strategies = ["none", "lookup", "recycle", "auto"];

/** Requests of mixed lengths, seeds and routes. */
export function cases(count: number, seed: number): Case[] {
  const random = new Seeded(seed);
  return Array.from({ length: count }, (_, i) => {
    const question = `${questions[i % questions.length]} ${"Be brief. ".repeat(random.integer(0, 8))}`;
    const greedy = random.chance(0.3);
    const common = {
      max_tokens: random.pick([1, 4, 12, 24, 40]),
      temperature: greedy ? 0 : 0.9,
      seed: random.integer(0, 1_000_000),
      ...(random.chance(0.3) ? { stop: [" the", "\n\n"] } : undefined),
      ...(random.chance(0.2) ? { repetition_penalty: 1.1 } : undefined),
      ...(random.chance(0.2) ? { top_k: 20 } : undefined),
    };
    return random.chance(0.6)
      ? {
          route: "/v1/chat/completions",
          body: {
            ...common,
            messages: [{ role: "user", content: question }],
            logprobs: true,
            top_logprobs: 2,
          },
        }
      : { route: "/v1/completions", body: { ...common, prompt: question, logprobs: 2 } };
  });
}

/** How a case is asked: nothing of it may change the answer. */
export interface Manner {
  readonly stream: boolean;
  readonly strategy: string;
  readonly draftLength: number | undefined;
  /** Leave after so many events, or milliseconds. */
  readonly leave: number | undefined;
}

export const plainly: Manner = { stream: false, strategy: "none", draftLength: undefined, leave: undefined };

export function manner(random: Seeded): Manner {
  const strategy = random.pick(strategies);
  return {
    stream: random.chance(0.5),
    strategy,
    draftLength: strategy !== "none" && random.chance(0.3) ? random.integer(1, 8) : undefined,
    leave: random.chance(0.2) ? random.integer(1, 10) : undefined,
  };
}

export type Outcome = { answer: Answer } | { left: true } | { error: { status: number; code: string } };

interface Choice {
  readonly text?: string;
  readonly message?: { readonly content: string };
  readonly delta?: { readonly content?: string };
  readonly finish_reason: string | null;
  readonly logprobs: Record<string, unknown[]> | null;
}

/** Asks, and puts a stream together again. */
export async function ask(
  server: ServerProcess,
  { route, body }: Case,
  { stream, strategy, draftLength, leave }: Manner,
  timeoutMs = 120_000,
): Promise<Outcome> {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error("it hangs")), timeoutMs);
  let leaving: NodeJS.Timeout | undefined;
  let left = false;
  const go = () => {
    left = true;
    controller.abort();
  };
  try {
    if (leave !== undefined && !stream) leaving = setTimeout(go, leave * 10);
    const response = await server.post(
      route,
      {
        ...body,
        stream,
        ...(stream ? { stream_options: { include_usage: true } } : undefined),
        outrider: { strategy, draft_length: draftLength },
      },
      { signal: controller.signal },
    );
    if (response.status !== 200) {
      const { status, headers } = response;
      const body = await response.text();
      const code = codeOf(body);
      if (code === undefined)
        throw new Error(`not an error in JSON: ${JSON.stringify({ status, headers: [...headers], body })}`);
      return { error: { status, code } };
    }
    if (!stream) return { answer: answerOf([(await response.json()) as never]) };
    let text = "";
    let events = 0;
    const decoder = new TextDecoder();
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      text += decoder.decode(chunk, { stream: true });
      if (leave !== undefined && ++events >= leave) {
        go();
        return { left: true };
      }
    }
    const parsed = eventsOf(text);
    const failed = parsed.find((event) => "error" in event) as { error: { code: string } } | undefined;
    if (failed) return { error: { status: 200, code: failed.error.code } };
    if (!text.endsWith("data: [DONE]\n\n")) throw new Error(`a stream ended early: ${text.slice(-200)}`);
    return { answer: answerOf(parsed as never[]) };
  } catch (error) {
    if (left) return { left: true };
    throw error;
  } finally {
    clearTimeout(timer);
    clearTimeout(leaving);
  }
}

function codeOf(body: string): string | undefined {
  try {
    return (JSON.parse(body) as { error?: { code?: string } }).error?.code;
  } catch {
    return undefined;
  }
}

function answerOf(
  parts: readonly { choices: Choice[]; usage?: { completion_tokens: number } | null }[],
): Answer {
  const choices = parts.flatMap((part) => part.choices);
  const lists: Record<string, unknown[]> = {};
  for (const { logprobs } of choices)
    for (const [name, list] of Object.entries(logprobs ?? {}))
      lists[name] = [...(lists[name] ?? []), ...(list ?? [])];
  return {
    text: choices.map((c) => c.text ?? c.message?.content ?? c.delta?.content ?? "").join(""),
    finish: choices
      .map((c) => c.finish_reason)
      .filter((f) => f !== null)
      .join(),
    tokens: parts
      .map((part) => part.usage?.completion_tokens)
      .filter((n) => n !== undefined)
      .at(-1)!,
    logprobs: lists,
  };
}

/** Does the work of all items, so many at a time. */
export async function sideBySide<T>(
  items: readonly T[],
  most: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  await Promise.all(
    Array.from({ length: most }, async () => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
    }),
  );
}
