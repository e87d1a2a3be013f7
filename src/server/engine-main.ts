// The process of one model: loads it, then answers what the server sends. It knows nothing of HTTP. Whatever happens
// here, a crash of native code included, the server goes on.
import { load, type Model } from "../api/model.js";
import { OutriderError } from "../errors.js";
import { endsInReasoning } from "../text/tool-calls.js";
import {
  type CallName,
  type ChosenLogprob,
  type EngineCalls,
  type FromEngine,
  type Job,
  type ToEngine,
  type TokenLogprob,
  toWire,
  window,
} from "./protocol.js";

/**
 * Rows of a prompt in a pass: a request that comes waits for the pass under way, and chunks half as long as the library's
 * cost a long prompt one or two per cent.
 */
const prefillChunk = 192;
/** Enough of a prompt's end to see how it begins the answer. */
const tailTokens = 64;

const send = (message: FromEngine): void => {
  // Between the server's end and ours.
  if (process.connected) process.send!(message);
};

let model: Model | undefined;
const running = new Map<number, { controller: AbortController; credit: number; wake?: () => void }>();

// A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group; the server decides when this ends.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined);
process.on("disconnect", () => process.exit(0));
process.on("message", (message: ToEngine) => {
  switch (message.type) {
    case "load":
      void open(message.source);
      break;
    case "generate":
      void work(message.id, (signal) => generate(message.id, message.job, signal));
      break;
    case "call":
      void work(message.id, async (signal) => {
        const value = await call(message.name, message.request as never, signal);
        send({ type: "reply", id: message.id, value });
      });
      break;
    case "credit": {
      const entry = running.get(message.id);
      if (!entry) break;
      entry.credit += message.pieces;
      entry.wake?.();
      break;
    }
    case "abort": {
      const entry = running.get(message.id);
      entry?.controller.abort();
      entry?.wake?.();
      break;
    }
    case "ping":
      send({ type: "pong" });
      break;
    case "close":
      void close();
      break;
  }
});

async function open({ file, ...options }: Extract<ToEngine, { type: "load" }>["source"]): Promise<void> {
  try {
    model = await load(file, { ...options, prefillChunk });
    const hasTemplate = model.tokenizer.chatTemplates.size > 0;
    send({ type: "ready", info: { ...model.info, hasTemplate, toolCallFormat: model.toolCallFormat } });
  } catch (error) {
    send({ type: "failed", error: toWire(error) });
    process.disconnect();
  }
}

async function close(): Promise<void> {
  for (const { controller } of running.values()) controller.abort();
  await model?.close();
  process.disconnect();
}

async function work(id: number, action: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  running.set(id, { controller, credit: window });
  try {
    await action(controller.signal);
  } catch (error) {
    send({ type: "error", id, error: toWire(error) });
  } finally {
    running.delete(id);
  }
}

async function generate(id: number, job: Job, signal: AbortSignal): Promise<void> {
  const prompt = await promptTokens(job.prompt, signal);
  const tools = "messages" in job.prompt ? job.prompt.tools : undefined;
  const run = model!.generate(prompt, { ...job.options, tools, signal });
  let reasoning =
    job.reading && endsInReasoning(model!.detokenize(prompt.slice(-tailTokens), { special: true }));
  for await (const piece of run) {
    const { text, tokens, pass } = piece;
    const logprobs = job.logprobs ? chosen(piece.tokens, piece.logprobs, run.partial.topTokens) : undefined;
    send({ type: "piece", id, piece: { text, tokens, logprobs, pass, reasoning } });
    reasoning = undefined;
    await credit(id, signal);
  }
  const { promptTokens: ids, cachedTokens, tokens, finishReason, seed, strategy, stats } = run.partial;
  send({
    type: "done",
    id,
    result: {
      promptTokens: ids.length,
      cachedTokens,
      completionTokens: tokens.length,
      finishReason,
      seed,
      strategy,
      stats,
    },
  });
}

/** Waits until the server wants another piece: a client that reads slowly holds up its own text only. */
async function credit(id: number, signal: AbortSignal): Promise<void> {
  const entry = running.get(id)!;
  entry.credit--;
  while (entry.credit <= 0 && !signal.aborted)
    await new Promise<void>((resolve) => {
      entry.wake = resolve;
    });
}

/** `best`: those of all tokens so far, the piece's last. */
function chosen(
  tokens: readonly number[],
  logprobs: readonly number[],
  best: readonly (readonly (readonly [number, number])[])[],
): ChosenLogprob[] {
  const one = (id: number, logprob: number): TokenLogprob => ({ id, bytes: bytesOf(id), logprob });
  const first = best.length - tokens.length;
  return tokens.map((id, i) => ({
    ...one(id, logprobs[i]!),
    top: (best[first + i] ?? []).map(([other, logprob]) => one(other, logprob)),
  }));
}

/** A model's matrices may have more rows than its tokenizer has tokens. */
const bytesOf = (id: number): Uint8Array =>
  id < model!.tokenizer.vocabSize ? model!.tokenizer.bytes(id) : new Uint8Array(0);

async function promptTokens(prompt: Job["prompt"], signal?: AbortSignal): Promise<readonly number[]> {
  if ("tokens" in prompt) return model!.promptTokens(prompt.tokens);
  if ("text" in prompt) return model!.promptTokens(prompt.text, { raw: true, signal });
  const { messages, tools, variables } = prompt;
  return await model!.promptTokens(messages, { tools, templateOptions: variables, signal });
}

const calls: {
  [Name in CallName]: (
    request: Parameters<EngineCalls[Name]>[0],
    signal: AbortSignal,
  ) => ReturnType<EngineCalls[Name]> | Promise<ReturnType<EngineCalls[Name]>>;
} = {
  tokenize: ({ text, special, addBos }) => {
    const ids = model!.tokenize(text, { special });
    const { bosId } = model!.tokenizer;
    return addBos && bosId !== undefined && ids[0] !== bosId ? [bosId, ...ids] : ids;
  },
  tokenBytes: ({ tokens }) => tokens.map(bytesOf),
  detokenize: ({ tokens }) => model!.detokenize(tokens, { special: true }),
  promptTokens: ({ prompt }) => promptTokens(prompt),
  embed: async ({ input, pooling }, signal) => {
    const tokens = typeof input === "string" ? await promptTokens({ text: input }) : input;
    return { vector: await model!.embed(tokens, { pooling, signal }), tokens: tokens.length };
  },
  state: () => ({
    rss: process.memoryUsage.rss(),
    passMs: model!.passCosts,
    cache: model!.cacheUsage,
  }),
};

function call(name: CallName, request: never, signal: AbortSignal): unknown {
  if (!model) throw new OutriderError("ERR_LOADING", "the model is not loaded yet");
  return calls[name](request, signal);
}
