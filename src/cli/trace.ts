import { writeFile } from "node:fs/promises";
import path from "node:path";
import { OutriderError } from "../errors.js";
import type { PassTrace } from "../index.js";
import { rounded, summary } from "./answer.js";
import { dependencyHtml, dependencySvg } from "./dependencies.js";
import { interrupted, usageError } from "./failure.js";
import { interruptible } from "./interrupt.js";
import { openModel } from "./open-model.js";
import { type AnswerFlags, generateOptions } from "./options.js";
import { wrap } from "./table.js";
import { paint, printable } from "./terminal.js";

export interface TraceFlags extends AnswerFlags {
  readonly raw?: boolean;
  readonly dependencies?: string;
}

/** Answers a prompt and tells what every pass did: JSON lines, on a terminal a table, and a picture where asked for. */
export async function trace(words: readonly string[], flags: TraceFlags): Promise<number> {
  const prompt = words.join(" ");
  if (prompt === "")
    throw usageError('the prompt is empty; give one: outrider trace "Count to five."', "prompt");
  const file = flags.dependencies;
  const kind = file === undefined ? undefined : path.extname(file).toLowerCase();
  if (kind !== undefined && kind !== ".svg" && kind !== ".html")
    throw usageError(`--dependencies ${file}: expected a name that ends in .svg or .html`);
  await using model = await openModel(flags);
  return await interruptible(async (signal) => {
    const options = { ...generateOptions(flags), raw: flags.raw, signal, trace: true };
    const passes: PassTrace[] = [];
    const ids: number[] = [];
    const run = model.generate(prompt, options);
    const { stdout } = process;
    const asTable = file === undefined && !flags.json && stdout.isTTY;
    const textOf = (tokens: readonly number[]) => model.detokenize(tokens, { special: true });
    if (asTable) stdout.write(`${paint(stdout, "bold", passRow("ms", "kept", "text"))}\n`);
    for await (const { pass } of run) {
      if (!pass) continue;
      passes.push(pass);
      ids.push(...pass.tokens);
      if (asTable) stdout.write(`${describePass(pass, textOf)}\n`);
      else if (file === undefined || flags.json)
        stdout.write(`${JSON.stringify({ ...pass, ms: rounded(pass.ms) })}\n`);
    }
    if (signal.aborted) return interrupted;
    const result = await run.result;
    const { strategy } = result;
    if (asTable && !flags.quiet)
      for (const line of wrap(summary(result, flags.maxTokens)))
        stdout.write(`${paint(stdout, "dim", line)}\n`);
    if (file === undefined) return 0;
    const tokens = ids.map((id) => ({ id, text: textOf([id]) }));
    const title = `${strategy}: ${ids.length} tokens in ${passes.length} passes`;
    const picture = kind === ".svg" ? dependencySvg : dependencyHtml;
    await writeFile(file, picture({ title, passes, tokens })).catch((error: unknown) => {
      throw new OutriderError("ERR_PATH", `${file} cannot be written: ${(error as Error).message}`, {
        cause: error,
      });
    });
    if (!flags.quiet) process.stderr.write(`${title}: ${file}\n`);
    return 0;
  });
}

const passRow = (ms: string, kept: string, text: string) => `${ms.padStart(6)}  ${kept.padStart(8)}  ${text}`;

/** A pass in a line: its time, drafted tokens that stayed, what it emitted (these in green), who guessed. */
function describePass(pass: PassTrace, textOf: (tokens: readonly number[]) => string): string {
  const { tokens, drafted, accepted, sources, ms } = pass;
  const [guessed, own] = [tokens.slice(0, accepted), tokens.slice(accepted)].map((ids) =>
    printable(textOf(ids)),
  );
  const text = `"${paint(process.stdout, "green", guessed!)}${own}"`;
  const names = paint(process.stdout, "dim", [...new Set(sources)].join(", "));
  const kept = drafted.length === 0 ? "" : `${accepted} of ${drafted.length}`;
  return passRow(ms.toFixed(1), kept, `${text}  ${names}`.trimEnd());
}
