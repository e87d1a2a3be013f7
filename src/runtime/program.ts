import { OutriderError } from "../errors.js";
import type { Core } from "./core.js";
import type { KvCache } from "./kv-cache.js";
import {
  type NativePass,
  type NativeProgramSpec,
  type NativeResult,
  native,
  Owned,
  translate,
} from "./native.js";
import type { Weight } from "./weight.js";

/** A value of the program: one row per row of the pass, or one per wanted output. */
export interface Tensor {
  readonly label: string;
  readonly width: number;
  readonly perOutput: boolean;
  /** Rows for each row, side by side: one for each expert that it uses. Default 1. */
  readonly slots?: number;
  /** 8-bit rows with a scale per 32 numbers, as products with quantised weights read them. */
  readonly quantised?: boolean;
}

const opcodes = {
  embed: 0,
  rmsNorm: 1,
  quantise: 2,
  matmul: 3,
  gated: 4,
  rotary: 5,
  rope: 6,
  store: 7,
  attend: 8,
  add: 9,
  select: 10,
  layerNorm: 11,
  route: 12,
  gatedExperts: 13,
  matmulExperts: 14,
  sumExperts: 15,
} as const;
const opInts = 8;

const finishes = { none: 0, gelu: 1, softCap: 2 } as const;
const activations = { silu: 0, gelu: 1 } as const;
export type Activation = keyof typeof activations;

/** What happens to a product, in this order, before it is used. */
export interface Finish {
  /** Added to every row. [weight.rows] */
  readonly bias?: Float32Array | undefined;
  readonly activation?: "gelu" | undefined;
  readonly scale?: number | undefined;
  /** cap * tanh(x / cap) */
  readonly softCap?: number | undefined;
}

export interface Routing {
  /** How many experts a row uses. */
  readonly used: number;
  readonly gating: keyof typeof gatings;
  /** Whether the chosen experts' weights are divided by their sum. */
  readonly normalise: boolean;
  readonly scale?: number;
}
const gatings = { softmax: 0, sigmoid: 1 } as const;

export interface RopeShape {
  readonly heads: number;
  readonly headDim: number;
  /** Pairs (2i, 2i+1) of each head; else (i, i + half). */
  readonly interleaved: boolean;
  /** Each head is normalised (RMSNorm) before it is rotated. */
  readonly norm?: { readonly weight: Float32Array; readonly epsilon: number } | undefined;
}

export interface AttentionShape {
  readonly heads: number;
  readonly scale: number;
  /** How many positions a row sees, itself among them; 0: all. */
  readonly window?: number | undefined;
  /** Scores become cap * tanh(score / cap). */
  readonly softCap?: number | undefined;
}

/** A constant that may be missing: 1 + its index, or 0. */
interface Optional {
  readonly constant: Float32Array | undefined;
}
const optional = (constant: Float32Array | undefined): Optional => ({ constant });

interface Operation {
  readonly kind: keyof typeof opcodes;
  readonly inputs: readonly Tensor[];
  output: Tensor | undefined;
  /** Fields after the opcode; tensors and weights are resolved to numbers when the program is finished. */
  readonly fields: readonly (Tensor | Weight | Float32Array | Optional | number)[];
  readonly scalar: number;
  /** The output takes the place of this input, which is not used again. */
  inPlace?: Tensor;
  accumulate?: boolean;
}

export interface ProgramOptions {
  readonly vocab: number;
  /** Most rows of a pass; every intermediate value has room for them. */
  readonly maxRows: number;
  /** Most rows of a pass whose logits may be wanted. */
  readonly maxOutputs: number;
  /** Positions run from 0 to one less. */
  readonly maxPosition: number;
  /** Keep activations in float32 before products with quantised weights (slower, for comparison). */
  readonly precise: boolean;
}

/**
 * Writes a program down as equations. Each method returns a new value; nothing runs until `finish` has handed the
 * operators to the core. Wrong shapes are `ERR_PROGRAM` naming the operator and both sides.
 */
export class ProgramBuilder {
  readonly #operations: Operation[] = [];
  readonly #options: ProgramOptions;

  constructor(options: ProgramOptions) {
    this.#options = options;
  }

  /** Positions run from 0 to one less. */
  get maxPosition(): number {
    return this.#options.maxPosition;
  }

  /** Rows of the weight for the pass's tokens, times `scale`. */
  embed(weight: Weight, scale = 1): Tensor {
    return this.#push("embed", [], this.#tensor("embed", weight.columns), (out) => [weight, out, 0], scale);
  }

  /** Rows of the weight for the positions of the pass's tokens. */
  embedPositions(weight: Weight): Tensor {
    return this.#push("embed", [], this.#tensor("positions", weight.columns), (out) => [weight, out, 1], 1);
  }

  /** x / sqrt(mean(x²) + epsilon) * weight */
  rmsNorm(x: Tensor, weight: Float32Array, epsilon: number): Tensor {
    same("rmsNorm", "x's width", x.width, "weight", weight.length);
    return this.#push("rmsNorm", [x], this.#like("rmsNorm", x), (out) => [x, weight, out, 0], epsilon);
  }

  /** (x - mean) / sqrt(variance + epsilon) * weight + bias */
  layerNorm(x: Tensor, weight: Float32Array, bias: Float32Array, epsilon: number): Tensor {
    same("layerNorm", "x's width", x.width, "weight", weight.length);
    same("layerNorm", "x's width", x.width, "bias", bias.length);
    const out = this.#like("layerNorm", x);
    return this.#push("layerNorm", [x], out, () => [x, weight, bias, out], epsilon);
  }

  /** x weightᵀ, finished as told, [rows, weight.rows] */
  matmul(x: Tensor, weight: Weight, finish: Finish = {}): Tensor {
    const { bias, activation, scale = 1, softCap } = finish;
    same("matmul", "x's width", x.width, `${weight.name}'s columns`, weight.columns);
    if (bias) same("matmul", `${weight.name}'s rows`, weight.rows, "bias", bias.length);
    if ([activation, softCap, scale !== 1 || undefined].filter((f) => f !== undefined).length > 1)
      fail("matmul", "only one of activation, scale and softCap fits into one product");
    const out = this.#tensor(weight.name, weight.rows, x.perOutput);
    const kind = activation ?? (softCap === undefined ? "none" : "softCap");
    const after = [optional(bias), finishes[kind]];
    return this.#push("matmul", [x], out, () => [x, weight, out, 0, ...after], softCap ?? scale);
  }

  /** activation(x gateᵀ) * (x upᵀ) */
  gated(x: Tensor, gate: Weight, up: Weight, activation: Activation = "silu"): Tensor {
    same("gated", "x's width", x.width, `${gate.name}'s columns`, gate.columns);
    same("gated", `${gate.name}'s rows`, gate.rows, `${up.name}'s rows`, up.rows);
    sameKind("gated", gate, up);
    const out = this.#tensor("gated", gate.rows, x.perOutput);
    return this.#push("gated", [x], out, () => [x, gate, up, out, activations[activation]]);
  }

  /**
   * The experts with the highest scores (ties: the lowest number) and their weights. scores: [rows, experts]; gives
   * [rows, weights of the used experts, then their numbers].
   */
  route(scores: Tensor, { used, gating, normalise, scale = 1 }: Routing): Tensor {
    if (used > scores.width) fail("route", `${used} experts are used of ${scores.width}`);
    const out = this.#tensor("route", 2 * used, scores.perOutput);
    const fields = [scores, out, gatings[gating], normalise ? 1 : 0];
    return this.#push("route", [scores], out, () => fields, scale);
  }

  /** activation(x gateᵀ) * (x upᵀ) for each expert that a row uses. Weights: [experts * inner width, x's width] */
  gatedExperts(
    x: Tensor,
    routes: Tensor,
    gate: Weight,
    up: Weight,
    width: number,
    activation: Activation = "silu",
  ): Tensor {
    sameKind("gatedExperts", gate, up);
    same("gatedExperts", "x's width", x.width, `${gate.name}'s columns`, gate.columns);
    const out = { ...this.#tensor("gatedExperts", width, x.perOutput), slots: routes.width / 2 };
    const fields = [x, routes, gate, up, out, activations[activation]];
    return this.#push("gatedExperts", [x, routes], out, () => fields);
  }

  /** x weightᵀ, slot by slot with the weights of the slot's expert. weight: [experts * width, x's width] */
  matmulExperts(x: Tensor, routes: Tensor, weight: Weight, width: number): Tensor {
    same("matmulExperts", "x's width", x.width, `${weight.name}'s columns`, weight.columns);
    const out = { ...this.#tensor("matmulExperts", width, x.perOutput), slots: routes.width / 2 };
    return this.#push("matmulExperts", [x, routes], out, () => [x, routes, weight, out]);
  }

  /** The slots of each row, weighed and added up in order. */
  sumExperts(x: Tensor, routes: Tensor): Tensor {
    const out = this.#tensor("sumExperts", x.width, x.perOutput);
    return this.#push("sumExperts", [x, routes], out, () => [x, routes, out, 0]);
  }

  /** Cosines and sines of position * frequency, times magnitude. frequencies: [rotary dimensions / 2] */
  rotary(frequencies: Float32Array, magnitude = 1): Tensor {
    return this.#push(
      "rotary",
      [],
      this.#tensor("rotary", frequencies.length * 2),
      (out) => [frequencies, out],
      magnitude,
    );
  }

  /** Rotates pairs of numbers of each head by its position's angles. `x` is used up. */
  rope(x: Tensor, rotary: Tensor, { heads, headDim, interleaved, norm }: RopeShape): Tensor {
    same("rope", "x's width", x.width, "heads x head size", heads * headDim);
    if (norm) same("rope", "head size", headDim, "norm", norm.weight.length);
    const out = this.#like("rope", x);
    const fields = [x, rotary, heads, headDim, interleaved ? 1 : 0, optional(norm?.weight)];
    this.#push("rope", [x, rotary], out, () => fields, norm?.epsilon ?? 0);
    this.#operations.at(-1)!.inPlace = x;
    return out;
  }

  /** Puts keys and values of the pass's rows into the cache. */
  store(keys: Tensor, values: Tensor, layer: number): void {
    same("store", "keys' width", keys.width, "values' width", values.width);
    this.#operations.push({
      kind: "store",
      inputs: [keys, values],
      output: undefined,
      fields: [keys, values, layer],
      scalar: 0,
    });
  }

  /** softmax(q kᵀ * scale) v over each row's own past. */
  attend(queries: Tensor, layer: number, { heads, scale, window = 0, softCap }: AttentionShape): Tensor {
    const out = this.#like("attend", queries);
    const cap = optional(softCap === undefined ? undefined : Float32Array.of(softCap));
    return this.#push("attend", [queries], out, () => [queries, out, layer, heads, window, cap], scale);
  }

  add(a: Tensor, b: Tensor): Tensor {
    same("add", "a's width", a.width, "b's width", b.width);
    return this.#push("add", [a, b], this.#like("add", a), (out) => [a, b, out]);
  }

  /** Only the rows whose logits are wanted go on. */
  selectOutputs(x: Tensor): Tensor {
    return this.#push("select", [x], this.#tensor("select", x.width, true), (out) => [x, out]);
  }

  /**
   * Hands the program to the core, which checks it once more. `output`: a value per wanted output, the logits or one
   * before them, such as the final hidden state: what is only needed for later ones is left out.
   */
  finish(core: Core, cache: KvCache, output: Tensor): Program {
    const { vocab } = this.#options;
    const end = this.#operations.findIndex((op) => op.output === output) + 1;
    const spec = lower(this.#operations.slice(0, end), output, this.#options.precise);
    return new Program(core, {
      ...spec,
      cache: cache.handle,
      vocab: Math.min(vocab, output.width),
      tokens: vocab,
      maxRows: this.#options.maxRows,
      maxOutputs: this.#options.maxOutputs,
      maxPosition: this.#options.maxPosition,
    });
  }

  #tensor(label: string, width: number, perOutput = false): Tensor {
    return { label, width, perOutput };
  }

  #like(label: string, x: Tensor): Tensor {
    return this.#tensor(label, x.width, x.perOutput);
  }

  #push(
    kind: Operation["kind"],
    inputs: readonly Tensor[],
    output: Tensor,
    fields: (out: Tensor) => Operation["fields"],
    scalar = 0,
  ): Tensor {
    this.#operations.push({ kind, inputs, output, fields: fields(output), scalar });
    return output;
  }
}

type Lowered = Omit<
  NativeProgramSpec,
  "cache" | "vocab" | "tokens" | "maxRows" | "maxOutputs" | "maxPosition"
>;

/**
 * From equations to records: sums with a product or a norm write into the residual stream, products with quantised weights get
 * quantised inputs (norms give them directly), and values that are no longer needed give their buffer to later ones.
 */
function lower(source: readonly Operation[], logits: Tensor, precise: boolean): Lowered {
  const selected = selectEarly(source.map((op) => ({ ...op })));
  const operations = quantiseInputs(addInPlace(selected), logits, precise);

  const storage = new Map<Tensor, Tensor>(); // value → the value whose buffer it lives in
  const home = (t: Tensor): Tensor => {
    const next = storage.get(t);
    return next ? home(next) : t;
  };
  for (const op of operations) if (op.output && op.inPlace) storage.set(op.output, op.inPlace);

  const lastUse = new Map<Tensor, number>([[home(logits), operations.length]]);
  operations.forEach((op, i) => {
    for (const t of [...op.inputs, ...(op.output ? [op.output] : [])])
      lastUse.set(home(t), Math.max(i, lastUse.get(home(t)) ?? 0));
  });

  const buffers: number[] = [];
  const free = new Map<string, number[]>();
  const assigned = new Map<Tensor, number>();
  const shape = (t: Tensor) => [t.quantised ? 1 : 0, t.perOutput ? 1 : 0, t.width, t.slots ?? 1];
  const weights: Weight[] = [];
  const constants: Float32Array[] = [];
  const indexIn = <T>(list: T[], item: T) => (list.includes(item) ? list.indexOf(item) : list.push(item) - 1);
  const ops = new Int32Array(operations.length * opInts);
  operations.forEach((op, i) => {
    if (op.output && !assigned.has(home(op.output))) {
      const key = shape(op.output).join();
      const reused = free.get(key)?.pop();
      assigned.set(home(op.output), reused ?? buffers.length / 4);
      if (reused === undefined) buffers.push(...shape(op.output));
    }
    const numbers = op.fields.map((f) => {
      if (typeof f === "number") return f;
      if (f instanceof Float32Array) return indexIn(constants, f);
      if (f instanceof Owned) return indexIn(weights, f as Weight);
      if ("constant" in f) return f.constant ? indexIn(constants, f.constant) + 1 : 0;
      const buffer = assigned.get(home(f as Tensor));
      if (buffer === undefined) fail(op.kind, `${(f as Tensor).label} is used before it is computed`);
      return buffer as number;
    });
    if (op.accumulate) numbers[accumulateField] = 1;
    ops.set([opcodes[op.kind], ...numbers], i * opInts);
    for (const t of new Set([...op.inputs, ...(op.output ? [op.output] : [])].map(home)))
      if (lastUse.get(t) === i) {
        const key = shape(t).join();
        free.set(key, [...(free.get(key) ?? []), assigned.get(t)!]);
      }
  });
  const logitsBuffer = assigned.get(home(logits));
  if (logitsBuffer === undefined) fail("finish", "logits are not computed by this program");
  return {
    buffers: Int32Array.from(buffers),
    ops,
    scalars: Float32Array.from(operations, (op) => op.scalar),
    weights: weights.map((w) => w.handle),
    constants,
    logits: logitsBuffer as number,
  };
}

/** Operators whose output row depends on the same row of their inputs only. */
const rowLocal: ReadonlySet<Operation["kind"]> = new Set([
  "rmsNorm",
  "layerNorm",
  "matmul",
  "gated",
  "add",
  "route",
  "gatedExperts",
  "matmulExperts",
  "sumExperts",
]);

/**
 * Rows whose logits nobody wants are dropped as soon as no other row needs them, not at the end: a prompt's rows stop
 * at the last layer's keys and values.
 */
function selectEarly(source: readonly Operation[]): Operation[] {
  const early = new Set<Operation>(); // computed for the wanted rows only
  for (const op of [...source].reverse()) {
    if (!rowLocal.has(op.kind) || op.output?.perOutput) continue;
    const users = source.filter((o) => o.inputs.includes(op.output!));
    if (users.length > 0 && users.every((o) => o.kind === "select" || early.has(o))) early.add(op);
  }
  const selected = new Map<Tensor, Tensor>(); // value → the same value for the wanted rows only
  return source.flatMap((op) => {
    if (op.kind === "select" && selected.has(op.inputs[0]!)) {
      selected.set(op.output!, selected.get(op.inputs[0]!)!);
      return [];
    }
    const added: Operation[] = [];
    let moved = op;
    for (const input of op.inputs) {
      if (early.has(op) && !selected.has(input)) {
        const output = { ...input, perOutput: true };
        selected.set(input, output);
        added.push({ kind: "select", inputs: [input], output, fields: [input, output], scalar: 0 });
      }
      const rows = early.has(op) || op.output?.perOutput ? selected.get(input) : undefined;
      if (rows) moved = replaceInput(moved, input, rows);
    }
    if (early.has(op)) {
      const output = { ...op.output!, perOutput: true };
      selected.set(op.output!, output);
      moved = { ...moved, output, fields: moved.fields.map((f) => (f === op.output ? output : f)) };
    } else if (op.kind === "select") selected.set(op.inputs[0]!, op.output!);
    return [...added, moved];
  });
}

/** Operators that can add to their output, and where their records say so (all in the same field). */
const accumulating: readonly string[] = ["matmul", "rmsNorm", "sumExperts"];
const accumulateField = 3;

/** add(x, matmul(h, w)) becomes a product that accumulates into x, where x is not needed any more. Norms likewise. */
function addInPlace(operations: Operation[]): Operation[] {
  const uses = (t: Tensor) => operations.flatMap((op, i) => (op.inputs.includes(t) ? [i] : []));
  const absorbed = new Set<Operation>();
  operations.forEach((op, i) => {
    if (op.kind !== "add") return;
    const [x, product] = op.inputs as [Tensor, Tensor];
    const at = operations.findIndex((o) => o.output === product);
    const producer = operations[at];
    if (!producer || !accumulating.includes(producer.kind) || uses(product).length !== 1) return;
    const h = producer.inputs;
    const made = operations.findIndex((o) => o.output === x);
    if (h.includes(x) || made > at || uses(x).some((u) => u > at && u !== i)) return;
    const output = op.output as Tensor;
    operations[at] = {
      ...producer,
      inputs: [...h, x],
      output,
      fields: producer.fields.map((f) => (f === product ? output : f)),
      inPlace: x,
      accumulate: true,
    };
    absorbed.add(op);
  });
  return operations.filter((op) => !absorbed.has(op));
}

const products: readonly string[] = ["matmul", "gated", "gatedExperts", "matmulExperts"];

/** Products with block-quantised weights read quantised rows; a norm that feeds nothing else writes them itself. */
function quantiseInputs(operations: readonly Operation[], logits: Tensor, precise: boolean): Operation[] {
  if (precise) return [...operations];
  const wants = (op: Operation, t: Tensor) =>
    products.includes(op.kind) &&
    op.fields[0] === t &&
    (op.fields.find((f) => f instanceof Owned) as Weight).blockQuantised;
  const quantised = new Map<Tensor, Tensor>();
  const lowered: Operation[] = [];
  for (const op of operations) {
    const input = op.inputs[0];
    const rows = input && quantised.get(input);
    lowered.push(rows && wants(op, input) ? replaceInput(op, input, rows) : op);
    const out = op.output;
    if (!out || !operations.some((o) => wants(o, out))) continue;
    const q: Tensor = { ...out, label: `${out.label} (8 bit)`, quantised: true };
    quantised.set(out, q);
    const onlyProducts = out !== logits && operations.every((o) => !o.inputs.includes(out) || wants(o, out));
    if ((op.kind === "rmsNorm" || op.kind === "layerNorm") && !op.accumulate && onlyProducts)
      lowered[lowered.length - 1] = {
        ...op,
        output: q,
        fields: op.fields.map((f) => (f === out ? q : f)),
      };
    else lowered.push({ kind: "quantise", inputs: [out], output: q, fields: [out, q], scalar: 0 });
  }
  return lowered;
}

function replaceInput(op: Operation, from: Tensor, to: Tensor): Operation {
  const swap = <T>(x: T) => ((x as unknown) === from ? (to as T) : x);
  return { ...op, inputs: op.inputs.map(swap), fields: op.fields.map(swap) };
}

function sameKind(operation: string, gate: Weight, up: Weight): void {
  if (gate.blockQuantised === up.blockQuantised) return;
  throw new OutriderError(
    "ERR_MODEL_UNSUPPORTED",
    `${operation}: ${gate.name} is ${gate.type} and ${up.name} is ${up.type}: both must be quantised or neither`,
  );
}

function same(operation: string, left: string, a: number, right: string, b: number): void {
  if (a !== b) fail(operation, `${left} ${a} and ${right} ${b} differ`);
}

function fail(operation: string, what: string): never {
  throw new OutriderError("ERR_PROGRAM", `${operation}: ${what}`);
}

/** A checked program in the core. It keeps its weights and its cache alive until it is closed. */
export class Program extends Owned {
  readonly #never = native((addon) => addon.createCancel());

  constructor(core: Core, spec: NativeProgramSpec) {
    super(
      native((addon) => addon.createProgram(core.handle, spec)),
      "program",
    );
  }

  /**
   * Runs a pass on the core's threads. Aborting the signal stops it between two operators with `ERR_ABORTED`; logits
   * that are not finite end it with `ERR_RUNTIME_NAN`.
   */
  async run(pass: NativePass, signal?: AbortSignal): Promise<NativeResult> {
    if (signal?.aborted) throw aborted(signal);
    // Creating a flag for each pass would cost as much as starting the pass.
    const cancel = signal ? native((addon) => addon.createCancel()) : this.#never;
    const onAbort = () => native((addon) => addon.cancel(cancel));
    signal?.addEventListener("abort", onAbort);
    try {
      const result = await native((addon) => addon.run(this.handle, pass, cancel));
      if (!result.finished) throw aborted(signal);
      return result;
    } catch (error) {
      throw translate(error);
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }
}

function aborted(signal: AbortSignal | undefined): OutriderError {
  return new OutriderError("ERR_ABORTED", "the generation was aborted", { cause: signal?.reason });
}
