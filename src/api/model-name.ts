import path from "node:path";

/**
 * What to call a model: its file's name without the ending, a folder's, or the repository's where the folder is a
 * snapshot of one. Names inside of files are for converters: "Smollm2 135M 8k Lc100K Mix1 Ep2".
 * @param source as the caller named it
 * @param file where it lies
 */
export function modelName(source: string, file: string): string {
  const repository = /^hf:[^/]+\/([^:@]+)/.exec(source)?.[1];
  const name = path.basename(path.resolve(file));
  if (/\.gguf$/i.test(name)) return name.replace(/(-\d{5}-of-\d{5})?\.gguf$/i, "");
  return repository ?? name;
}
