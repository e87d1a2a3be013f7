import type { Model, ScoreOptions } from "../index.js";
import { locate, usageError } from "./failure.js";
import { interruptible } from "./interrupt.js";
import { readJsonLines, text, tokenIds } from "./json-lines.js";
import { openModel } from "./open-model.js";
import type { ModelFlags } from "./options.js";
import { count, figures, table } from "./table.js";
import { paint, printable } from "./terminal.js";

export interface ScoreFlags extends ModelFlags {
  readonly input: string;
  readonly limit?: number;
}

/** How many of the most likely tokens are told beside each one. */
const most = 16;

/** Log-probabilities of given continuations: JSON lines, or a table of means and perplexities. */
export async function score(flags: ScoreFlags): Promise<number> {
  const texts = (await readJsonLines(flags.input, flags.limit)).map((line) => {
    const prompt = tokenIds(line, "prompt_tokens") ?? text(line, "prompt");
    const tokens = tokenIds(line, "tokens") ?? text(line, "text");
    if (tokens === undefined || (prompt === undefined && typeof tokens !== "string"))
      throw usageError(
        `${line.where}: expected "text" or, as token ids, "tokens", and before it "prompt" or "prompt_tokens"`,
      );
    return { id: line.id, where: line.where, prompt, tokens };
  });
  await using model = await openModel(flags);
  return await interruptible(async (signal) => {
    const rows: string[][] = [];
    for (const { id, where, prompt, tokens } of texts) {
      const result = await model
        .score({
          ...(prompt === undefined ? alone(model, tokens) : { prompt, tokens }),
          top: flags.json ? most : 0,
          signal,
        })
        .catch((error: unknown) => {
          throw locate(where, error);
        });
      if (flags.json) {
        const { logprobs, top } = result;
        // Of a text the caller does not know the ids.
        const ids = typeof tokens === "string" ? { tokens: result.tokens } : undefined;
        process.stdout.write(`${JSON.stringify({ id, ...ids, logprobs, top })}\n`);
        continue;
      }
      const mean = result.logprobs.reduce((sum, x) => sum + x, 0) / Math.max(1, result.logprobs.length);
      rows.push([
        printable(String(id)),
        count(result.tokens.length),
        mean.toFixed(4),
        figures(Math.exp(-mean)),
      ]);
    }
    if (flags.json) return 0;
    const [head, ...lines] = table("lrrr", ["text", "tokens", "mean log-probability", "perplexity"], rows);
    process.stdout.write(`${[paint(process.stdout, "bold", head!), ...lines].join("\n")}\n`);
    return 0;
  });
}

/** A text from its beginning: after BOS, or of a model without one from the second token on. */
function alone(model: Model, tokens: string | readonly number[]): Pick<ScoreOptions, "prompt" | "tokens"> {
  if (typeof tokens !== "string" || model.tokenizer.addBos) return { prompt: "", tokens };
  const ids = model.tokenize(tokens);
  return { prompt: ids.slice(0, 1), tokens: ids.slice(1) };
}
