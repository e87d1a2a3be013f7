import { locateModel } from "../api/locate-model.js";
import { openTokenizer } from "../api/model.js";
import { defaultSequences } from "../engine/engine.js";
import { OutriderError } from "../errors.js";
import { embeddedModel } from "../index.js";
import { planModel } from "../models/load.js";
import { availableMemory, judgeMemory, type MemoryVerdict } from "../models/memory.js";
import { coreInfo } from "../runtime/native.js";
import { fallbackTemplate } from "../text/fallback-template.js";
import type { MetadataValue } from "../weights/gguf.js";
import type { ModelSource, TensorInfo } from "../weights/model-source.js";
import { openModelSource } from "../weights/open-model-source.js";
import type { Quantization } from "../weights/quantise.js";
import { usageError } from "./failure.js";
import { instructionSetFrom } from "./options.js";
import { count, megabytes, table, wrap } from "./table.js";
import { paint, printable } from "./terminal.js";

export interface InspectFlags {
  readonly context?: number;
  readonly precise?: boolean;
  readonly quantize?: Quantization;
  readonly json?: boolean;
}

/** What a file says of itself and what running it would take; reads the header alone. */
export async function inspect(source: string | undefined, flags: InspectFlags): Promise<number> {
  const path = await locateModel(source ?? embeddedModel, { offline: true });
  await using file = await openModelSource(path, flags.quantize);
  const use = whatItTakes(file, flags);
  const instructionSets = { available: coreInfo().instructionSets, used: usedInstructionSet() };
  const tell = flags.json ? asJson : asText;
  process.stdout.write(`${tell(file, use, remarksOn(file), instructionSets)}\n`);
  return 0;
}

type Use =
  | ({ readonly supported: true; readonly context: number } & MemoryVerdict)
  | { readonly supported: false; readonly reason: string };

/** A file that cannot be run can still be looked at. */
function whatItTakes(file: ModelSource, { context, precise }: InspectFlags): Use {
  try {
    const plan = planModel(file);
    const most = plan.config.context;
    if (context !== undefined && (context < 1 || context > most))
      throw usageError(`context is ${context}, expected a whole number from 1 to ${most}`, "context");
    const positions = context ?? Math.min(most, 8192);
    const precision = precise ? "f32" : "f16";
    return {
      supported: true,
      context: positions,
      ...judgeMemory(plan, positions, precision, availableMemory()),
    };
  } catch (error) {
    if (!(error instanceof OutriderError) || error.code === "ERR_BAD_REQUEST") throw error;
    return { supported: false, reason: error.message };
  }
}

/** What is odd about a file's text side, also what is too small for a warning. */
function remarksOn(file: ModelSource): readonly string[] {
  try {
    const tokenizer = openTokenizer(file);
    const fallback = tokenizer.chatTemplates.size === 0 ? [fallbackTemplate(tokenizer).warning] : [];
    return [...tokenizer.warnings, ...fallback, ...tokenizer.remarks];
  } catch (error) {
    if (!(error instanceof OutriderError)) throw error;
    return [error.message];
  }
}

function usedInstructionSet(): string {
  return instructionSetFrom(process.env) ?? coreInfo().instructionSets[0]!;
}

interface InstructionSets {
  readonly available: readonly string[];
  readonly used: string;
}

function asText(
  file: ModelSource,
  use: Use,
  remarks: readonly string[],
  instructionSets: InstructionSets,
): string {
  const bold = (text: string) => paint(process.stdout, "bold", text);
  const section = (align: string, head: readonly string[], rows: readonly (readonly string[])[]) => {
    const [first, ...lines] = table(align, head, rows);
    return [bold(first!), ...lines];
  };
  const memory = use.supported
    ? [
        ...section(
          "lr",
          ["memory", ""],
          [
            ["weights", megabytes(use.weights)],
            [`keys and values of a text of ${count(use.context)} tokens`, megabytes(use.cache)],
            ["values of a pass, the program, loading", megabytes(use.beside)],
            ["together, as --memory-limit counts", megabytes(use.needed)],
            ["available on this machine", megabytes(use.available)],
          ],
        ),
        ...(use.advice === undefined ? [] : wrap(`It does not fit: ${use.advice}.`)),
        ...wrap(
          "Several texts at a time take keys and values each, as they grow: " +
            `up to ${megabytes(defaultSequences * use.cache)} in all.`,
        ),
      ]
    : [bold("memory"), ...wrap(`It cannot be run: ${printable(use.reason)}`)];
  const others = instructionSets.available.filter((name) => name !== instructionSets.used);
  return [
    ...section(
      "ll",
      ["file", ""],
      [
        ["path", printable(file.path)],
        ["size", megabytes(file.size)],
        ["format", file.format],
        ...(file.files.length > 1 ? [["files", String(file.files.length)]] : []),
      ],
    ),
    "",
    ...section(
      "ll",
      ["metadata", ""],
      [...file.metadata].map(([key, value]) => [printable(key), shortValue(value)]),
    ),
    "",
    ...section(
      "lllrr",
      ["tensors", "type", "shape", "number", "size"],
      [
        ...groupTensors(file.tensors.values()).map((g) => [
          printable(g.name),
          g.type,
          g.shape.map(count).join(" × "),
          count(g.number),
          megabytes(g.bytes),
        ]),
      ],
    ),
    "",
    ...(remarks.length === 0
      ? []
      : [bold("remarks"), ...remarks.flatMap((text) => wrap(printable(text))), ""]),
    ...memory,
    "",
    ...section(
      "ll",
      ["instruction set", ""],
      [[instructionSets.used, others.length > 0 ? `also available: ${others.join(", ")}` : ""]],
    ),
  ].join("\n");
}

/** Characters shown of a value that is text: a chat template may have thousands. */
const MOST_SHOWN = 60;

/** Longer lists, vocabularies for one, are told by their length in JSON too. */
const MOST_LISTED = 64;

/** A line for a value; arrays by their length, which may be that of a vocabulary. */
export function shortValue(value: MetadataValue): string {
  if (typeof value === "string") {
    const text = printable(value.slice(0, MOST_SHOWN));
    return value.length > MOST_SHOWN ? `${text}…` : text;
  }
  if (typeof value !== "object")
    return typeof value === "number" && !Number.isInteger(value)
      ? String(Number(value.toPrecision(7))) // float32 has no more
      : String(value);
  const few =
    value.length <= 4
      ? Array.from(value as ArrayLike<unknown>, String)
          .map(printable)
          .join(", ")
      : undefined;
  return few === undefined ? `[${count(value.length)} ${elementName(value)}]` : `[${few}]`;
}

function elementName(value: Exclude<MetadataValue, string | number | bigint | boolean>): string {
  if (ArrayBuffer.isView(value)) return "numbers";
  return typeof value[0] === "string" ? "texts" : "values";
}

interface TensorGroup {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  number: number;
  bytes: number;
}

/** Tensors whose names differ in a number only, and that are alike, in one line: blk.N.attn_q.weight. */
export function groupTensors(tensors: Iterable<TensorInfo>): TensorGroup[] {
  const groups = new Map<string, TensorGroup>();
  for (const tensor of tensors) {
    const name = tensor.name.replace(/\.\d+\./, ".N.");
    const key = [name, tensor.type, ...tensor.shape].join(" ");
    const group = groups.get(key);
    if (group === undefined)
      groups.set(key, { name, type: tensor.type, shape: tensor.shape, number: 1, bytes: tensor.bytes });
    else {
      group.number++;
      group.bytes += tensor.bytes;
    }
  }
  return [...groups.values()];
}

function asJson(
  file: ModelSource,
  use: Use,
  remarks: readonly string[],
  instructionSets: InstructionSets,
): string {
  const metadata = Object.fromEntries(
    [...file.metadata].map(([key, value]) => [
      key,
      typeof value !== "object" ? value : value.length <= MOST_LISTED ? Array.from(value) : shortValue(value),
    ]),
  );
  return JSON.stringify(
    {
      file: file.path,
      size: file.size,
      format: file.format,
      files: file.files,
      metadata,
      tensors: [...file.tensors.values()].map(({ name, type, shape, offset, bytes }) => ({
        name,
        type,
        shape,
        offset,
        bytes,
      })),
      memory: use,
      remarks,
      instruction_set: instructionSets.used,
      instruction_sets: instructionSets.available,
    },
    (_, value) => (typeof value === "bigint" ? String(value) : value),
  );
}
