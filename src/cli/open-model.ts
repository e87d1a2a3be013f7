import path from "node:path";
import { isHubName } from "../hub/name.js";
import type { DownloadProgress } from "../hub/pull.js";
import { embeddedModel, type LoadOptions, load, type Model } from "../index.js";
import { downloadLine } from "./download-line.js";
import { loadOptions, type ModelFlags } from "./options.js";
import { paint, printable, statusLine } from "./terminal.js";

const patienceMs = 500;

/** Says on a terminal that a model of the hub is looked for, and gives a listener that tells how far its download is. */
export function showDownload(
  status: ReturnType<typeof statusLine>,
  name: string,
): (progress: DownloadProgress) => void {
  if (isHubName(name)) status.show(`looking for ${name}`);
  const line = downloadLine();
  return (progress) => status.show(line(progress, performance.now()));
}

/**
 * Loads what the flags name, `overrides` going before them. On a terminal a line tells how far it is, once it takes
 * long enough to wonder.
 */
export async function openModel(flags: ModelFlags, overrides: LoadOptions = {}): Promise<Model> {
  const source = flags.model ?? embeddedModel;
  const status = statusLine(process.stderr);
  const started = performance.now();
  const onProgress = (done: number, total: number) => {
    if (!flags.quiet && performance.now() - started > patienceMs)
      status.show(`loading ${printable(path.basename(source))}  ${Math.floor((100 * done) / total)} %`);
  };
  const onDownload = flags.quiet ? undefined : showDownload(status, source);
  try {
    const model = await load(source, {
      ...loadOptions(flags, process.env),
      onProgress,
      onDownload,
      ...overrides,
    });
    if (!flags.quiet)
      for (const warning of model.info.warnings) {
        status.clear();
        process.stderr.write(`${paint(process.stderr, "yellow", `warning: ${warning}`)}\n`);
      }
    return model;
  } finally {
    status.clear();
  }
}
