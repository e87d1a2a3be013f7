import { OutriderError } from "../errors.js";
import { native, Owned, translate } from "./native.js";

/** Weight types that the core multiplies by, with ggml's numbers. */
export const weightTypes = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q5_0: 6,
  Q5_1: 7,
  Q8_0: 8,
  Q2_K: 10,
  Q3_K: 11,
  Q4_K: 12,
  Q5_K: 13,
  Q6_K: 14,
  IQ4_NL: 20,
  IQ4_XS: 23,
  BF16: 30,
} as const;
export type WeightType = keyof typeof weightTypes;

/** One block of memory for all weights of a model. Weights keep it alive. */
export class Arena extends Owned {
  constructor(readonly bytes: number) {
    super(
      native((core) => core.createArena(bytes)),
      "weight arena",
    );
  }
}

/** A matrix in the core's packed form: `rows` outputs, `columns` inputs. Filled by `pack`, then never changed. */
export class Weight extends Owned {
  constructor(
    readonly name: string,
    readonly type: WeightType,
    readonly rows: number,
    readonly columns: number,
    arena: Arena = new Arena(Weight.packedBytes(type, rows, columns)),
  ) {
    super(
      native((core) => core.createWeight(arena.handle, weightTypes[type], rows, columns)),
      `weight ${name}`,
    );
  }

  /** Bytes that a matrix takes in an arena. */
  static packedBytes(type: WeightType, rows: number, columns: number): number {
    return native((core) => core.packedBytes(weightTypes[type], rows, columns));
  }

  get blockQuantised(): boolean {
    return /^I?Q/.test(this.type);
  }

  /**
   * Packs whole rows in the file's layout, off the main thread; rows of another type (F32, F16 or BF16 for a weight of
   * Q8_0 or Q4_1) are quantised on the way. `bytes` must not change until the promise settles.
   */
  async pack(bytes: Uint8Array, firstRow: number, from: WeightType = this.type): Promise<void> {
    try {
      await native((core) =>
        from === this.type
          ? core.packWeight(this.handle, bytes, firstRow)
          : core.quantiseWeight(this.handle, bytes, firstRow, weightTypes[from]),
      );
    } catch (error) {
      throw translate(error);
    }
  }

  /** One row, dequantised exactly. [columns] */
  row(index: number): Float32Array {
    return native((core) => core.unpackRow(this.handle, index));
  }
}

export function isWeightType(type: string): type is WeightType {
  return Object.hasOwn(weightTypes, type);
}

export function checkWeightType(type: string, where: string): WeightType {
  if (isWeightType(type)) return type;
  throw new OutriderError(
    "ERR_MODEL_UNSUPPORTED",
    `${where}: weight type ${type} is not supported. Supported: ${Object.keys(weightTypes).join(", ")}`,
  );
}
