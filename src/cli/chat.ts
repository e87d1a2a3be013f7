import { createInterface } from "node:readline";
import type { ChatSession } from "../index.js";
import { showAnswer } from "./answer.js";
import { interrupted, reportFailure } from "./failure.js";
import { interruptible } from "./interrupt.js";
import { openModel } from "./open-model.js";
import { type AnswerFlags, generateOptions } from "./options.js";
import { paint } from "./terminal.js";

/** Lines that arrive this close together were pasted and are one message. */
const pasteMs = 30;

/** Two Ctrl-C this close together leave. */
const leaveMs = 2000;

/** A conversation, until /exit, Ctrl-D, or Ctrl-C twice where something is to be said. From a pipe: a message a line. */
export async function chat(flags: AnswerFlags & { debug?: boolean }): Promise<number> {
  await using model = await openModel(flags);
  // Says at once, and not after the first message, that a model has no template; and the template is warm then.
  await model.promptTokens([{ role: "user", content: "Hello" }]);
  const session = model.chat(generateOptions(flags));
  if (!process.stdin.isTTY) return await fromPipe(session, flags);

  const { stdout } = process;
  const { name, instructionSet, threads } = model.info;
  const about = `${name} · ${instructionSet} · ${threads} ${threads === 1 ? "thread" : "threads"}`;
  const help = "/reset starts again, /exit or Ctrl-D leaves, Ctrl-C stops an answer";
  if (!flags.quiet) stdout.write(`${paint(stdout, "dim", `${about}\n${help}`)}\n\n`);
  const history: string[] = [];
  // Meant for an answer that has just ended, before the next question takes it.
  process.on("SIGINT", () => undefined);
  let interruptedAt = Number.NEGATIVE_INFINITY;
  for (;;) {
    const message = await ask(history);
    if (message === interruption) {
      if (performance.now() - interruptedAt < leaveMs) return 0;
      interruptedAt = performance.now();
      stdout.write(`${paint(stdout, "dim", "Ctrl-C again or Ctrl-D leaves")}\n`);
      continue;
    }
    if (message === undefined || message === "/exit") return 0;
    if (message === "") continue;
    if (message === "/reset") {
      session.reset();
      stdout.write(`${paint(stdout, "dim", "the conversation starts again")}\n`);
      continue;
    }
    if (/^\/\w+$/.test(message)) {
      const answer = message === "/help" ? help : `there is no ${message}, see /help`;
      stdout.write(`${paint(stdout, "dim", answer)}\n`);
      continue;
    }
    await say(session, message, flags).catch((error: unknown) => {
      reportFailure(error, flags.debug ?? false);
      stdout.write(`${paint(stdout, "dim", "/reset starts again")}\n`);
    });
    stdout.write("\n");
  }
}

async function fromPipe(session: ChatSession, flags: AnswerFlags): Promise<number> {
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === "/exit") break;
    if (line === "/reset") session.reset();
    else if (line !== "" && (await say(session, line, flags)) === "interrupted") return interrupted;
  }
  return 0;
}

function say(session: ChatSession, message: string, flags: AnswerFlags): Promise<"over" | "interrupted"> {
  return interruptible(async (signal) => {
    await showAnswer(session.send(message, { signal }), flags);
    return signal.aborted ? "interrupted" : "over";
  });
}

const interruption = Symbol("Ctrl-C");

/**
 * One message; undefined when there are no more. The interface lives for one question only: while an answer streams,
 * the terminal is in its ordinary mode, where Ctrl-C is a signal.
 */
function ask(history: string[]): Promise<string | typeof interruption | undefined> {
  const { stdin, stdout } = process;
  const prompt = paint(stdout, "cyan", "> ");
  const lines = createInterface({ input: stdin, output: stdout, prompt, history: [...history] });
  return new Promise((resolve) => {
    const said: string[] = [];
    let wasInterrupted = false;
    let pasted: NodeJS.Timeout | undefined;
    lines.on("line", (line) => {
      said.push(line);
      clearTimeout(pasted);
      // What was pasted after the last line end still waits for Enter.
      pasted = setTimeout(() => {
        if (lines.line === "") lines.close();
      }, pasteMs);
    });
    lines.on("history", (entries: string[]) => history.splice(0, history.length, ...entries));
    const interrupt = () => {
      wasInterrupted = true;
      lines.close();
    };
    lines.on("SIGCONT", () => lines.prompt(true)); // after Ctrl-Z
    lines.on("SIGINT", interrupt);
    process.on("SIGINT", interrupt); // sent by another process
    lines.on("close", () => {
      process.off("SIGINT", interrupt);
      clearTimeout(pasted);
      if (wasInterrupted || said.length === 0) stdout.write("\n");
      resolve(wasInterrupted ? interruption : said.length === 0 ? undefined : said.join("\n").trim());
    });
    lines.prompt();
  });
}
