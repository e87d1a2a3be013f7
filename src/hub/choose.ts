import { OutriderError, quote } from "../errors.js";

/** The weight types that are taken, the first that a repository has, where the name does not say: small and fast first. */
export const preferredTypes = [
  ...["Q4_K_M", "Q4_1", "Q4_0", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "IQ4_NL", "IQ4_XS"],
  ...["Q8_0", "Q6_K", "Q3_K_M", "Q3_K_L", "Q3_K_S", "Q2_K", "BF16", "F16", "F32"],
] as const;

/** What a safetensors model consists of, beside its weights. */
const companions = [
  "config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "generation_config.json",
  "chat_template.jinja",
  "chat_template.json",
];
const single = "model.safetensors";
const index = "model.safetensors.index.json";

export interface Choice {
  readonly kind: "GGUF" | "safetensors";
  /** The file to open; of safetensors, config.json, whose folder is opened. */
  readonly main: string;
  /** Everything that the model needs. */
  readonly files: readonly string[];
}

/**
 * The files of a repository that are the model named. `selector`: a file's name or a weight type; without it the GGUF
 * file of the first preferred type, or else the safetensors. Throws ERR_PATH with what there is.
 */
export function chooseFiles(names: readonly string[], selector: string | undefined, where: string): Choice {
  const gguf = names.filter((name) => /\.gguf$/i.test(name) && !/mmproj|imatrix/i.test(name));
  if (selector !== undefined && (names.includes(selector) || /\.(gguf|safetensors)$/i.test(selector))) {
    if (!names.includes(selector)) throw notThere(where, `no file ${quote(selector)}`, gguf);
    return /\.gguf$/i.test(selector) ? ofGguf(selector, names, where) : ofSafetensors(names, where);
  }
  if (selector !== undefined) {
    const fitting = gguf.filter((name) => weightType(name) === selector.toUpperCase());
    if (fitting.length > 0) return ofGguf(fitting.sort(byLength)[0]!, names, where);
    throw notThere(where, `no GGUF file of type ${quote(selector)}`, gguf);
  }
  for (const type of preferredTypes) {
    const fitting = gguf.filter((name) => weightType(name) === type);
    if (fitting.length > 0) return ofGguf(fitting.sort(byLength)[0]!, names, where);
  }
  if (names.includes(single) || names.includes(index)) return ofSafetensors(names, where);
  if (gguf.length > 0) return ofGguf([...gguf].sort(byLength)[0]!, names, where);
  throw notThere(where, "neither GGUF nor safetensors files", gguf);
}

const byLength = (a: string, b: string) => a.length - b.length || (a < b ? -1 : 1);

/** `Q4_K_M` of `model-Q4_K_M.gguf` or `model.q4_k_m-00001-of-00002.gguf`: the last that the name has. */
export function weightType(name: string): string | undefined {
  const types = name
    .toUpperCase()
    .matchAll(/(?<=^|[-._/])(?:UD-)?(I?Q\d(?:_[A-Z0-9]+)*|BF16|F16|FP16|F32)(?=[-._/])/g);
  return [...types].at(-1)?.[1]?.replace("FP16", "F16");
}

function ofGguf(main: string, names: readonly string[], where: string): Choice {
  const shard = /^(.*-)(\d{5})-of-(\d{5})\.gguf$/i.exec(main);
  if (shard === null) return { kind: "GGUF", main, files: [main] };
  const files = Array.from(
    { length: Math.min(1000, Number(shard[3])) },
    (_, i) => `${shard[1]}${String(i + 1).padStart(5, "0")}-of-${shard[3]}.gguf`,
  );
  const missing = files.find((file) => !names.includes(file));
  if (missing !== undefined)
    throw notThere(where, `no file ${quote(missing)}, though others of its model`, []);
  return { kind: "GGUF", main: files[0]!, files };
}

function ofSafetensors(names: readonly string[], where: string): Choice {
  const weights = names.includes(index)
    ? names.filter((name) => name === index || /^[^/]*-\d{5}-of-\d{5}\.safetensors$/.test(name))
    : names.filter((name) => name === single);
  if (weights.length === 0 || !names.includes("config.json") || !names.includes("tokenizer.json"))
    throw notThere(where, "config.json, tokenizer.json and model.safetensors are not all there", []);
  const files = [...companions.filter((name) => names.includes(name)), ...weights];
  return { kind: "safetensors", main: "config.json", files };
}

function notThere(where: string, what: string, gguf: readonly string[]): OutriderError {
  const types = [...new Set(gguf.map(weightType).filter((type) => type !== undefined))].slice(0, 12);
  const advice = types.length > 0 ? `; there are ${types.join(", ")}` : "";
  return new OutriderError("ERR_PATH", `${where}: ${what}${advice}`);
}
