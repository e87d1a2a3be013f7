import pLimit from "p-limit";
import { z } from "zod";
import { Generation } from "../api/generation.js";
import { rejectUnknownKeys, wholeNumber } from "../api/options.js";
import { bestOf, majorityVote, mostSamples, sampleSeeds, type Vote } from "../api/samples.js";
import { OutriderError } from "../errors.js";
import {
  type Added,
  bodyOf,
  checkRequest,
  readEvent,
  sumOf,
  type UpstreamOptions,
  type UpstreamPrompt,
  type Usage,
} from "./chat.js";
import { events, requester, type ServerOptions } from "./http.js";
import { joined, pointPrompt, pointsOf, skeletonPrompt } from "./plan.js";
import { withRetries } from "./retry.js";

export interface ConnectOptions extends ServerOptions {
  /** What the engine calls the model; default: the first that it lists. */
  readonly model?: string;
  /** Most requests at a time, 1 to 1024; others wait. Default 16. */
  readonly parallel?: number;
  /** How often a request is sent again that the engine answers with 429 or 503, 0 to 100. Default 4. */
  readonly retries?: number;
}

export interface UpstreamPiece {
  readonly text: string;
  readonly logprobs: readonly number[];
}

export interface UpstreamResult {
  text: string;
  /** Natural logarithms, one a token; none unless asked for. */
  logprobs: number[];
  finishReason: "stop" | "length" | "abort";
  seed: number;
}

/** One answer, and what it took: zeros where the engine does not say. */
export interface UpstreamAnswer extends UpstreamResult {
  usage: Usage;
}

export interface UpstreamSampleOptions extends UpstreamOptions {
  /** 1 to 64; more than one need a temperature. */
  readonly n: number;
}

export interface UpstreamSamples {
  /** In the order of their seeds. */
  readonly results: readonly UpstreamResult[];
  /** Of all requests together. */
  readonly usage: Usage;
}

export interface Plan {
  /** The numbered points, each with its text; without points the plain answer. */
  readonly text: string;
  readonly points: readonly { readonly point: string; readonly text: string }[];
  readonly usage: Usage;
}

/**
 * An engine elsewhere. Errors have the code of their cause: what the engine says (`ERR_BAD_REQUEST`, `ERR_CONTEXT`,
 * `ERR_AUTH`, `ERR_NOT_FOUND`, `ERR_BUSY`, …), `ERR_UPSTREAM` where it cannot be reached, fails, or breaks off;
 * `ERR_ABORTED` for the signal.
 */
export interface Upstream {
  /** One answer: iterate over the pieces, or await `result`. It holds one of `parallel` places until it is over. */
  generate(prompt: UpstreamPrompt, options?: UpstreamOptions): Generation<UpstreamPiece, UpstreamAnswer>;
  /**
   * Several answers, with the seeds `seed`, `seed + 1`, …: by the engine's own `n`, which shares the prompt; what the
   * engine does not give that way is asked for in parallel, one by one. One that fails ends them all.
   */
  samples(prompt: UpstreamPrompt, options: UpstreamSampleOptions): Promise<UpstreamSamples>;
  /** Of several answers the one with the highest mean log-probability; `ERR_UPSTREAM` where the engine gives none. */
  bestOf(
    prompt: UpstreamPrompt,
    options: UpstreamSampleOptions,
  ): Promise<UpstreamSamples & { readonly best: UpstreamResult }>;
  /** What most of several answers say; `extract` as in `majorityVote` of the package itself. */
  majorityVote(
    prompt: UpstreamPrompt,
    options: UpstreamSampleOptions & { readonly extract?: (result: UpstreamResult) => string | undefined },
  ): Promise<UpstreamSamples & { readonly vote: Vote<UpstreamResult> | undefined }>;
  /**
   * Skeleton-of-thought: a list of points first, then a request for each, in parallel. Sooner done, but not the text
   * that the model gives when it writes from the beginning to the end: points do not know of each other. Where the
   * model gives no list, the plain answer. `maxTokens` holds for each request. `mostPoints`: 1 to 64, default 10.
   */
  plan(prompt: UpstreamPrompt, options?: UpstreamOptions & { readonly mostPoints?: number }): Promise<Plan>;
}

const nothing: Usage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };

/** Connects to an engine that speaks OpenAI's API: vLLM, SGLang, llama.cpp's server, `outrider serve`. Sends nothing yet. */
export function connect(options: ConnectOptions): Upstream {
  rejectUnknownKeys("connect", options, ["baseURL", "apiKey", "fetch", "model", "parallel", "retries"]);
  const request = requester(options);
  const limit = pLimit(wholeNumber("parallel", options.parallel ?? 16, 1, 1024));
  const retries = wholeNumber("retries", options.retries ?? 4, 0, 100);
  /** The engine does not give so many answers, or more, to one request. */
  let tooMany = Number.POSITIVE_INFINITY;

  /** Resolves with the function that gives the place back. */
  const place = (signal?: AbortSignal) =>
    new Promise<() => void>((grant, refuse) => {
      const leave = () => refuse(signal?.reason);
      signal?.addEventListener("abort", leave, { once: true });
      void limit(async () => {
        if (signal?.aborted) return;
        signal?.removeEventListener("abort", leave);
        await new Promise<void>((release) => grant(release));
      });
      if (signal?.aborted) leave();
    });

  let listed: Promise<string> | undefined;
  const model = () => {
    listed ??= options.model === undefined ? firstModel(request, retries) : Promise.resolve(options.model);
    listed.catch(() => {
      listed = undefined;
    });
    return listed;
  };

  /** `n` answers at most, as they come; returns what they took. */
  async function* answers(
    prompt: UpstreamPrompt,
    options: UpstreamOptions,
    n: number,
  ): AsyncGenerator<Added, Usage, undefined> {
    // One of its own for each request: listeners of hundreds on one signal would be taken for a leak.
    const signal = options.signal && AbortSignal.any([options.signal]);
    let usage = nothing;
    try {
      const release = await place(signal);
      try {
        const body = bodyOf(await model(), prompt, options, n);
        signal?.throwIfAborted();
        const response = await withRetries(
          () => request("chat/completions", { body, signal }),
          retries,
          signal,
        );
        for await (const event of events("chat/completions", response, signal)) {
          const read = readEvent(event, n);
          usage = read.usage ?? usage;
          yield* read.added;
        }
        return usage;
      } finally {
        release();
      }
    } catch (error) {
      if (!signal?.aborted) throw error;
      throw new OutriderError("ERR_ABORTED", "the signal ended the request", { cause: error });
    }
  }

  /** Those of `n` answers that the engine gave, by index. */
  async function collect(prompt: UpstreamPrompt, options: UpstreamOptions, seeds: readonly number[]) {
    const results = seeds.map(newResult);
    const done = new Set<number>();
    const stream = answers(prompt, { ...options, seed: seeds[0]! }, seeds.length);
    let step = await stream.next();
    for (; !step.done; step = await stream.next()) {
      add(results[step.value.index]!, step.value);
      if (step.value.finishReason) done.add(step.value.index);
    }
    return { results: results.map((result, i) => (done.has(i) ? result : undefined)), usage: step.value };
  }

  async function single(prompt: UpstreamPrompt, options: UpstreamOptions): Promise<UpstreamAnswer> {
    const { results, usage } = await collect(prompt, options, [options.seed ?? 0]);
    if (results[0]) return { ...results[0], usage };
    throw unfinished();
  }

  const engine: Upstream = {
    generate(prompt, options = {}) {
      checkRequest("generate", prompt, options);
      const partial: UpstreamAnswer = { ...newResult(options.seed ?? 0), usage: nothing };
      return new Generation(partial, async function* () {
        const stream = answers(prompt, options, 1);
        let over = false;
        try {
          let step = await stream.next();
          for (; !step.done; step = await stream.next()) {
            add(partial, step.value);
            over ||= step.value.finishReason !== undefined;
            yield { text: step.value.text, logprobs: step.value.logprobs };
          }
          partial.usage = step.value;
        } finally {
          await stream.return(nothing);
        }
        if (!over) throw unfinished();
      });
    },

    async samples(prompt, given) {
      checkRequest("samples", prompt, given, ["n"]);
      const { n, ...options } = given;
      wholeNumber("n", n, 1, mostSamples);
      if (n > 1 && !(options.temperature ?? 0))
        throw new OutriderError(
          "ERR_BAD_REQUEST",
          `temperature is 0: all ${n} samples would be the same text. Give a temperature above 0`,
          { param: "temperature" },
        );
      const seeds = sampleSeeds(n, "independent", options.seed ?? 0).map(({ seed }) => seed);
      const usages: Usage[] = [];
      const results: (UpstreamResult | undefined)[] = seeds.map(() => undefined);
      const one = async (i: number, signal?: AbortSignal) => {
        const { usage, ...result } = await single(prompt, { ...options, seed: seeds[i]!, signal });
        usages.push(usage);
        results[i] = result;
      };
      if (n < tooMany) {
        const refused = (error: unknown) => {
          if (n > 1 && error instanceof OutriderError && error.code === "ERR_BAD_REQUEST") return undefined;
          throw error;
        };
        const together = await collect(prompt, options, seeds).catch(refused);
        if (together) usages.push(together.usage);
        together?.results.forEach((result, i) => {
          results[i] = result;
        });
        // Whether it was n that the engine refused, the first sample tells alone.
        if (!together) await one(0, options.signal);
        if (results.includes(undefined)) tooMany = together ? 2 : n;
      }
      const missing = [...results.keys()].filter((i) => results[i] === undefined);
      await allOrNone(
        missing.map((i) => (signal) => one(i, signal)),
        options.signal,
      );
      return { results: results as UpstreamResult[], usage: sumOf(usages) };
    },

    async bestOf(prompt, options) {
      const samples = await engine.samples(prompt, { ...options, logprobs: true });
      if (samples.results.some(({ text, logprobs }) => text !== "" && logprobs.length === 0))
        throw new OutriderError(
          "ERR_UPSTREAM",
          "bestOf: the engine gives no log-probabilities to choose by; use majorityVote, or samples",
        );
      return { ...samples, best: bestOf(samples.results) };
    },

    async majorityVote(prompt, { extract, ...options }) {
      const samples = await engine.samples(prompt, options);
      return { ...samples, vote: majorityVote(samples.results, extract) };
    },

    async plan(prompt, { mostPoints: most, ...options } = {}) {
      checkRequest("plan", prompt, options);
      const mostPoints = wholeNumber("mostPoints", most ?? 10, 1, 64);
      const skeleton = await single(skeletonPrompt(prompt, mostPoints), options);
      const titles = pointsOf(skeleton.text, mostPoints);
      if (titles.length === 0) {
        const { text, usage } = await single(prompt, options);
        return { text, points: [], usage: sumOf([skeleton.usage, usage]) };
      }
      const expanded = await allOrNone(
        titles.map((_, i) => (signal) => single(pointPrompt(prompt, titles, i), { ...options, signal })),
        options.signal,
      );
      const points = titles.map((point, i) => ({ point, text: expanded[i]!.text }));
      return {
        text: joined(points),
        points,
        usage: sumOf([skeleton, ...expanded].map(({ usage }) => usage)),
      };
    },
  };
  return engine;
}

const newResult = (seed: number): UpstreamResult => ({ text: "", logprobs: [], finishReason: "stop", seed });

function add(result: UpstreamResult, { text, logprobs, finishReason }: Added): void {
  result.text += text;
  result.logprobs.push(...logprobs);
  result.finishReason = finishReason ?? result.finishReason;
}

function unfinished(): OutriderError {
  return new OutriderError("ERR_UPSTREAM", "the engine ended its stream without ending the answer");
}

/** Runs jobs side by side; the first that fails ends the others. */
async function allOrNone<T>(
  jobs: readonly ((signal: AbortSignal) => Promise<T>)[],
  signal?: AbortSignal,
): Promise<T[]> {
  const stop = new AbortController();
  const either = AbortSignal.any([stop.signal, ...(signal ? [signal] : [])]);
  try {
    return await Promise.all(jobs.map((job) => job(either)));
  } catch (error) {
    stop.abort();
    throw error;
  }
}

async function firstModel(request: ReturnType<typeof requester>, retries: number): Promise<string> {
  const response = await withRetries(() => request("models"), retries);
  const list = z.object({ data: z.array(z.object({ id: z.string() })).min(1) });
  const { data } = list.safeParse(await response.json().catch(() => undefined));
  if (data) return data.data[0]!.id;
  throw new OutriderError("ERR_UPSTREAM", "models: the server lists none; give the model's name", {
    param: "model",
  });
}
