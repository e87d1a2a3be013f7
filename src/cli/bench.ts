import { accessSync, constants, existsSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { locateModel } from "../api/locate-model.js";
import { Engine } from "../engine/engine.js";
import { embeddedModel, type Model, type Strategy } from "../index.js";
import { openModelSource } from "../weights/open-model-source.js";
import { rounded } from "./answer.js";
import { type BenchReport, benchPage } from "./bench-page.js";
import { type CostCurve, measureCosts } from "./cost-curve.js";
import { type BenchPrompt, measureDecoding, type Speed, speeds } from "./decoding-speed.js";
import { locate, usageError } from "./failure.js";
import { interruptible } from "./interrupt.js";
import { type JsonLine, promptOf, readJsonLines } from "./json-lines.js";
import { circumstances } from "./machine.js";
import { median } from "./median.js";
import { openModel } from "./open-model.js";
import { loadOptions, type ModelFlags } from "./options.js";
import { samplePrompts } from "./sample-prompts.js";
import { count, figures, megabytes, table, wrap } from "./table.js";
import { paint, statusLine } from "./terminal.js";
import { measureTogether, type Together } from "./together.js";

export interface BenchFlags extends ModelFlags {
  readonly prompts?: string;
  readonly limit?: number;
  readonly strategies?: readonly Strategy[];
  readonly maxTokens: number;
  readonly repetitions: number;
  /** So many prompts at a time, beside one after another. */
  readonly batch?: readonly number[];
  /** So many samples of one prompt at a time. */
  readonly samples?: readonly number[];
  /** Write the report with charts to this file. */
  readonly html?: string;
}

/** The cost of a pass by its length, and the speed of decoding by category; tables or JSON lines. */
export async function bench(flags: BenchFlags): Promise<number> {
  const lines = flags.prompts === undefined ? undefined : await readJsonLines(flags.prompts, flags.limit);
  const strategies: readonly Strategy[] =
    flags.strategies ?? (flags.draftModel === undefined ? ["none", "auto"] : ["none", "auto", "draft-model"]);
  if (strategies.includes("draft-model") && flags.draftModel === undefined)
    throw usageError("strategy draft-model needs --draft-model PATH");
  if (flags.html !== undefined) checkWritable(flags.html);
  const status = statusLine(process.stderr);
  const tell = (text: string) => {
    if (!flags.quiet) status.show(text);
  };
  return await interruptible(async (signal) => {
    try {
      const rounds = 3 * flags.repetitions;
      const costs = await withEngine(flags, (engine) =>
        measureCosts(engine, rounds, { signal, onRound: (r) => tell(`pass costs: round ${r} of ${rounds}`) }),
      );
      await using model = await openModel(flags, { learn: false });
      const prompts = await promptsFor(model, lines, flags.limit);
      const runs = await measureDecoding(model, prompts, {
        ...flags,
        strategies,
        signal,
        onPrompt: (r, p) =>
          tell(`decoding: repetition ${r + 1} of ${flags.repetitions}, prompt ${p + 1} of ${prompts.length}`),
      });
      const together = await measureTogether(model, prompts, {
        batches: flags.batch ?? [],
        samples: flags.samples ?? [],
        repetitions: flags.repetitions,
        maxTokens: flags.maxTokens,
        signal,
        onSize: (kind, size) => tell(`${kind}: ${size} at a time`),
      });
      status.clear();
      const decoding = speeds(runs, strategies);
      const report = flags.json ? asJson : asText;
      process.stdout.write(`${report(model, flags, costs, decoding, together).join("\n")}\n`);
      if (flags.html !== undefined) writePage(flags.html, model, { costs, decoding, together });
      const exact = [...decoding, ...together].every((row) => row.exact === row.answers);
      if (!exact) process.stderr.write("some answers differ: run outrider verify and report what it says\n");
      return exact ? 0 : 1;
    } finally {
      status.clear();
    }
  });
}

/** Refuses a page that could not be written before it is worked for. */
function checkWritable(file: string): void {
  try {
    accessSync(existsSync(file) ? file : dirname(file), constants.W_OK);
  } catch (error) {
    throw cannotWrite(file, error);
  }
}

const cannotWrite = (file: string, error: unknown) =>
  usageError(`--html: ${file} cannot be written: ${(error as NodeJS.ErrnoException).code}`);

function writePage(
  file: string,
  model: Model,
  figuresOf: Omit<BenchReport, "title" | "circumstances">,
): void {
  const [title, circumstance] = headOf(model);
  try {
    writeFileSync(file, benchPage({ title, circumstances: circumstance, ...figuresOf }));
  } catch (error) {
    throw cannotWrite(file, error);
  }
}

async function withEngine<T>(flags: BenchFlags, work: (engine: Engine) => Promise<T>): Promise<T> {
  const { draftModel: _, quantize, ...options } = loadOptions(flags, process.env);
  const path = await locateModel(flags.model ?? embeddedModel, options);
  await using file = await openModelSource(path, quantize);
  await using engine = await Engine.load(file, options);
  return await work(engine);
}

async function promptsFor(
  model: Model,
  lines: readonly JsonLine[] | undefined,
  limit: number | undefined,
): Promise<BenchPrompt[]> {
  const raw = model.tokenizer.chatTemplate === undefined;
  const prompts: BenchPrompt[] = [];
  if (lines === undefined) {
    for (const { category, prompt } of samplePrompts.slice(0, limit))
      prompts.push({ category, tokens: await model.promptTokens(prompt, { raw }) });
    return prompts;
  }
  for (const line of lines) {
    const { category = "none" } = line.value;
    const tokens = await model.promptTokens(promptOf(line), { raw }).catch((error: unknown) => {
      throw locate(line.where, error);
    });
    prompts.push({ category: String(category), tokens });
  }
  return prompts;
}

function asJson(
  model: Model,
  flags: BenchFlags,
  costs: CostCurve,
  decoding: readonly Speed[],
  together: readonly Together[],
): string[] {
  const about = circumstances(model.info);
  const times = (ms: readonly number[]) => ({
    repetitions: ms.length,
    ms: { median: rounded(median(ms)), values: ms.map(rounded) },
  });
  const values = (m: Speed["speedup"]) => ({ median: rounded(m.median), values: m.values.map(rounded) });
  return [
    { bench: "read-weights", bytes: costs.read.bytes, ...times(costs.read.ms), ...about },
    ...costs.passes.map(({ n, ms }) => ({ bench: "pass", n, past: costs.past, ...times(ms), ...about })),
    { bench: "prefill", n: costs.prefill.n, past: 0, ...times(costs.prefill.ms), ...about },
    ...decoding.map((speed) => ({
      bench: "decode",
      strategy: speed.strategy,
      category: speed.category,
      n: speed.prompts,
      repetitions: flags.repetitions,
      max_tokens: flags.maxTokens,
      tokens_per_second: values(speed.tokensPerSecond),
      tokens_per_pass: values(speed.tokensPerPass),
      speedup: {
        ...values(speed.speedup),
        ...(speed.interval && { low: rounded(speed.interval.low), high: rounded(speed.interval.high) }),
      },
      accepted_per_pass: rounded(speed.accepted),
      accepted_by_position: speed.acceptedByPosition.map(rounded),
      draft_share: rounded(speed.draftShare),
      answers: speed.answers,
      exact: speed.exact,
      ...about,
    })),
    ...together.map((row) => ({
      bench: row.kind,
      n: row.size,
      max_tokens: flags.maxTokens,
      tokens_per_second: rounded(row.tokensPerSecond),
      speedup: rounded(row.speedup),
      answers: row.answers,
      exact: row.exact,
      ...about,
    })),
  ].map((record) => JSON.stringify(record));
}

/** What was measured, and on what. */
function headOf(model: Model): [string, string] {
  const { version, commit, machine } = circumstances(model.info);
  return [
    `${model.info.name} · outrider ${version}${commit === undefined ? "" : ` (${commit})`}`,
    `${machine.cpu} · ${machine.threads} of ${machine.cores} cores · ${machine.instruction_set} · node ${machine.node}`,
  ];
}

function asText(
  model: Model,
  flags: BenchFlags,
  costs: CostCurve,
  decoding: readonly Speed[],
  together: readonly Together[],
): string[] {
  const { stdout } = process;
  const section = (align: string, head: readonly string[], rows: readonly (readonly string[])[]) => {
    const [first, ...lines] = table(align, head, rows);
    return [paint(stdout, "bold", first!), ...lines];
  };
  const single = median(costs.passes[0]!.ms);
  const pass = (label: string, n: number, ms: readonly number[]) => {
    const time = median(ms);
    return [label, figures(time), figures(time / single), count(Math.round((1000 * n) / time))];
  };
  return [
    ...headOf(model),
    "",
    ...section(
      "lrrr",
      [`tokens in a pass (past ${costs.past})`, "ms", "× one token", "tokens/s"],
      [
        ...costs.passes.map(({ n, ms }) => pass(String(n), n, ms)),
        pass(`prompt of ${costs.prefill.n} (past 0)`, costs.prefill.n, costs.prefill.ms),
        [
          `reading the weights (${megabytes(costs.read.bytes)})`,
          figures(median(costs.read.ms)),
          figures(median(costs.read.ms) / single),
          "",
        ],
      ],
    ),
    "",
    ...section(
      "llrrrrrrr",
      [
        "category",
        "strategy",
        "n",
        "tok/s",
        "tok/pass",
        `× ${decoding[0]!.strategy}`,
        "95 %",
        "drafter",
        "exact",
      ],
      decoding.map((s) => [
        s.category.replaceAll("_", " "),
        s.strategy,
        String(s.prompts),
        figures(s.tokensPerSecond.median),
        figures(s.tokensPerPass.median),
        figures(s.speedup.median),
        s.interval ? `${figures(s.interval.low)}–${figures(s.interval.high)}` : "",
        `${figures(100 * s.draftShare)} %`,
        s.exact === s.answers ? "all" : `${s.exact}/${s.answers}`,
      ]),
    ),
    ...(together.length === 0
      ? []
      : [
          "",
          ...section(
            "lrrrr",
            ["several at a time", "n", "tokens/s", "× one by one", "exact"],
            together.map((t) => [
              t.kind === "batch" ? "prompts side by side" : "samples of one prompt",
              String(t.size),
              figures(t.tokensPerSecond),
              figures(t.speedup),
              t.exact === t.answers ? "all" : `${t.exact}/${t.answers}`,
            ]),
          ),
        ]),
    ...wrap(
      `medians of ${flags.repetitions} interleaved repetitions, at most ${flags.maxTokens} tokens an answer, greedy`,
    ).map((line) => paint(stdout, "dim", line)),
  ];
}
