import { writeFile } from "node:fs/promises";
import path from "node:path";
import { OutriderError } from "../errors.js";
import type { PassTrace } from "../index.js";
import { dependencyHtml, dependencySvg } from "./dependencies.js";
import { interrupted, usageError } from "./failure.js";
import { interruptible } from "./interrupt.js";
import { openModel } from "./open-model.js";
import { type AnswerFlags, generateOptions } from "./options.js";

export interface TraceFlags extends AnswerFlags {
  readonly raw?: boolean;
  readonly dependencies?: string;
}

/** Answers a prompt and tells what every pass did: JSON lines, and a picture where asked for. */
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
    for await (const piece of run) {
      if (!piece.pass) continue;
      passes.push(piece.pass);
      ids.push(...piece.pass.tokens);
      if (file === undefined || flags.json) process.stdout.write(`${JSON.stringify(piece.pass)}\n`);
    }
    if (signal.aborted) return interrupted;
    const { strategy } = await run.result;
    if (file === undefined) return 0;
    const tokens = ids.map((id) => ({ id, text: model.detokenize([id], { special: true }) }));
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
