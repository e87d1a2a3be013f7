/**
 * config.json of the Hugging Face libraries in GGUF's words. Defaults are those of the `transformers` configuration
 * classes, since a config.json leaves out what equals them. What would change the arithmetic and has no GGUF key is
 * refused by name.
 */
import { OutriderError, quote } from "../errors.js";
import type { MetadataValue } from "./gguf-metadata.js";
import { type Family, families } from "./hugging-face-families.js";
import type { JsonObject } from "./json-file.js";

/** A model that a config.json describes. */
export interface DescribedModel {
  readonly family: Family;
  /** The part of config.json that is about the language model, defaults filled in. */
  readonly config: Config;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
}

/** Typed access to config.json; errors name the file and the key. `null` counts as absent. */
export class Config {
  constructor(
    readonly values: JsonObject,
    readonly path: string,
  ) {}

  number(key: string): number | undefined {
    const value = this.values[key] ?? undefined;
    if (value === undefined || typeof value === "number") return value;
    throw this.error(key, "is not a number");
  }

  required(key: string): number {
    const value = this.number(key);
    if (value !== undefined) return value;
    throw this.error(key, "is missing");
  }

  numbers(key: string): readonly number[] {
    const value = this.values[key];
    if (Array.isArray(value) && value.every((item) => typeof item === "number")) return value;
    throw this.error(key, "is not a list of numbers");
  }

  boolean(key: string): boolean {
    const value = this.values[key] ?? false;
    if (typeof value === "boolean") return value;
    throw this.error(key, "is not a boolean");
  }

  text(key: string): string | undefined {
    const value = this.values[key] ?? undefined;
    if (value === undefined || typeof value === "string") return value;
    throw this.error(key, "is not a string");
  }

  object(key: string): Config | undefined {
    const value = this.values[key] ?? undefined;
    if (value === undefined) return undefined;
    if (typeof value === "object" && !Array.isArray(value))
      return new Config({ ...value }, `${this.path}: ${key}`);
    throw this.error(key, "is not an object");
  }

  error(key: string, what: string, code: "ERR_MODEL_FORMAT" | "ERR_MODEL_UNSUPPORTED" = "ERR_MODEL_FORMAT") {
    return new OutriderError(code, `${this.path}: ${key} ${what}`);
  }
}

/** Throws ERR_MODEL_UNSUPPORTED for a kind of model that is not known, ERR_MODEL_FORMAT for values of wrong types. */
export function describeModel(values: JsonObject, path: string): DescribedModel {
  const whole = new Config(values, path);
  if (whole.object("quantization_config") !== undefined)
    throw whole.error(
      "quantization_config",
      `(${quote(whole.object("quantization_config")!.text("quant_method") ?? "unknown")}) is not supported; ` +
        "take the model's original weights (they can be quantised at load) or a GGUF file",
      "ERR_MODEL_UNSUPPORTED",
    );
  const kind = whole.text("model_type");
  // Models that also see keep the language model's settings apart.
  const inner = whole.object("text_config");
  const family = families.find(({ modelTypes }) => kind !== undefined && modelTypes.includes(kind));
  if (family === undefined)
    throw whole.error(
      "model_type",
      `is ${kind === undefined ? "missing" : quote(kind)}; supported: ${families.flatMap((f) => f.modelTypes).join(", ")}`,
      kind === undefined ? "ERR_MODEL_FORMAT" : "ERR_MODEL_UNSUPPORTED",
    );
  const { tie_word_embeddings: tied } = values;
  const stated = inner === undefined ? values : { tie_word_embeddings: tied, ...inner.values };
  const present = Object.fromEntries(Object.entries(stated).filter(([, value]) => value !== undefined));
  const config = new Config({ ...family.defaults, ...present }, path);
  checkActivation(config, family);
  const metadata = new Map<string, MetadataValue>([["general.architecture", family.architecture]]);
  const named = Object.entries(family.keys).map(([key, from]) => [key, config.number(from)] as const);
  for (const [key, value] of [...named, ...Object.entries(family.metadata(config))])
    if (value !== undefined) metadata.set(`${family.architecture}.${key}`, asInFile(value));
  return { family, config, metadata };
}

/** A GGUF file has its fractions in float32: the same model gives the same bits from both formats. */
function asInFile(value: MetadataValue): MetadataValue {
  return typeof value === "number" && !Number.isInteger(value) ? Math.fround(value) : value;
}

function checkActivation(config: Config, { activations }: Family): void {
  const key = ["hidden_activation", "hidden_act", "activation_function"].find(
    (k) => config.text(k) !== undefined,
  );
  const activation = key === undefined ? undefined : config.text(key)!;
  if (activation === undefined || activations.includes(activation)) return;
  throw config.error(
    key!,
    `is ${quote(activation)}, expected ${activations.join(" or ")}`,
    "ERR_MODEL_UNSUPPORTED",
  );
}
