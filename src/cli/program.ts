import { Command, InvalidArgumentError, Option } from "commander";
import { type Strategy, strategyNames } from "../decoding/strategies.js";
import type { BenchFlags } from "./bench.js";
import { usageError } from "./failure.js";
import type { GenerateFlags } from "./generate.js";
import type { PullFlags } from "./hub-models.js";
import type { InspectFlags } from "./inspect.js";
import {
  type AnswerFlags,
  answerOptions,
  draftModelOption,
  modelOptions,
  outputOptions,
  parseCount,
  parseCounts,
  quantizeOption,
} from "./options.js";
import type { ScoreFlags } from "./score.js";
import { type ServeFlags, serveOptionsOf } from "./serve-options.js";
import type { TraceFlags } from "./trace.js";
import type { TuneFlags } from "./tune.js";
import type { VerifyFlags } from "./verify.js";

const examples = `
Examples:
  outrider                                       a conversation
  outrider "Why is the sky blue?"                an answer
  git diff | outrider --system "Explain this."   the text on standard input
  outrider --model ./model.gguf --temperature 0.8 --seed 7 "Tell me a story."
  outrider generate --prompts questions.jsonl --json > answers.jsonl
  outrider pull hf:Qwen/Qwen3-0.6B-GGUF          a model from the hub
  outrider --model hf:Qwen/Qwen3-0.6B-GGUF "Hi"  the same model answers
  outrider inspect ./model.gguf                  what is in it, what it takes
  outrider serve                                 OpenAI's API, on port 8080
  outrider verify                                every way gives the same bits
  outrider bench                                 how fast it is on this machine

Exit codes: 0 done, 1 other, 2 bad usage, 3 bad model or file, 4 network,
130 Ctrl-C`;

/** The command line. Each command's code is loaded when it runs: the others do not delay the first token. */
export function commandLine(version: string): Command {
  const program = new Command("outrider")
    .description("Open language models inside Node, several tokens a pass, the same bits as one at a time.")
    .version(version, "-v, --version")
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ writeErr: () => undefined }) // main reports errors
    .argument("[prompt...]", "what to answer; several words need no quotes")
    .addHelpText("after", examples);
  generateOptionsOf(program).action(async (words: string[], flags: GenerateFlags) => {
    const asked = helpAsked(program, words);
    if (asked !== undefined) return asked.outputHelp();
    refuseMisspeltCommand(program, words);
    const conversation =
      words.length === 0 &&
      !flags.prompts &&
      !flags.json &&
      !flags.raw &&
      flags.upstream === undefined &&
      process.stdin.isTTY &&
      process.stdout.isTTY;
    process.exitCode = conversation
      ? await (await import("./chat.js")).chat(flags)
      : await (await import("./generate.js")).generate(words, flags);
  });

  const chat = program
    .command("chat")
    .description("a conversation on the terminal, or a message a line from a pipe");
  outputWithoutJson(answerOptions(modelOptions(chat))).action(async (flags: AnswerFlags) => {
    process.exitCode = await (await import("./chat.js")).chat(flags);
  });

  const generate = program
    .command("generate")
    .description("answer a prompt, or every line of a file")
    .argument("[prompt...]", "what to answer; several words need no quotes");
  generateOptionsOf(generate).action(async (words: string[], flags: GenerateFlags) => {
    process.exitCode = await (await import("./generate.js")).generate(words, flags);
  });

  const score = program
    .command("score")
    .description("log-probabilities of given texts, each after its prompt")
    .requiredOption(
      "--input <file>",
      "JSON lines with text, and prompt before it, or tokens and prompt_tokens; and id; - for standard input",
    )
    .option("--limit <n>", "the first n lines only", parseCount);
  outputOptions(modelOptions(score)).action(async (flags: ScoreFlags) => {
    process.exitCode = await (await import("./score.js")).score(flags);
  });

  program
    .command("inspect")
    .description("what is in a model file, and what running it takes")
    .argument(
      "[model]",
      "a GGUF file, a folder with safetensors, or hf:OWNER/REPO in the cache (default: embedded)",
    )
    .option("--context <n>", "reckon the memory for so many tokens", parseCount)
    .option("--precise", "reckon the memory for a cache in float32")
    .addOption(quantizeOption())
    .option("--json", "everything as one JSON object")
    .option("--debug", "stack traces under errors")
    .action(async (file: string | undefined, flags: InspectFlags) => {
      process.exitCode = await (await import("./inspect.js")).inspect(file, flags);
    });

  program
    .command("pull")
    .description("bring a model from the hub into the cache, and print where it is")
    .argument("<model>", "hf:OWNER/REPO, hf:OWNER/REPO:Q4_K_M or hf:OWNER/REPO:FILE")
    .option("--offline", "from the cache only")
    .option("--json", "the result as one JSON object")
    .option("--quiet", "no progress")
    .option("--debug", "stack traces under errors")
    .action(async (name: string, flags: PullFlags) => {
      process.exitCode = await (await import("./hub-models.js")).pull(name, flags);
    });

  program
    .command("models")
    .description("the hub's models in the cache")
    .option("--json", "one JSON object a line")
    .option("--debug", "stack traces under errors")
    .action(async (flags: { json?: boolean }) => {
      process.exitCode = await (await import("./hub-models.js")).models(flags);
    });

  program
    .command("rm")
    .description("remove a model from the cache")
    .argument("<model>", "a name as outrider models lists it")
    .option("--json", "the result as one JSON object")
    .option("--debug", "stack traces under errors")
    .action(async (name: string, flags: { json?: boolean }) => {
      process.exitCode = await (await import("./hub-models.js")).remove(name, flags);
    });

  const verify = program
    .command("verify")
    .description("compute texts in every way and compare them bit by bit; exit code 1 where they differ")
    .option("--max-tokens <n>", "tokens of each text", parseCount, 32)
    .option("--print-hash", "one hash over ids and log-probabilities, the same on every machine");
  outputOptions(draftModelOption(modelOptions(verify))).action(async (flags: VerifyFlags) => {
    process.exitCode = await (await import("./verify.js")).verify(flags);
  });

  program
    .command("strategies")
    .description("all ways to decode: what they do and need; with --json where they come from")
    .option("--json", "one JSON array")
    .action(async (flags: { json?: boolean }) => {
      process.exitCode = (await import("./strategies.js")).listStrategies(flags);
    });

  const trace = program
    .command("trace")
    .description(
      "answer a prompt and tell what every pass drafted, verified and kept: a table, in a pipe JSON lines",
    )
    .argument("<prompt...>", "what to answer; several words need no quotes")
    .option("--raw", "the prompt as it is: no chat template")
    .option("--dependencies <file>", "draw which token was known in which pass: a file .svg or .html");
  outputOptions(answerOptions(modelOptions(trace))).action(async (words: string[], flags: TraceFlags) => {
    process.exitCode = await (await import("./trace.js")).trace(words, flags);
  });

  const tune = program
    .command("tune")
    .description("find the layers that strategy self leaves out of a model, and keep the choice")
    .option("--prompts <file>", "JSON lines as for generate (default: a small set)")
    .option("--limit <n>", "the first n prompts only", parseCount)
    .option("--seconds <n>", "time for the search", parseCount, 60)
    .option("--max-tokens <n>", "tokens of each answer that it compares with", parseCount, 96);
  outputOptions(modelOptions(tune)).action(async (flags: TuneFlags) => {
    process.exitCode = await (await import("./tune.js")).tune(flags);
  });

  const bench = program
    .command("bench")
    .description("what passes cost and how fast answers come, on this machine")
    .option("--prompts <file>", "JSON lines as for generate, with category (default: a small set)")
    .option("--limit <n>", "the first n prompts only", parseCount)
    .option(
      "--strategies <a,b>",
      "what to compare, the first with the others (default: none,auto)",
      parseStrategies,
    )
    .option("--max-tokens <n>", "tokens of each answer", parseCount, 128)
    .option("--repetitions <n>", "interleaved repetitions", parseCount, 3)
    .option("--batch <a,b>", "so many prompts at a time, beside one after another, e.g. 1,4,8", parseCounts)
    .option("--samples <a,b>", "so many samples of one prompt at a time", parseCounts)
    .option("--html <file>", "write the report with charts as one HTML file");
  outputOptions(draftModelOption(modelOptions(bench))).action(async (flags: BenchFlags) => {
    process.exitCode = await (await import("./bench.js")).bench(flags);
  });

  serveOptionsOf(program.command("serve").description("answer over HTTP, as OpenAI's API does")).action(
    async (flags: ServeFlags) => {
      process.exitCode = await (await import("./serve.js")).serve(flags);
    },
  );

  program.hook("preSubcommand", (_, command) => passOn(program, command));
  return program;
}

function generateOptionsOf(command: Command): Command {
  return outputOptions(
    answerOptions(modelOptions(command))
      .option("--raw", "the prompt as it is: no chat template")
      .option(
        "--prompts <file>",
        "JSON lines with prompt, turns (the first counts) or prompt_tokens; and id; - for standard input",
      )
      .option("--limit <n>", "the first n lines of --prompts only", parseCount)
      .option("--samples <n>", "so many answers, which share passes; with --temperature", parseCount)
      .addOption(
        new Option(
          "--sampling <how>",
          "samples by seeds one after another, or by evenly spread codes",
        ).choices(["independent", "arithmetic"]),
      )
      .option("--vote", "of the samples, what most say")
      .option(
        "--upstream <url>",
        "ask an engine elsewhere that speaks OpenAI's API; --model is its name there",
      ),
  );
}

function outputWithoutJson(command: Command): Command {
  return command
    .option("--quiet", "the answers alone: no statistics, no progress, no warnings")
    .option("--debug", "stack traces under errors");
}

function parseStrategies(text: string): Strategy[] {
  const names = text.split(",");
  const unknown = names.find((name) => !strategyNames.includes(name as Strategy));
  if (unknown !== undefined || new Set(names).size < names.length)
    throw new InvalidArgumentError(
      `Expected different ones of ${strategyNames.join(", ")}, with commas between.`,
    );
  return names as Strategy[];
}

/** Options that stand before a command are the command's. */
function passOn(program: Command, command: Command): void {
  for (const option of program.options) {
    const key = option.attributeName();
    if (program.getOptionValueSource(key) !== "cli") continue;
    if (!command.options.some((own) => own.attributeName() === key))
      throw usageError(`${option.long} is not an option of outrider ${command.name()}`);
    command.setOptionValueWithSource(key, program.getOptionValue(key), "cli");
  }
}

/** `outrider help`, `outrider help chat`; not `outrider help me write a letter`. */
function helpAsked(program: Command, [help, name, ...more]: readonly string[]): Command | undefined {
  if (help !== "help" || more.length > 0) return undefined;
  return name === undefined ? program : program.commands.find((command) => command.name() === name);
}

/** `outrider inspekt model.gguf` is hardly meant as a prompt. */
function refuseMisspeltCommand(program: Command, words: readonly string[]): void {
  const [first, second] = words;
  if (first === undefined || words.length > 2 || (second !== undefined && !/\.(gguf|jsonl)$/.test(second)))
    return;
  const meant = program.commands.find((command) => oneSlipApart(first, command.name()));
  if (meant === undefined) return;
  throw usageError(
    `there is no command ${JSON.stringify(first)}; did you mean outrider ${meant.name()}? ` +
      `If it is a prompt: outrider generate ${first}`,
  );
}

/** One letter more, less or other, or two neighbours swapped. */
export function oneSlipApart(a: string, b: string): boolean {
  let start = 0;
  while (start < a.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const left = a.slice(start, a.length - end);
  const right = b.slice(start, b.length - end);
  if (left.length <= 1 && right.length <= 1) return true;
  return left.length === 2 && right.length === 2 && left === `${right[1]}${right[0]}`;
}
