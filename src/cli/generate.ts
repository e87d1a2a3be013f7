import { isUtf8 } from "node:buffer";
import { buffer as readBytes } from "node:stream/consumers";
import type { Model, Prompt, SampleSpread } from "../index.js";
import { answerJson, showAnswer } from "./answer.js";
import { interrupted, locate, usageError } from "./failure.js";
import { interruptible } from "./interrupt.js";
import { promptOf, readJsonLines } from "./json-lines.js";
import { openModel } from "./open-model.js";
import { type AnswerFlags, generateOptions } from "./options.js";
import { paint, printable } from "./terminal.js";

export interface GenerateFlags extends AnswerFlags {
  readonly raw?: boolean;
  readonly prompts?: string;
  readonly limit?: number;
  readonly samples?: number;
  readonly sampling?: SampleSpread;
  readonly vote?: boolean;
  readonly upstream?: string;
}

export interface Question {
  readonly id: string | number;
  readonly prompt: Prompt;
  /** The line of the file that it comes from. */
  readonly where?: string;
}

/** Answers the words of the command line, or each line of a file, or what stands on stdin. */
export async function generate(words: readonly string[], flags: GenerateFlags): Promise<number> {
  if (flags.samples === undefined && (flags.vote || flags.sampling))
    throw usageError(`${flags.vote ? "--vote" : "--sampling"} goes with --samples N`);
  // The file is checked before the model loads: a slip in the last line must not cost an hour.
  const questions = await collect(words, flags);
  if (flags.upstream !== undefined) {
    const { answerUpstream, openUpstream } = await import("./upstream.js");
    const engine = openUpstream(flags.upstream, flags);
    return answerAll(questions, flags, async (question, signal) => {
      await answerUpstream(engine, question, flags, signal);
      return 0;
    });
  }
  await using model = await openModel(flags);
  return await answerAll(questions, flags, (question, signal) => answer(model, question, flags, signal));
}

function answerAll(
  questions: readonly Question[],
  flags: GenerateFlags,
  answerOne: (question: Question, signal: AbortSignal) => Promise<number>,
): Promise<number> {
  return interruptible(async (signal) => {
    let code = 0;
    for (const [i, question] of questions.entries()) {
      if (questions.length > 1 && !flags.json) {
        const title = `==> ${printable(String(question.id))} <==`; // as head and tail part files
        process.stdout.write(`${i > 0 ? "\n" : ""}${paint(process.stdout, "bold", title)}\n`);
      }
      const own = await answerOne(question, signal).catch((error: unknown) => {
        throw question.where === undefined ? error : locate(question.where, error);
      });
      code = Math.max(code, own);
      if (signal.aborted) return interrupted;
    }
    return code;
  });
}

/** Returns the exit code. */
async function answer(
  model: Model,
  { id, prompt }: Question,
  flags: GenerateFlags,
  signal: AbortSignal,
): Promise<number> {
  const options = { ...generateOptions(flags), raw: flags.raw, signal };
  if (flags.samples !== undefined) {
    const { showSamples } = await import("./show-samples.js");
    await showSamples(model, id, prompt, { ...options, n: flags.samples, spread: flags.sampling }, flags);
    return 0;
  }
  const run = model.generate(prompt, options);
  if (flags.json) {
    process.stdout.write(`${answerJson(id, model.info.name, await run.result, flags)}\n`);
    return 0;
  }
  const { finishReason } = await showAnswer(run, flags);
  if (options.guide === undefined || finishReason === "stop" || signal.aborted) return 0;
  // In text nothing else tells that half an object is no object.
  process.stderr.write("The answer was cut before it fits its schema, pattern or grammar.\n");
  return 1;
}

async function collect(words: readonly string[], flags: GenerateFlags): Promise<Question[]> {
  if (flags.prompts !== undefined) {
    if (words.length > 0) throw usageError("both a prompt and --prompts were given, expected one of them");
    const lines = await readJsonLines(flags.prompts, flags.limit);
    return lines.map((line) => ({ id: line.id, prompt: promptOf(line), where: line.where }));
  }
  if (flags.limit !== undefined) throw usageError("--limit goes with --prompts FILE");
  const prompt = words.length > 0 ? words.join(" ") : await fromStdin();
  if (prompt === "")
    throw usageError('the prompt is empty; give one: outrider "Why is the sky blue?"', "prompt");
  return [{ id: 1, prompt }];
}

async function fromStdin(): Promise<string> {
  if (process.stdin.isTTY) throw usageError('there is no prompt; give one: outrider "Why is the sky blue?"');
  const bytes = await readBytes(process.stdin);
  if (!isUtf8(bytes))
    process.stderr.write("warning: the input is not UTF-8, what is not was replaced by U+FFFD\n");
  return bytes.toString("utf8").replace(/\r?\n$/, "");
}
