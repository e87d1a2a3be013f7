import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import { strategies, strategyNames } from "../decoding/strategies.js";
import {
  type GenerateOptions,
  type GenerationResult,
  type InstructionSet,
  type LoadOptions,
  type Model,
  OutriderError,
} from "../index.js";
import { coreInfo } from "../runtime/native.js";
import { interruptible } from "./interrupt.js";
import { openModel } from "./open-model.js";
import { instructionSetFrom, type ModelFlags } from "./options.js";
import { samplePrompts } from "./sample-prompts.js";
import { count, table } from "./table.js";
import { paint, statusLine } from "./terminal.js";

export interface VerifyFlags extends ModelFlags {
  readonly maxTokens: number;
  readonly printHash?: boolean;
}

/** One way to compute the same texts. */
interface Setting {
  readonly name: string;
  readonly generate?: GenerateOptions;
  /** All texts at once, their passes taking turns, rather than one after another. */
  readonly together?: boolean;
}

/** Settings that share one loading of the model. */
interface Group {
  readonly load: LoadOptions;
  readonly settings: readonly Setting[];
}

interface Text {
  readonly name: string;
  readonly prompt: readonly number[];
  readonly sampling: GenerateOptions;
}

interface Row {
  readonly setting: string;
  readonly tokens: number;
  readonly passes: number;
  readonly drafted: number;
  readonly accepted: number;
  /** Where it first differs from the reference; undefined where it is equal. */
  readonly difference?: string;
}

/**
 * Computes the same texts in every way and compares token ids and the bits of log-probabilities with those of one
 * token at a time. Exit code 1 where any of them differs.
 */
export async function verify(flags: VerifyFlags): Promise<number> {
  const status = statusLine(process.stderr);
  const tell = (text: string) => {
    if (!flags.quiet) status.show(text);
  };
  if (flags.printHash) return await printHash(flags, tell);
  const groups = plan(flags);
  return await interruptible(async (signal) => {
    const rows: Row[] = [];
    let reference: GenerationResult[] | undefined;
    try {
      for (const group of groups) {
        await using model = await openModel({ ...flags, quiet: true }, { ...group.load, learn: false });
        const texts = await textsFor(model, flags.maxTokens);
        for (const setting of group.settings) {
          tell(`${setting.name} …`);
          const results = await run(model, texts, setting, flags.maxTokens, signal);
          reference ??= results;
          rows.push(compare(setting.name, texts, reference, results));
        }
      }
    } finally {
      status.clear();
    }
    const report = flags.json ? asJson : asText;
    process.stdout.write(`${report(rows).join("\n")}\n`);
    return rows.some((row) => row.difference !== undefined) ? 1 : 0;
  });
}

/** One line that is the same on every machine, whatever its processor and its build of the core. */
async function printHash(flags: VerifyFlags, tell: (text: string) => void): Promise<number> {
  return await interruptible(async (signal) => {
    await using model = await openModel({ ...flags, quiet: true }, { learn: false });
    const results: GenerationResult[] = [];
    for (const text of await textsFor(model, flags.maxTokens)) {
      tell(`${text.name} …`);
      results.push(...(await run(model, [text], { name: "" }, flags.maxTokens, signal)));
    }
    const hash = hashOf(results);
    process.stdout.write(
      flags.json
        ? `${JSON.stringify({ hash, texts: results.length, max_tokens: flags.maxTokens, instruction_set: model.info.instructionSet })}\n`
        : `${hash}\n`,
    );
    return 0;
  });
}

/** SHA-256 of all token ids and of the bits of their log-probabilities, text after text. */
export function hashOf(results: readonly Pick<GenerationResult, "tokens" | "logprobs">[]): string {
  const hash = createHash("sha256");
  for (const { tokens, logprobs } of results)
    hash.update(Int32Array.of(tokens.length, ...tokens)).update(Float32Array.from(logprobs));
  return hash.digest("hex");
}

/** The first setting of all is the reference. */
function plan(flags: VerifyFlags): Group[] {
  const most = flags.threads ?? Math.min(8, availableParallelism());
  const threads = [...new Set([1, 2, 3, most])].filter((n) => n <= Math.max(3, most));
  const chosen = instructionSetFrom(process.env);
  // The scalar operators define the others and take 30 times as long: only when asked for through the environment.
  const others = coreInfo().instructionSets.filter((name, i) =>
    chosen === undefined ? i > 0 && name !== "scalar" : name !== chosen,
  );
  const usable = strategyNames.filter(
    (name) => name !== "none" && (strategies[name].needs === "nothing" || flags.draftModel !== undefined),
  );
  const drafting = usable.flatMap((strategy): Setting[] => [
    { name: `strategy ${strategy}`, generate: { strategy } },
    ...[1, 7].map((n) => ({
      name: `strategy ${strategy}, always ${n}`,
      generate: { strategy, draftLength: n },
    })),
  ]);
  return [
    {
      load: {},
      settings: [
        { name: "one token at a time (the reference)", generate: { strategy: "none" } },
        { name: "the prompts still in the cache", generate: { strategy: "none" } },
        ...drafting,
        { name: "strategy auto, always 32", generate: { strategy: "auto", draftLength: 32 } },
        { name: "all texts at once", together: true },
      ],
    },
    ...[1, 7, 64].map((n) => ({
      load: { prefillChunk: n },
      settings: [{ name: `prompts in chunks of ${n}` }],
    })),
    ...threads.map((n) => ({
      load: { threads: n },
      settings: [{ name: `${n} ${n === 1 ? "thread" : "threads"}` }],
    })),
    ...others.map((name) => ({
      load: { instructionSet: name as InstructionSet },
      settings: [{ name: `instruction set ${name}` }],
    })),
  ];
}

/** Three prompts, one that invites repetition among them; each greedy, drawn at random and with penalties. */
async function textsFor(model: Model, maxTokens: number): Promise<Text[]> {
  const raw = model.tokenizer.chatTemplate === undefined;
  const samplings: Readonly<Record<string, GenerateOptions>> = {
    greedy: {},
    sampled: { temperature: 0.8, topP: 0.95, seed: 7 },
    "with penalties": { temperature: 1, topK: 40, repetitionPenalty: 1.2, presencePenalty: 0.3, seed: 8 },
  };
  const texts: Text[] = [];
  for (const category of ["questions", "code", "extraction"]) {
    const { prompt } = samplePrompts.findLast((p) => p.category === category)!;
    const tokens = (await model.promptTokens(prompt, { raw })).slice(0, model.info.context - maxTokens);
    for (const [name, sampling] of Object.entries(samplings))
      texts.push({ name: `${category}, ${name}`, prompt: tokens, sampling });
  }
  return texts;
}

async function run(
  model: Model,
  texts: readonly Text[],
  setting: Setting,
  maxTokens: number,
  signal: AbortSignal,
): Promise<GenerationResult[]> {
  const one = async ({ prompt, sampling }: Text) => {
    const options = { ...sampling, ...setting.generate, maxTokens, ignoreEnd: true, signal };
    const result = await model.generate(prompt, options).result;
    if (result.finishReason === "abort") throw new OutriderError("ERR_ABORTED", "The check was stopped.");
    return result;
  };
  if (setting.together) return Promise.all(texts.map(one));
  const results: GenerationResult[] = [];
  for (const text of texts) results.push(await one(text));
  return results;
}

function compare(
  setting: string,
  texts: readonly Text[],
  expected: readonly GenerationResult[],
  results: readonly GenerationResult[],
): Row {
  const sum = (field: "tokens" | "passes" | "drafted" | "accepted") =>
    results.reduce((so, { stats }) => so + stats[field], 0);
  const differences = texts.flatMap((text, i) => {
    const at = firstDifference(expected[i]!, results[i]!);
    return at === undefined ? [] : [`${text.name}: token ${at + 1}`];
  });
  return {
    setting,
    tokens: sum("tokens"),
    passes: sum("passes"),
    drafted: sum("drafted"),
    accepted: sum("accepted"),
    difference: differences[0],
  };
}

/** The first place where token ids or the bits of log-probabilities are not the same. */
export function firstDifference(
  a: Pick<GenerationResult, "tokens" | "logprobs">,
  b: Pick<GenerationResult, "tokens" | "logprobs">,
): number | undefined {
  const length = Math.max(a.tokens.length, b.tokens.length);
  for (let i = 0; i < length; i++)
    // Object.is tells 0 from -0, and finds NaN equal to itself, as a comparison of bits would.
    if (a.tokens[i] !== b.tokens[i] || !Object.is(a.logprobs[i], b.logprobs[i])) return i;
  return undefined;
}

function asJson(rows: readonly Row[]): string[] {
  return rows.map(({ difference, ...row }) =>
    JSON.stringify({ ...row, equal: difference === undefined, difference }),
  );
}

function asText(rows: readonly Row[]): string[] {
  const { stdout } = process;
  const [head, ...lines] = table(
    "lrrrl",
    ["the same texts by way of", "tokens", "passes", "accepted", "result"],
    rows.map((row) => [
      row.setting,
      count(row.tokens),
      count(row.passes),
      row.drafted === 0 ? "" : `${count(row.accepted)} of ${count(row.drafted)}`,
      row.difference === undefined ? "equal" : "DIFFERENT",
    ]),
  );
  const wrong = rows.filter((row) => row.difference !== undefined);
  const compared = rows.slice(1).reduce((sum, row) => sum + row.tokens, 0);
  const verdict =
    wrong.length === 0
      ? paint(
          stdout,
          "green",
          `${count(compared)} tokens and their log-probabilities compared: every bit is the same`,
        )
      : paint(stdout, "red", `${wrong.length} of ${rows.length - 1} differ from one token at a time`);
  return [
    paint(stdout, "bold", head!),
    ...lines,
    "",
    ...wrong.map((row) => `${row.setting}: first difference at ${row.difference}`),
    verdict,
  ];
}
