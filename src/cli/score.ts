import { locate, usageError } from "./failure.js";
import { interruptible } from "./interrupt.js";
import { readJsonLines, tokenIds } from "./json-lines.js";
import { openModel } from "./open-model.js";
import type { ModelFlags } from "./options.js";
import { count, figures, table } from "./table.js";
import { paint } from "./terminal.js";

export interface ScoreFlags extends ModelFlags {
  readonly input: string;
  readonly limit?: number;
}

/** How many of the most likely tokens are told beside each one. */
const top = 16;

/** Log-probabilities of given continuations: JSON lines, or a table of means and perplexities. */
export async function score(flags: ScoreFlags): Promise<number> {
  const texts = (await readJsonLines(flags.input, flags.limit)).map((line) => {
    const prompt = tokenIds(line, "prompt_tokens");
    const tokens = tokenIds(line, "tokens");
    if (prompt === undefined || tokens === undefined)
      throw usageError(`${line.where}: expected "prompt_tokens" and "tokens", both arrays of token ids`);
    return { id: line.id, where: line.where, prompt, tokens };
  });
  await using model = await openModel(flags);
  return await interruptible(async (signal) => {
    const rows: string[][] = [];
    for (const { id, where, prompt, tokens } of texts) {
      const result = await model
        .score({ prompt, tokens, top: flags.json ? top : 0, signal })
        .catch((error: unknown) => {
          throw locate(where, error);
        });
      if (flags.json) {
        process.stdout.write(`${JSON.stringify({ id, logprobs: result.logprobs, top: result.top })}\n`);
        continue;
      }
      const mean = result.logprobs.reduce((sum, x) => sum + x, 0) / Math.max(1, result.logprobs.length);
      rows.push([String(id), count(tokens.length), mean.toFixed(4), figures(Math.exp(-mean))]);
    }
    if (flags.json) return 0;
    const [head, ...lines] = table("lrrr", ["text", "tokens", "mean log-probability", "perplexity"], rows);
    process.stdout.write(`${[paint(process.stdout, "bold", head!), ...lines].join("\n")}\n`);
    return 0;
  });
}
