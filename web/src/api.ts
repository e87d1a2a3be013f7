import { signal } from "@preact/signals";
import { readEvents } from "./sse.js";

// What of the server's API the playground uses: /openapi.json has the whole.

export interface PassTrace {
  readonly tokens: readonly number[];
  readonly drafted: readonly number[];
  readonly parents: readonly number[];
  readonly sources: readonly string[];
  readonly accepted: number;
  readonly ms: number;
}

export interface Logprob {
  readonly logprob: number;
  readonly bytes: readonly number[];
}

export interface Chunk {
  readonly choices: readonly {
    readonly delta: { readonly content?: string; readonly reasoning_content?: string };
    readonly logprobs: { readonly content: readonly Logprob[] } | null;
    readonly finish_reason: string | null;
  }[];
  readonly outrider?: { readonly pass?: PassTrace; readonly strategy?: string; readonly seed?: number };
  readonly timings?: {
    readonly predicted_per_second: number;
    readonly prompt_n: number;
    readonly prompt_ms: number;
    readonly cache_n: number;
  };
}

export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

export interface ChatRequest {
  readonly model: string | undefined;
  readonly messages: readonly Message[];
  readonly strategy: string;
  readonly temperature: number;
  readonly seed: number | undefined;
  readonly maxTokens: number;
}

export interface ModelInfo {
  readonly id: string;
  readonly loaded: boolean;
  readonly name?: string;
  readonly architecture?: string;
  readonly context?: number;
  readonly threads?: number;
  readonly instruction_set?: string;
  readonly memory_bytes: number;
  readonly restarts: number;
  readonly running: number;
  readonly waiting: number;
  readonly state?: {
    readonly rss: number;
    readonly passMs: readonly number[];
    readonly cache: { readonly positions: number; readonly used: number; readonly kept: number };
  };
}

export interface Info {
  readonly version: string;
  readonly strategies: readonly { readonly id: string; readonly summary: string; readonly needs: string }[];
  readonly models: readonly ModelInfo[];
  readonly load: { readonly running: number; readonly waiting: number };
}

const keyName = "outrider-api-key";
/** Of this tab alone: sessionStorage forgets it with the tab. */
export const apiKey = signal(sessionStorage.getItem(keyName) ?? "");
export const keyWanted = signal(false);

export function setApiKey(key: string): void {
  apiKey.value = key;
  if (key === "") sessionStorage.removeItem(keyName);
  else sessionStorage.setItem(keyName, key);
  keyWanted.value = false;
}

async function call(path: string, body?: unknown, abort?: AbortSignal): Promise<Response> {
  const response = await fetch(path, {
    ...(body !== undefined && { method: "POST", body: JSON.stringify(body) }),
    ...(abort && { signal: abort }),
    headers: {
      ...(body !== undefined && { "content-type": "application/json" }),
      ...(apiKey.value !== "" && { authorization: `Bearer ${apiKey.value}` }),
    },
  }).catch((error: unknown) => {
    if (abort?.aborted) throw error;
    throw new Error("The server cannot be reached. Is `outrider serve` running?");
  });
  if (response.ok) return response;
  if (response.status === 401) keyWanted.value = true;
  const told = await response.json().catch(() => undefined);
  throw new Error(told?.error?.message ?? `The server answered with status ${response.status}.`);
}

export const fetchInfo = async (abort?: AbortSignal): Promise<Info> =>
  (await call("/outrider/info", undefined, abort)).json();

/** The answer's chunks. Aborting makes it throw; the server stops within a pass. */
export async function* streamChat(request: ChatRequest, abort: AbortSignal): AsyncGenerator<Chunk> {
  const response = await call(
    "/v1/chat/completions",
    {
      ...(request.model !== undefined && { model: request.model }),
      messages: request.messages,
      temperature: request.temperature,
      ...(request.seed !== undefined && { seed: request.seed }),
      max_completion_tokens: request.maxTokens,
      stream: true,
      logprobs: true, // they carry each token's bytes: its text, without asking again
      outrider: { strategy: request.strategy, trace: true },
    },
    abort,
  );
  for await (const event of readEvents(response.body!)) {
    const { error } = event as { error?: { message: string } };
    if (error) throw new Error(error.message);
    yield event as Chunk;
  }
}

const texts = new Map<string, Promise<string>>();

/** A token's text; each is asked for once. */
export function tokenText(model: string | undefined, id: number): Promise<string> {
  const key = `${id} ${model ?? ""}`;
  let text = texts.get(key);
  if (text === undefined) {
    text = call("/detokenize", { ...(model !== undefined && { model }), tokens: [id] })
      .then((response) => response.json())
      .then(({ content }: { content: string }) => content);
    texts.set(key, text);
    text.catch(() => texts.delete(key));
  }
  return text;
}
