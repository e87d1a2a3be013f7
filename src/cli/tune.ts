import type { Prompt, TuneResult } from "../index.js";
import { interruptible } from "./interrupt.js";
import { promptOf, readJsonLines } from "./json-lines.js";
import { openModel } from "./open-model.js";
import type { ModelFlags } from "./options.js";
import { samplePrompts } from "./sample-prompts.js";
import { figures } from "./table.js";
import { statusLine } from "./terminal.js";

export interface TuneFlags extends ModelFlags {
  readonly prompts?: string;
  readonly limit?: number;
  readonly seconds?: number;
  readonly maxTokens?: number;
}

/** Finds the layers with which a model drafts best for itself, tells what they are worth, and keeps the choice. */
export async function tune(flags: TuneFlags): Promise<number> {
  const prompts: readonly Prompt[] =
    flags.prompts === undefined
      ? samplePrompts.slice(0, flags.limit).map(({ prompt }) => prompt)
      : (await readJsonLines(flags.prompts, flags.limit)).map(promptOf);
  await using model = await openModel(flags);
  const status = statusLine(process.stderr);
  return await interruptible(async (signal) => {
    try {
      const result = await model.tune({
        prompts,
        seconds: flags.seconds,
        maxTokens: flags.maxTokens,
        signal,
        onProgress({ tried, seconds, best }) {
          if (flags.quiet) return;
          status.show(
            `${tried} choices in ${seconds.toFixed(0)} s, the best keeps ${best.kept.length} of ` +
              `${model.info.config.layers} layers: ${percent(best.agreement)} of its tokens are right`,
          );
        },
      });
      status.clear();
      process.stdout.write(flags.json ? `${JSON.stringify(result)}\n` : `${asText(result).join("\n")}\n`);
      return 0;
    } finally {
      status.clear();
    }
  });
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

function asText(result: TuneResult): string[] {
  const { layers, kept, acceptance, acceptanceBefore, keptBefore, draftMs, passMs, gain, tried, file } =
    result;
  const skipped = Array.from({ length: layers }, (_, i) => i).filter((i) => !kept.includes(i));
  return [
    `left out      ${skipped.join(" ")} (${skipped.length} of ${layers} layers; ${tried} choices tried)`,
    `right         ${percent(acceptance)} of drafted tokens; before, with ${keptBefore.length} layers, ${percent(acceptanceBefore)}`,
    `a draft pass  ${figures(draftMs)} ms, ${percent(draftMs / passMs)} of a pass (${figures(passMs)} ms)`,
    `gain          ${figures(gain)} at best${gain < 1 ? ": --strategy self is slower than none on this machine" : ""}`,
    `kept in       ${file ?? "nothing: the cache folder cannot be written"}`,
  ];
}
