import type { DownloadProgress } from "../hub/pull.js";

export interface LocateOptions {
  /** Take models on the hub from the cache only; `HF_HUB_OFFLINE` does so too. */
  readonly offline?: boolean | undefined;
  /** Hears how far a download is. */
  readonly onDownload?: ((progress: DownloadProgress) => void) | undefined;
}

/**
 * Where a model lies: a path as it is given; of `hf:OWNER/REPO[:FILE|:QUANT]` what is in the cache of the Hugging Face
 * libraries, or else it is fetched. Throws ERR_PATH, ERR_DOWNLOAD.
 */
export async function locateModel(source: string, options: LocateOptions = {}): Promise<string> {
  if (!source.startsWith("hf:")) return source;
  // Loaded when needed: most models are files.
  const [{ locate }, { hubSettings }] = await Promise.all([
    import("../hub/pull.js"),
    import("../hub/settings.js"),
  ]);
  const settings = await hubSettings(process.env, options.offline);
  return (await locate(settings, source, { onProgress: options.onDownload })).path;
}
