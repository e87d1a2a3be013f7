import { OutriderError } from "../errors.js";
import { type CachedModel, listCached, removeCached } from "../hub/cache.js";
import { chooseFiles } from "../hub/choose.js";
import { parseHubName } from "../hub/name.js";
import { pull as pullModel } from "../hub/pull.js";
import { hubSettings } from "../hub/settings.js";
import { size } from "./download-line.js";
import { interruptible } from "./interrupt.js";
import { showDownload } from "./open-model.js";
import { table } from "./table.js";
import { paint, printable, statusLine } from "./terminal.js";

export interface PullFlags {
  readonly offline?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** `outrider pull`: brings a model into the cache and prints its path. Ctrl-C keeps what has arrived. */
export async function pull(name: string, flags: PullFlags): Promise<number> {
  const settings = await hubSettings(process.env, flags.offline);
  const status = statusLine(process.stderr);
  try {
    const { path, commit, files } = await interruptible((signal) =>
      pullModel(settings, name, {
        signal,
        onProgress: flags.quiet ? undefined : showDownload(status, name),
      }),
    );
    status.clear();
    process.stdout.write(flags.json ? `${JSON.stringify({ name, path, commit, files })}\n` : `${path}\n`);
    return 0;
  } finally {
    status.clear();
  }
}

/** `outrider models`: what is in the cache. */
export async function models(flags: { readonly json?: boolean }): Promise<number> {
  const { cache } = await hubSettings(process.env);
  const cached = await listCached(cache);
  if (flags.json) {
    for (const { repository, folder, revisions, bytes, lastUsed } of cached)
      process.stdout.write(
        `${JSON.stringify({
          name: `hf:${repository}`,
          path: folder,
          bytes,
          last_used: lastUsed.toISOString(),
          revisions: revisions.map(({ commit, refs, files }) => ({
            commit,
            refs,
            files: files.map(({ name, bytes }) => ({ name, bytes })),
          })),
        })}\n`,
      );
    return 0;
  }
  if (cached.length === 0) {
    process.stdout.write(`no models in ${cache}\noutrider pull hf:OWNER/REPO fetches one\n`);
    return 0;
  }
  const [head, ...lines] = table("rll", ["size", "last used", "model"], cached.flatMap(rowsOf));
  process.stdout.write(`${[paint(process.stdout, "bold", head!), ...lines].join("\n")}\n`);
  return 0;
}

/** A line for each GGUF file, which can be named by itself, or one for the whole. */
function rowsOf({ repository, revisions, bytes, lastUsed }: CachedModel): string[][] {
  const day = lastUsed.toISOString().slice(0, 10);
  const gguf = new Map(
    revisions.flatMap(({ files }) =>
      files.filter(({ name }) => name.endsWith(".gguf")).map((f) => [f.name, f]),
    ),
  );
  if (gguf.size === 0) return [[size(bytes), day, `hf:${repository}`]];
  return [...gguf.values()].map((file) => [
    size(file.bytes),
    day,
    `hf:${repository}:${printable(file.name)}`,
  ]);
}

/** `outrider rm`: removes a model, or of several GGUF files one. */
export async function remove(name: string, flags: { readonly json?: boolean }): Promise<number> {
  const { cache } = await hubSettings(process.env);
  const { repository, revision, selector } = parseHubName(name);
  const model = (await listCached(cache)).find((m) => m.repository === repository);
  const found = model?.revisions.find(({ commit, refs }) => commit === revision || refs.includes(revision));
  if (model === undefined || (selector !== undefined && found === undefined))
    throw new OutriderError(
      "ERR_PATH",
      `${name} is not in the cache (${cache}); outrider models lists what is`,
    );
  let freed: number;
  if (selector === undefined) freed = await removeCached(cache, model);
  else {
    const names = found!.files.map((file) => file.name);
    freed = await removeCached(cache, model, found!.commit, chooseFiles(names, selector, name).files);
  }
  process.stdout.write(
    flags.json ? `${JSON.stringify({ name, freed })}\n` : `removed ${name}, ${size(freed)}\n`,
  );
  return 0;
}
