import path from "node:path";
import { fileURLToPath } from "node:url";
import { Siblings } from "../decoding/consensus.js";
import { CostModel, pastCost } from "../decoding/cost-model.js";
import { type DecodedStep, decode, type Verification } from "../decoding/decode.js";
import { vocabularyMismatch } from "../decoding/draft-model.js";
import { DraftMemory } from "../decoding/memory.js";
import { newStats } from "../decoding/stats.js";
import { openStrategy, type Strategy, strategyNames } from "../decoding/strategies.js";
import type { Pooling } from "../engine/embedder.js";
import { Engine, type EngineOptions } from "../engine/engine.js";
import { resolveSampling, type Sampling, type SamplingOptions } from "../engine/sampling.js";
import type { Sequence } from "../engine/sequence.js";
import { OutriderError, quote } from "../errors.js";
import {
  type Constraint,
  constraint,
  type Guide,
  type GuideState,
  type GuideVocabulary,
  guideNetwork,
  guideVocabulary,
} from "../guided/constraint.js";
import type { ModelConfig } from "../models/architecture.js";
import {
  type ChatMessage,
  ChatTemplate,
  checkMessages,
  encodeChat,
  messageText,
} from "../text/chat-template.js";
import { fallbackTemplate } from "../text/fallback-template.js";
import { TextStream } from "../text/text-stream.js";
import { type Tokenizer, tokenizerFromMetadata } from "../text/tokenizer.js";
import { tokenizerFromJson } from "../text/tokenizer-json.js";
import { answerMarks, type ToolCallFormat, toolCallFormat } from "../text/tool-calls.js";
import type { ModelSource } from "../weights/model-source.js";
import { openModelSource } from "../weights/open-model-source.js";
import type { Quantization } from "../weights/quantise.js";
import { ChatSession } from "./chat.js";
import { Generation, type GenerationResult, type Piece } from "./generation.js";
import { cacheFolder, LearnedFile } from "./learned-file.js";
import { type LocateOptions, locateModel } from "./locate-model.js";
import { modelName } from "./model-name.js";
import { checkSignal, checkTokens, rejectUnknownKeys, wholeNumber } from "./options.js";
import { mostSamples, type SampleSpread, sampleSeeds } from "./samples.js";
import { type ScoreOptions, type ScoreResult, score } from "./score.js";
import { type TuneProgress, type TuneResult, tuneLayers } from "./tune.js";
import { readTuned, tunedFile, writeTuned } from "./tuned-file.js";

/** SmolLM2-135M-Instruct, Q4_1, Apache-2.0: lies beside the code, so that the first call needs no network. */
export const embeddedModel = path.resolve(
  path.dirname(fileURLToPath(import.meta.url)),
  "../../models/SmolLM2-135M-Instruct.Q4_1.gguf",
);

export interface LoadOptions extends EngineOptions, LocateOptions {
  /** A smaller model of the same vocabulary that drafts for this one: a path, or a loaded model, which stays yours. */
  readonly draftModel?: string | Model | undefined;
  /**
   * Pack weights that the file has in F32, F16 or BF16 in blocks of 8 or 4 bits: "q8_0", "q4_1", or "none" to run them
   * as they are. Default: "q8_0" for safetensors, "none" for GGUF files.
   */
  readonly quantize?: Quantization | undefined;
  /**
   * Keep what drafting learns from this model's texts (counts of short token sequences) in the user's cache folder, so
   * that the next process drafts better; never changes the output. Default true.
   */
  readonly learn?: boolean | undefined;
}

const loadKeys = [
  "threads",
  "instructionSet",
  "context",
  "precise",
  "prefillChunk",
  "sequences",
  "onProgress",
  "draftModel",
  "quantize",
  "memoryLimit",
  "offline",
  "onDownload",
  "learn",
];

export interface GenerateOptions extends SamplingOptions {
  /** Emit at most so many tokens; default: what the context holds. */
  readonly maxTokens?: number | undefined;
  /** How drafts are made; never changes the output. Default "auto". */
  readonly strategy?: Strategy | undefined;
  /** Draft exactly so many tokens a pass, 1 to 32, rather than as many as pay. */
  readonly draftLength?: number | undefined;
  /** The system message, for a prompt that is a string. */
  readonly system?: string | undefined;
  /** Take the prompt as it is: no chat template. */
  readonly raw?: boolean | undefined;
  /**
   * Descriptions of the tools that the model may call, at most 128: `{ type: "function", function: { name,
   * description, parameters } }`, the latter a JSON schema. An `AnswerParser` finds the calls in the answer's text.
   */
  readonly tools?: readonly object[] | undefined;
  /** Whether a model that can think before it answers does; default: as its template has it. */
  readonly thinking?: boolean | undefined;
  /** More variables of the model's chat template, JSON values. */
  readonly templateOptions?: Readonly<Record<string, unknown>> | undefined;
  /** The text ends before the first of these strings; they may span tokens. At most 16 of at most 256 bytes. */
  readonly stop?: string | readonly string[] | undefined;
  /**
   * What the answer must be: `{ json: true }` (an object), `{ json: schema }`, `{ regex }` (the whole answer) or
   * `{ grammar }`. Every token is one that the guide allows, whatever the strategy; it holds as far as `maxTokens` lets
   * the text go. Throws `ERR_GRAMMAR` for what cannot be enforced.
   */
  readonly guide?: Guide | undefined;
  /** Give the `top` most likely tokens beside every token, 0 (default) to 64. */
  readonly top?: number | undefined;
  /**
   * How drafts are judged at a temperature. "coupled" (default): a seed's text is the same whatever was drafted.
   * "rejection": classic speculative sampling, which keeps the texts' distribution only.
   */
  readonly verify?: Verification | undefined;
  /** Say with every piece what its pass drafted, and where the guesses came from; default false. */
  readonly trace?: boolean | undefined;
  /** Go on after an end-of-text token; default false. */
  readonly ignoreEnd?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface SampleOptions extends Omit<GenerateOptions, "code"> {
  /** How many, 1 to 64. */
  readonly n: number;
  /**
   * "independent" (default): sample i is the text of seed + i. "arithmetic": codes spread evenly over the unit interval
   * draw them, so that together they cover what the model may say more evenly, and likely texts do not crowd out others.
   */
  readonly spread?: SampleSpread | undefined;
}

const generateKeys = Object.keys({
  temperature: true,
  topK: true,
  topP: true,
  minP: true,
  repetitionPenalty: true,
  presencePenalty: true,
  frequencyPenalty: true,
  logitBias: true,
  seed: true,
  code: true,
  maxTokens: true,
  strategy: true,
  draftLength: true,
  system: true,
  raw: true,
  tools: true,
  thinking: true,
  templateOptions: true,
  stop: true,
  guide: true,
  top: true,
  verify: true,
  trace: true,
  ignoreEnd: true,
  signal: true,
} satisfies Record<keyof GenerateOptions, true>);

export interface TuneOptions {
  /** What the model answers, to be compared with; at least one, better a dozen. */
  readonly prompts: readonly Prompt[];
  /** Time for the search, without what writing the answers takes; default 60. */
  readonly seconds?: number | undefined;
  /** Of each answer; default 96. */
  readonly maxTokens?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: TuneProgress) => void) | undefined;
}

/** What the samples of one prompt have in common. */
interface SampleGroup {
  readonly siblings: Siblings;
  /** Over once the prompt is in the cache. */
  prompt: Promise<void> | undefined;
}

interface Resolved {
  readonly strategy: Strategy;
  readonly stop: readonly string[];
  readonly draftLength: number | undefined;
  readonly maxTokens: number;
  readonly top: number;
  readonly sampling: Sampling;
  readonly guide: GuideState | undefined;
}

const maxConstraints = 16;
// Memory for so many tokens is reserved where a text may grow without limit, or very long.
const usualAnswer = 1024;
// Strategies that keep counts of what the model says.
const learners: readonly Strategy[] = ["ngram", "auto"];

// No ordinary text has more characters a token than this.
const charactersPerToken = 8;

export type PromptOptions = Pick<
  GenerateOptions,
  "raw" | "system" | "tools" | "thinking" | "templateOptions" | "signal"
>;

export type Prompt = string | readonly ChatMessage[] | readonly number[];

export interface ModelInfo {
  readonly file: string;
  /** Of the file, the folder or the repository. */
  readonly name: string;
  readonly architecture: string;
  readonly config: ModelConfig;
  /** Most positions of one text. */
  readonly context: number;
  readonly threads: number;
  readonly instructionSet: string;
  /** Bytes: packed weights, and the cache of one full context. */
  readonly memory: { readonly weights: number; readonly cache: number };
  readonly precise: boolean;
  /** What was noticed in the file and tolerated. */
  readonly warnings: readonly string[];
}

/**
 * Loads a model: the embedded one, a GGUF file, a folder with safetensors, or `hf:OWNER/REPO[:FILE|:QUANT]` on the hub,
 * which is fetched where it is not in the cache yet. Throws `ERR_PATH`, `ERR_DOWNLOAD`, `ERR_MODEL_*`, `ERR_TOKENIZER`,
 * `ERR_TEMPLATE`, `ERR_DRAFT_MISMATCH`, `ERR_BAD_REQUEST`, `ERR_PLATFORM`.
 */
export async function load(source: string = embeddedModel, options: LoadOptions = {}): Promise<Model> {
  rejectUnknownKeys("load", options, loadKeys);
  if (typeof source !== "string")
    throw new OutriderError(
      "ERR_BAD_REQUEST",
      "load: the model is no text, expected a path or hf:OWNER/REPO",
    );
  const { draftModel } = options;
  if (!(draftModel === undefined || typeof draftModel === "string" || draftModel instanceof Model))
    throw new OutriderError("ERR_BAD_REQUEST", "draftModel is neither a path nor a loaded model", {
      param: "draftModel",
    });
  const model = await Model.open(await locateModel(source, options), options, source);
  try {
    if (typeof draftModel === "string") {
      const rest = { ...options, draftModel: undefined, onProgress: undefined, context: undefined };
      model.attachDraft(await load(draftModel, rest), true);
    } else if (draftModel) model.attachDraft(draftModel, false);
    return model;
  } catch (error) {
    await model.close();
    throw error;
  }
}

export function openTokenizer(source: ModelSource): Tokenizer {
  if (source.format === "GGUF") return tokenizerFromMetadata(source.metadata);
  if (source.tokenizer === undefined)
    throw new OutriderError("ERR_TOKENIZER", `${source.path}: the folder has no tokenizer.json`);
  const { tokenizer, config, chatTemplate, endIds } = source.tokenizer;
  return tokenizerFromJson(tokenizer, config, chatTemplate, endIds);
}

/**
 * A loaded model. Close it, or let `await using` do so. Generations may run side by side: a pass goes over all texts that
 * wait for one. One whose prompt and `maxTokens` do not fit the cache beside those under way waits until they do.
 */
export class Model implements AsyncDisposable {
  readonly info: ModelInfo;
  readonly tokenizer: Tokenizer;
  readonly #engine: Engine;
  /** How the model writes calls of tools. */
  readonly toolCallFormat: ToolCallFormat;
  readonly #template: ChatTemplate;
  /** Control tokens that are written out in answers where there are tools. */
  readonly #marks: ReadonlySet<number>;
  readonly #costs: CostModel;
  #memory: DraftMemory;
  readonly #learned: LearnedFile;
  readonly #tunedFile: string | undefined;
  /** Guides that were asked for lately, with all their masks so far. */
  readonly #constraints = new Map<string, Constraint>();
  #guideVocabulary: GuideVocabulary | undefined;
  #draft: { model: Model; owned: boolean } | undefined;

  private constructor(
    engine: Engine,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    info: ModelInfo,
    memory: DraftMemory,
    learned: LearnedFile,
    tuned: string | undefined,
  ) {
    this.#engine = engine;
    this.#memory = memory;
    this.#learned = learned;
    this.#tunedFile = tuned;
    this.tokenizer = tokenizer;
    this.#template = template;
    this.toolCallFormat = toolCallFormat([...template.sources.values()].join("\n"));
    this.#marks = new Set(
      answerMarks.flatMap((mark) => {
        const [id, ...more] = tokenizer.encode(mark, { special: true });
        return id !== undefined && more.length === 0 && tokenizer.isControl(id) ? [id] : [];
      }),
    );
    this.info = info;
    const { layers, numKvHeads, headDim, width } = info.config;
    const kvBytes = layers * numKvHeads * headDim * (info.precise ? 8 : 4);
    const past = pastCost(kvBytes, 2 * layers * width, info.memory.weights, info.instructionSet);
    this.#costs = new CostModel(64, past);
  }

  /** @internal */
  static async open(file: string, options: LoadOptions, source = file): Promise<Model> {
    await using weights = await openModelSource(file, options.quantize);
    const memory = new DraftMemory();
    const folder = cacheFolder();
    // Unpacked on another thread while this one makes the tokenizer.
    const learned = await LearnedFile.open(memory, weights, options.learn === false ? undefined : folder);
    const tokenizer = openTokenizer(weights);
    const fallback = tokenizer.chatTemplates.size === 0 ? fallbackTemplate(tokenizer) : undefined;
    const template = new ChatTemplate(fallback?.template ?? tokenizer.chatTemplates);
    let engine: Engine | undefined;
    try {
      await learned.fill(tokenizer.vocabSize);
      engine = await Engine.load(weights, options);
      if (tokenizer.vocabSize > engine.config.vocab)
        throw new OutriderError(
          "ERR_TOKENIZER",
          `${file}: the tokenizer has ${tokenizer.vocabSize} tokens, the model ${engine.config.vocab}`,
        );
      const tuned = folder && (await tunedFile(weights, folder));
      const kept = tuned && (await readTuned(tuned, engine.config.layers));
      if (kept) engine.draftLayers = kept;
      const info = {
        file,
        name: modelName(source, file),
        architecture: String(weights.metadata.get("general.architecture")),
        config: engine.config,
        context: engine.context,
        threads: engine.core.threads,
        instructionSet: engine.core.instructionSet,
        memory: engine.memory,
        precise: options.precise ?? false,
        warnings: fallback === undefined ? tokenizer.warnings : [...tokenizer.warnings, fallback.warning],
      };
      return new Model(engine, tokenizer, template, info, memory, learned, tuned);
    } catch (error) {
      await engine?.[Symbol.asyncDispose]();
      template.close();
      throw error;
    }
  }

  /** @internal */
  attachDraft(draft: Model, owned: boolean): void {
    const mismatch = vocabularyMismatch(this.tokenizer, draft.tokenizer);
    if (mismatch !== undefined) {
      if (owned) void draft.close();
      throw new OutriderError(
        "ERR_DRAFT_MISMATCH",
        `${draft.info.file} cannot draft for ${this.info.file}: ${mismatch}`,
      );
    }
    this.#draft = { model: draft, owned };
  }

  /**
   * Generates a continuation. A string is one user message and goes through the chat template (unless `raw`), messages
   * do too, token ids are used as they are. Iterate over the pieces, or await `result`.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    rejectUnknownKeys("generate", options, generateKeys);
    return this.#generation(prompt, options);
  }

  /**
   * Several continuations of one prompt, each the same as it is when drawn alone with the seed, and the code where there
   * is one, that its result tells. Those that are advanced side by side share passes, the prompt is computed once, and
   * each is drafted for by what the others have written. `bestOf` and `majorityVote` choose among their results.
   */
  samples(prompt: Prompt, options: SampleOptions): Generation[] {
    const { n, spread = "independent", ...rest } = options;
    rejectUnknownKeys("samples", options, ["n", "spread", ...generateKeys.filter((key) => key !== "code")]);
    wholeNumber("n", n, 1, mostSamples);
    if (spread !== "independent" && spread !== "arithmetic")
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `spread is ${quote(String(spread))}, expected independent or arithmetic`,
        { param: "spread" },
      );
    const { sampling } = this.#resolve(rest);
    if (n > 1 && sampling.temperature === 0)
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `temperature is 0: all ${n} samples would be the same text. Give a temperature above 0`,
        { param: "temperature" },
      );
    const group = { siblings: new Siblings(), prompt: undefined };
    return sampleSeeds(n, spread, sampling.seed).map(({ seed, code }) =>
      this.#generation(prompt, { ...rest, seed, code }, group),
    );
  }

  #generation(prompt: Prompt, options: GenerateOptions, group?: SampleGroup): Generation {
    const resolved = this.#resolve(options);
    const result: GenerationResult = {
      promptTokens: [],
      tokens: [],
      logprobs: [],
      topTokens: [],
      text: "",
      finishReason: "length",
      seed: resolved.sampling.seed,
      ...(resolved.sampling.code === undefined ? undefined : { code: resolved.sampling.code }),
      strategy: resolved.strategy,
      stats: newStats(),
      cachedTokens: 0,
      warnings: this.info.warnings,
    };
    return new Generation(result, () => this.#run(prompt, options, resolved, result, group));
  }

  /**
   * @internal What drafting knows. Benchmarks give each strategy and repetition its own: who wrote an answer before
   * knows it.
   */
  get draftMemory(): DraftMemory {
    return this.#memory;
  }
  set draftMemory(memory: DraftMemory) {
    this.#memory = memory;
  }

  /** A conversation that remembers what was said. */
  chat(options: Omit<GenerateOptions, "raw" | "signal"> = {}): ChatSession {
    rejectUnknownKeys("chat", options, generateKeys);
    this.#resolve(options);
    return new ChatSession(this, options);
  }

  /**
   * Searches the layers that strategy `self` leaves out: those without which the model still says most of what it says
   * in its own greedy answers, for their cost. The choice counts from now on, and is kept in the user's cache folder for
   * this model's next processes. It never changes the output.
   */
  async tune(options: TuneOptions): Promise<TuneResult> {
    rejectUnknownKeys("tune", options, ["prompts", "seconds", "maxTokens", "signal", "onProgress"]);
    const { prompts, seconds = 60, maxTokens = 96, signal, onProgress } = options;
    if (!(typeof seconds === "number" && seconds > 0))
      throw new OutriderError("ERR_BAD_REQUEST", `seconds is ${seconds}, expected a number above 0`, {
        param: "seconds",
      });
    wholeNumber("maxTokens", maxTokens, 2, this.info.context);
    const raw = this.tokenizer.chatTemplate === undefined;
    const texts = [];
    for (const prompt of prompts) {
      const { promptTokens, tokens } = await this.generate(prompt, { maxTokens, raw, signal }).result;
      texts.push({ prompt: promptTokens, answer: tokens });
    }
    const found = await tuneLayers(this.#engine, texts, { seconds, signal, onProgress });
    const file = this.#tunedFile;
    const stored =
      file !== undefined &&
      (await writeTuned(file, found.kept).then(
        () => true,
        () => false,
      ));
    return { ...found, file: stored ? file : undefined };
  }

  /** Log-probabilities of given tokens after a prompt, in one go. */
  score(options: ScoreOptions): Promise<ScoreResult> {
    rejectUnknownKeys("score", options, ["prompt", "tokens", "top", "signal"]);
    const vocab = this.info.config.vocab;
    const prompt =
      typeof options.prompt === "string"
        ? this.#beginning(this.tokenize(options.prompt))
        : checkTokens("prompt", options.prompt, vocab);
    const tokens =
      typeof options.tokens === "string"
        ? this.tokenize(options.tokens)
        : checkTokens("tokens", options.tokens, vocab);
    const top = wholeNumber("top", options.top ?? 0, 0, 64);
    checkSignal(options.signal);
    return score(this.#engine, prompt, tokens, top, options.signal);
  }

  /**
   * A text (taken as it is, without a template) or token ids as a vector of length 1, from the model's final hidden
   * states. Models that were trained to embed give better ones. `ERR_CONTEXT` for what the context does not hold.
   */
  async embed(
    input: string | readonly number[],
    options: { pooling?: Pooling; signal?: AbortSignal } = {},
  ): Promise<Float32Array> {
    rejectUnknownKeys("embed", options, ["pooling", "signal"]);
    const { pooling = "mean", signal } = options;
    checkSignal(signal);
    if (pooling !== "mean" && pooling !== "last")
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `pooling is ${quote(String(pooling))}, expected mean or last`,
        {
          param: "pooling",
        },
      );
    const tokens =
      typeof input === "string"
        ? this.#beginning(this.tokenize(input))
        : checkTokens("input", input, this.info.config.vocab);
    return this.#engine.embed(tokens, pooling, signal);
  }

  /** Text to token ids. Special tokens in the text are plain text unless `special` is set. Adds nothing. */
  tokenize(text: string, options: { special?: boolean } = {}): number[] {
    return this.tokenizer.encode(text, options);
  }

  detokenize(tokens: readonly number[], options: { special?: boolean } = {}): string {
    return this.tokenizer.decode(checkTokens("tokens", tokens, this.tokenizer.vocabSize), options);
  }

  /** The token ids that `generate` would start from. */
  async promptTokens(prompt: Prompt, options: PromptOptions = {}): Promise<readonly number[]> {
    const { signal } = options;
    if (typeof prompt === "string" && options.raw)
      return this.#beginning(await this.tokenizer.encodeAsync(prompt, { special: true, signal }));
    if (typeof prompt !== "string" && (prompt?.length === 0 || typeof prompt?.[0] === "number"))
      return checkTokens("prompt", prompt, this.info.config.vocab);
    const messages: readonly ChatMessage[] =
      typeof prompt === "string" ? [{ role: "user", content: prompt }] : (prompt as readonly ChatMessage[]);
    // Far too long text is refused for what it is, before the template's own limit on its output meets it.
    checkMessages(messages);
    const characters = messages.reduce((sum, message) => sum + messageText(message).length, 0);
    if (characters > charactersPerToken * this.info.context) {
      let tokens = 0;
      for (const message of messages)
        tokens += (await this.tokenizer.encodeAsync(messageText(message), { signal })).length;
      if (tokens > this.info.context) throw this.#tooLong(tokens);
    }
    const system = options.system === undefined ? [] : [{ role: "system" as const, content: options.system }];
    return encodeChat(this.tokenizer, this.#template, [...system, ...messages], {
      tools: options.tools,
      variables: {
        // Qwen's and SmolLM's name, and Granite's and DeepSeek's.
        ...(options.thinking === undefined
          ? {}
          : { enable_thinking: options.thinking, thinking: options.thinking }),
        ...options.templateOptions,
      },
      signal,
    });
  }

  /** A text from its first token on: many models want BOS before it. */
  #beginning(ids: readonly number[]): readonly number[] {
    const { bosId, addBos } = this.tokenizer;
    return addBos && bosId !== undefined && ids[0] !== bosId ? [bosId, ...ids] : ids;
  }

  #tooLong(tokens: number): OutriderError {
    const { context } = this.info;
    const trained = this.info.config.context;
    return new OutriderError(
      "ERR_CONTEXT",
      `the prompt has ${tokens} tokens, the context holds ${context}. Shorten it` +
        (context < trained
          ? `, or load the model with a larger context (--context; the model was trained for ${trained})`
          : ": the model was trained for no more"),
      { param: "prompt", details: { n_prompt_tokens: tokens, n_ctx: context } },
    );
  }

  /** Positions of the key/value cache: all, those that texts under way hold, those kept of finished texts. */
  get cacheUsage(): { readonly positions: number; readonly used: number; readonly kept: number } {
    return this.#engine.usage;
  }

  /** [n - 1] milliseconds of a pass over n tokens behind an empty past, 1 to 16, as far as passes have told. */
  get passCosts(): readonly number[] {
    const costs = Array.from({ length: 16 }, (_, i) => this.#costs.ms(i + 1));
    return costs.filter((ms) => ms !== undefined);
  }

  /** Waits for the running pass, then frees everything. A second call is harmless. */
  async close(): Promise<void> {
    this.#template.close();
    await this.#engine[Symbol.asyncDispose]();
    await this.#learned.save();
    if (this.#draft?.owned) await this.#draft.model.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #resolve(options: GenerateOptions): Resolved {
    checkSignal(options.signal);
    const vocab = this.info.config.vocab;
    const strategy = options.strategy ?? "auto";
    if (!strategyNames.includes(strategy))
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `strategy is ${quote(String(strategy))}, expected ${strategyNames.join(", ")}`,
        { param: "strategy" },
      );
    if (strategy === "draft-model" && !this.#draft)
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        'strategy "draft-model" needs a draft model: load(…, { draftModel }) (--draft-model PATH)',
        { param: "strategy" },
      );
    const { verify = "coupled" } = options;
    if (verify !== "coupled" && verify !== "rejection")
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        `verify is ${quote(String(verify))}, expected "coupled" or "rejection"`,
        { param: "verify" },
      );
    if (verify === "rejection" && (options.guide !== undefined || options.code !== undefined))
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        'verify: "rejection" goes neither with guide nor with code, which need coupled draws',
        { param: "verify" },
      );
    const stop =
      options.stop === undefined ? [] : typeof options.stop === "string" ? [options.stop] : options.stop;
    new TextStream(this.tokenizer, { stops: stop }); // refuses stop strings that cannot be honoured
    return {
      strategy,
      stop,
      draftLength:
        options.draftLength === undefined
          ? undefined
          : wholeNumber("draftLength", options.draftLength, 1, 32),
      maxTokens:
        options.maxTokens === undefined
          ? Number.MAX_SAFE_INTEGER
          : wholeNumber("maxTokens", options.maxTokens, 0, Number.MAX_SAFE_INTEGER),
      top: wholeNumber("top", options.top ?? 0, 0, 64),
      sampling: resolveSampling(options, vocab, 0),
      guide: options.guide === undefined ? undefined : this.#guide(options.guide, options),
    };
  }

  #guide(guide: Guide, { ignoreEnd }: GenerateOptions): GuideState {
    if (typeof guide !== "object" || guide === null)
      throw new OutriderError("ERR_GRAMMAR", "guide: expected { json }, { regex } or { grammar }", {
        param: "guide",
      });
    if (ignoreEnd)
      throw new OutriderError(
        "ERR_BAD_REQUEST",
        "ignoreEnd and guide exclude each other: a guided text has an end",
        {
          param: "ignoreEnd",
        },
      );
    const key = JSON.stringify(guide);
    let made = this.#constraints.get(key);
    if (!made) {
      this.#guideVocabulary ??= guideVocabulary(this.tokenizer, this.info.config.vocab);
      made = constraint(guideNetwork(guide), this.#guideVocabulary);
      if (this.#constraints.size >= maxConstraints)
        this.#constraints.delete(this.#constraints.keys().next().value!);
    } else this.#constraints.delete(key);
    this.#constraints.set(key, made); // the latest stands last
    return made.start;
  }

  async *#run(
    prompt: Prompt,
    options: GenerateOptions,
    resolved: Resolved,
    result: GenerationResult,
    group: SampleGroup | undefined,
  ): AsyncGenerator<Piece, void, undefined> {
    const { signal } = options;
    // Passes check it too, but a prompt that is in the cache may need none.
    if (signal?.aborted)
      throw new OutriderError("ERR_ABORTED", "Generation was aborted.", { cause: signal.reason });
    const promptTokens = await this.promptTokens(prompt, options);
    if (promptTokens.length === 0)
      throw new OutriderError("ERR_BAD_REQUEST", "the prompt is empty: it has no tokens", {
        param: "prompt",
      });
    if (promptTokens.length > this.info.context) throw this.#tooLong(promptTokens.length);
    const sampling = { ...resolved.sampling, promptLength: promptTokens.length };
    const { stats } = result;
    const text = new TextStream(this.tokenizer, {
      stops: resolved.stop,
      visible: options.tools?.length ? this.#marks : undefined,
    });
    result.promptTokens = promptTokens;
    const started = performance.now();
    if (group) {
      group.prompt ??= this.#fill(promptTokens, signal);
      await group.prompt;
    }
    const positions = promptTokens.length + Math.min(resolved.maxTokens, usualAnswer);
    using sequence: Sequence = await this.#engine.admit(promptTokens, positions, signal);
    result.cachedTokens = sequence.tokens.length;
    using strategy = openStrategy(resolved.strategy, {
      costs: this.#costs,
      memory: this.#memory,
      siblings: group?.siblings,
      guided: resolved.guide !== undefined,
      draftLength: resolved.draftLength,
      draftSequence: () => this.#draft!.model.#engine.open(),
    });
    try {
      await sequence.prefill(promptTokens.slice(sequence.tokens.length, -1), signal);
      stats.prefillMs = performance.now() - started;
      const steps = decode(sequence, promptTokens.at(-1)!, {
        ...strategy,
        sampling,
        maxTokens: resolved.maxTokens,
        endIds: options.ignoreEnd ? new Set() : this.tokenizer.endIds,
        top: resolved.top,
        trace: options.trace ?? false,
        verify: options.verify ?? "coupled",
        guide: resolved.guide,
        signal,
        stats,
      });
      for await (const step of steps) {
        const piece = this.#piece(step, text, result, resolved.top);
        if (step.finish === "end" || text.stopped) result.finishReason = "stop";
        const over = text.stopped || step.finish !== undefined;
        const rest = over ? text.finish() : "";
        result.text += piece.text + rest;
        yield { ...piece, text: piece.text + rest };
        if (over) return;
      }
    } finally {
      result.text += text.finish();
      if (learners.includes(resolved.strategy)) this.#learned.learned(stats.tokens);
    }
  }

  /** Leaves a prompt in the cache, so that texts that begin with it share it. */
  async #fill(promptTokens: readonly number[], signal: AbortSignal | undefined): Promise<void> {
    using sequence = await this.#engine.admit(promptTokens, promptTokens.length, signal);
    await sequence.prefill(promptTokens.slice(sequence.tokens.length, -1), signal);
  }

  /** The text of one step's tokens, cut where a stop string begins: what follows it is not counted. */
  #piece(step: DecodedStep, stream: TextStream, result: GenerationResult, top: number): Piece {
    let text = "";
    let taken = 0;
    while (taken < step.tokens.length && !stream.stopped) {
      const token = step.tokens[taken++]!;
      // A model's matrices may have more rows than its tokenizer has tokens; those add no text.
      if (token < this.tokenizer.vocabSize) text += stream.push(token);
    }
    const tokens = step.tokens.slice(0, taken);
    const logprobs = Array.from(step.logprobs.subarray(0, taken));
    result.tokens.push(...tokens);
    result.logprobs.push(...logprobs);
    for (let i = 0; top > 0 && i < taken; i++) {
      const ids = step.topTokens.subarray(i * top, (i + 1) * top);
      result.topTokens.push(Array.from(ids, (id, j) => [id, step.topLogprobs[i * top + j]!] as const));
    }
    return {
      text,
      tokens,
      logprobs,
      drafted: step.drafted,
      accepted: Math.min(step.accepted, taken),
      drafter: step.drafter,
      ...(step.pass ? { pass: step.pass } : undefined),
    };
  }
}
