import { type Command, InvalidArgumentError, Option } from "commander";
import type { Verification } from "../decoding/decode.js";
import { type Strategy, strategyNames } from "../decoding/strategies.js";
import type { GenerateOptions, InstructionSet, LoadOptions } from "../index.js";
import { instructionSets } from "../runtime/core.js";
import { type Quantization, quantizations } from "../weights/quantise.js";
import { usageError } from "./failure.js";
import { type GuideFlags, guideFrom } from "./guide.js";

/** Small models often repeat themselves without an end: who waits for an answer gets it back before the context is full. */
export const defaultMaxTokens = 2048;

/** What every command that opens a model takes. */
export interface ModelFlags {
  readonly model?: string;
  readonly draftModel?: string;
  readonly threads?: number;
  readonly context?: number;
  readonly precise?: boolean;
  readonly quantize?: Quantization;
  readonly offline?: boolean;
  readonly memoryLimit?: number;
  readonly learn?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** How to answer. */
export interface AnswerFlags extends ModelFlags, GuideFlags {
  readonly strategy?: Strategy;
  readonly draftLength?: number;
  readonly verify?: Verification;
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly system?: string;
}

/** "0.7", "-1", "1e-3"; not "0.7x", "", "NaN", "Infinity", "0x10". Ranges are the library's to check. */
export function parseNumber(text: string): number {
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return Number(text);
  throw new InvalidArgumentError("Expected a number.");
}

/** "42", "-3"; not "4.2", "1e3". */
export function parseWhole(text: string): number {
  const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new InvalidArgumentError("Expected a whole number.");
}

/** A whole number from 1. */
export function parseCount(text: string): number {
  const value = parseWhole(text);
  if (value >= 1) return value;
  throw new InvalidArgumentError("Expected a whole number from 1.");
}

const exponents = ["B", "K", "M", "G", "T"];

/** "8GB", "512MB", "1.5GiB", "1000000": bytes. */
export function parseSize(text: string): number {
  const [, digits, unit, binary] = /^(\d+\.?\d*)\s*([KMGTB])?(i)?B?$/i.exec(text) ?? [];
  const value = Math.floor(
    Number(digits) * (binary ? 1024 : 1000) ** exponents.indexOf(unit?.toUpperCase() ?? "B"),
  );
  if (value > 0) return value;
  throw new InvalidArgumentError("Expected a size such as 8GB or 512MB.");
}

/** The same, a bare number meaning GB; "none": Infinity. */
export function parseMemoryLimit(text: string): number {
  if (text === "none") return Number.POSITIVE_INFINITY;
  return parseSize(/^[\d.]+$/.test(text) ? `${text}GB` : text);
}

/** "1,4,8" */
export function parseCounts(text: string): number[] {
  return text.split(",").map(parseCount);
}

export function modelOptions(command: Command): Command {
  return loadingOptions(
    command.option(
      "--model <path>",
      "a GGUF file, a folder with safetensors, or hf:OWNER/REPO[:QUANT] (default: the embedded SmolLM2-135M-Instruct)",
    ),
  );
}

/** How models are loaded, whichever they are. */
export function loadingOptions(command: Command): Command {
  return command
    .option("--threads <n>", "threads of the core (default: one a processor core, at most 8)", parseWhole)
    .option("--context <n>", "most tokens of one text (default: the model's, at most 8,192)", parseWhole)
    .option("--precise", "activations and cache in float32: slower, for comparison")
    .option("--no-learn", "neither use nor keep what earlier answers taught about drafting (default: both)")
    .addOption(quantizeOption())
    .option(
      "--memory-limit <size>",
      "memory the model may take, 8GB or none (default: what is available)",
      parseMemoryLimit,
    )
    .option("--offline", "models of the hub from the cache only");
}

export function quantizeOption(): Option {
  return new Option(
    "--quantize <type>",
    "pack F32, F16 and BF16 weights in blocks of fewer bits (default: q8_0 for safetensors, none for GGUF)",
  ).choices(quantizations);
}

export function draftModelOption(command: Command): Command {
  return command.option("--draft-model <path>", "a smaller model of the same vocabulary that writes ahead");
}

export function outputOptions(command: Command): Command {
  return command
    .option("--json", "one JSON object a line")
    .option("--quiet", "the result alone: no statistics, no progress, no warnings")
    .option("--debug", "stack traces under errors");
}

export function answerOptions(command: Command): Command {
  const repeated = (text: string, before: readonly string[] = []) => [...before, text];
  return draftModelOption(command)
    .addOption(
      new Option(
        "--strategy <name>",
        "how drafts are made; never changes the output, but with --verify rejection (default: auto)",
      ).choices(strategyNames),
    )
    .addOption(
      new Option(
        "--verify <how>",
        "at a temperature: coupled, so that a seed has one text (default), or rejection, the classic scheme",
      ).choices(["coupled", "rejection"]),
    )
    .option("--draft-length <n>", "draft exactly so many tokens a pass (default: as many as pay)", parseWhole)
    .option(
      "--max-tokens <n>",
      `emit at most so many tokens (default: ${defaultMaxTokens.toLocaleString("en-US")}, or what the context holds)`,
      parseWhole,
    )
    .option("--temperature <x>", "0: always the most likely token (default)", parseNumber)
    .option("--top-k <n>", "draw from the k most likely tokens (default: all)", parseWhole)
    .option("--top-p <x>", "draw from the most likely tokens that add up to p (default: 1)", parseNumber)
    .option("--min-p <x>", "drop tokens below so much of the best one's chance (default: 0)", parseNumber)
    .option("--repetition-penalty <x>", "over 1: less of what was said (default: 1)", parseNumber)
    .option("--presence-penalty <x>", "off the logit of every token of the answer (default: 0)", parseNumber)
    .option("--frequency-penalty <x>", "the same, for each time it occurred (default: 0)", parseNumber)
    .option("--seed <n>", "with the same seed the same answer (default: 0)", parseWhole)
    .option("--stop <text>", "end before this text; may be given several times", repeated)
    .option("--json-schema <file>", 'the answer is JSON that satisfies this schema; "any": any JSON object')
    .option("--regex <pattern>", "the whole answer matches this regular expression")
    .option("--grammar <file>", "the answer is what this grammar (GBNF) describes")
    .option("--system <text>", "the system message");
}

/** `OUTRIDER_INSTRUCTION_SET`: for comparing instruction sets; the results are the same. */
export function instructionSetFrom(env: NodeJS.ProcessEnv): InstructionSet | undefined {
  const value = env.OUTRIDER_INSTRUCTION_SET;
  const known = instructionSets.find((name) => name === value);
  if (value === undefined || known) return known;
  throw usageError(
    `the environment variable OUTRIDER_INSTRUCTION_SET is ${JSON.stringify(value)}, expected one of ${instructionSets.join(", ")}`,
  );
}

export function loadOptions(flags: ModelFlags, env: NodeJS.ProcessEnv): LoadOptions {
  return {
    threads: flags.threads,
    context: flags.context,
    precise: flags.precise,
    learn: flags.learn,
    draftModel: flags.draftModel,
    quantize: flags.quantize,
    offline: flags.offline,
    memoryLimit: flags.memoryLimit,
    instructionSet: instructionSetFrom(env),
  };
}

export function generateOptions(flags: AnswerFlags): GenerateOptions {
  return {
    strategy: flags.strategy,
    draftLength: flags.draftLength,
    verify: flags.verify,
    maxTokens: flags.maxTokens ?? defaultMaxTokens,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    minP: flags.minP,
    repetitionPenalty: flags.repetitionPenalty,
    presencePenalty: flags.presencePenalty,
    frequencyPenalty: flags.frequencyPenalty,
    seed: flags.seed,
    stop: flags.stop,
    guide: guideFrom(flags),
    system: flags.system,
  };
}
