import { promisify } from "node:util";
import { brotliCompress, brotliDecompress, constants } from "node:zlib";
import { guideCalibration } from "./guide.js";
import { Mixture, type SavedMixture } from "./mixture.js";
import { NgramTable } from "./ngrams.js";
import type { Predictor } from "./predictor.js";
import { RecycledTable } from "./recycled.js";

/** What drafting learned from a model's texts, whichever they were; one for a loaded model. */
export class DraftMemory {
  readonly ngrams: NgramTable;
  readonly recycled = new RecycledTable();
  readonly guides = guideCalibration();
  readonly #mixtures = new Map<string, Mixture>();
  #saved: Readonly<Record<string, SavedMixture>> = {};

  /** `contexts`: how many the n-gram table has room for, a power of two. */
  constructor(contexts?: number) {
    this.ngrams = new NgramTable(contexts);
  }

  /** What is known about the worth of these predictors' guesses. */
  mixture(name: string, predictors: readonly Predictor[]): Mixture {
    let mixture = this.#mixtures.get(name);
    if (mixture === undefined) {
      mixture = new Mixture(predictors);
      const saved = this.#saved[name];
      if (saved !== undefined) mixture.load(saved);
      this.#mixtures.set(name, mixture);
    }
    return mixture;
  }

  /** Takes over what another memory knows about the worth of guesses. */
  adopt(other: DraftMemory): void {
    this.#saved = other.#worth();
    this.#mixtures.clear();
  }

  #worth(): Readonly<Record<string, SavedMixture>> {
    const learned = [...this.#mixtures].map(([name, mixture]) => [name, mixture.save()] as const);
    return { ...this.#saved, ...Object.fromEntries(learned) };
  }

  /**
   * What is worth keeping, packed: the n-grams that were counted `least` times or more, and what guesses are worth. The
   * model's choices in rejected rows are not: they are of use while a subject lasts.
   */
  async save(least = 1, quality = 1): Promise<Buffer> {
    const head = Buffer.from(JSON.stringify(this.#worth()));
    const sizes = Buffer.alloc(MAGIC.length + 4);
    sizes.write(MAGIC, "latin1");
    sizes.writeUInt32LE(head.length, MAGIC.length);
    return pack(Buffer.concat([sizes, head, this.ngrams.save(least)]), {
      params: { [constants.BROTLI_PARAM_QUALITY]: quality },
    });
  }

  /** Adds what `save` gave. False where the bytes are anything else, damaged ones for instance; then nothing is added. */
  async load(packed: Buffer, vocab: number): Promise<boolean> {
    return this.add(await DraftMemory.unpack(packed), vocab);
  }

  /** Half of `load`, off the main thread. Undefined where the bytes are not packed. */
  static unpack(packed: Buffer): Promise<Buffer | undefined> {
    return unpack(packed, { maxOutputLength: MOST_BYTES, chunkSize: USUAL_BYTES }).catch(() => undefined);
  }

  /** The other half, with what `unpack` gave. */
  add(bytes: Buffer | undefined, vocab: number): boolean {
    if (bytes === undefined) return false;
    try {
      if (bytes.toString("latin1", 0, MAGIC.length) !== MAGIC) return false;
      const from = MAGIC.length + 4;
      const to = from + bytes.readUInt32LE(MAGIC.length);
      const mixtures: unknown = JSON.parse(bytes.toString("utf8", from, to));
      if (!areMixtures(mixtures) || !this.ngrams.load(bytes.subarray(to), vocab)) return false;
      this.#saved = mixtures;
      this.#mixtures.clear();
      return true;
    } catch {
      return false; // not JSON, cut off
    }
  }
}

/** With a number that changes with the meaning of tags, kinds or gates. */
const MAGIC = "OUTRIDER-LEARNED-1";
const pack = promisify(brotliCompress);
const unpack = promisify(brotliDecompress);
const MOST_BYTES = 64 * 2 ** 20;
/** What fits is unpacked at one go, without waiting for the main thread in between. */
const USUAL_BYTES = 8 * 2 ** 20;

function areMixtures(value: unknown): value is Record<string, SavedMixture> {
  const numbers = (list: unknown) => Array.isArray(list) && list.every((n) => typeof n === "number");
  return (
    typeof value === "object" &&
    value !== null &&
    Object.values(value).every(
      (m) => m && numbers(m.weights) && Array.isArray(m.calibrations) && m.calibrations.every(numbers),
    )
  );
}
