import type { IncomingMessage } from "node:http";
import { OutriderError } from "../errors.js";
import { checkFileName, type HubName } from "./name.js";
import { type Patience, requestHub } from "./request.js";
import type { HubSettings } from "./settings.js";

/** A file as the hub lists it. */
export interface HubFile {
  readonly name: string;
  readonly size: number;
  /** How its contents are checked: SHA-256 of large files, git's SHA-1 of the others. Also the name of its blob. */
  readonly hash: { readonly kind: "sha256" | "git-sha1"; readonly value: string };
}

export interface Repository {
  readonly name: HubName;
  /** The commit that the revision stands for. */
  readonly commit: string;
  readonly files: readonly HubFile[];
}

const MOST_LISTING_BYTES = 64 * 2 ** 20;
const MOST_FILES = 100_000;

/** Asks the hub for a repository's files, through the hub's own library. Throws ERR_DOWNLOAD, ERR_PATH, ERR_ABORTED. */
export async function listRepository(
  settings: HubSettings,
  name: HubName,
  options: { readonly signal?: AbortSignal | undefined; readonly patience?: Patience | undefined } = {},
): Promise<Repository> {
  const { listFiles, modelInfo } = await import("@huggingface/hub");
  const access = {
    hubUrl: settings.endpoint,
    // The token goes out with our own requests, to the right host only.
    fetch: (async (input: string | URL | Request) => {
      const url = input instanceof Request ? input.url : String(input);
      const response = await requestHub(settings, url, {
        ...options,
        headers: { accept: "application/json" },
      });
      const headers = Object.entries(response.headers).filter(
        ([key]) => key === "link" || key === "content-type",
      );
      return new Response(await readBody(response, url), {
        status: response.statusCode ?? 500,
        headers: headers as [string, string][],
      });
    }) as typeof fetch,
  };
  const where = `${settings.endpoint}/${name.repository}`;
  try {
    const info = await modelInfo({
      ...access,
      name: name.repository,
      revision: name.revision,
      additionalFields: ["sha"],
    });
    const commit: unknown = info.sha;
    if (typeof commit !== "string" || !/^[0-9a-f]{40}$/.test(commit))
      throw new Error("the answer names no commit");
    const files: HubFile[] = [];
    for await (const entry of listFiles({
      ...access,
      repo: name.repository,
      revision: commit,
      recursive: true,
    })) {
      if (entry.type !== "file") continue;
      if (files.length >= MOST_FILES) throw new Error(`it has more than ${MOST_FILES} files`);
      files.push(checkEntry(entry));
    }
    return { name, commit, files };
  } catch (error) {
    if (error instanceof OutriderError) throw error;
    throw new OutriderError(
      "ERR_DOWNLOAD",
      `${where}: the hub's answer is not understood: ${error instanceof Error ? error.message.slice(0, 200) : "?"}`,
      { cause: error },
    );
  }
}

async function readBody(response: IncomingMessage, url: string): Promise<Buffer<ArrayBuffer>> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MOST_LISTING_BYTES)
      throw new OutriderError(
        "ERR_DOWNLOAD",
        `${url}: the answer is longer than ${MOST_LISTING_BYTES} bytes`,
      );
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function checkEntry(entry: {
  path: unknown;
  size: unknown;
  oid?: unknown;
  lfs?: { oid: unknown; size: unknown };
}): HubFile {
  const name = checkFileName(String(entry.path));
  const size = entry.lfs?.size ?? entry.size;
  const value = entry.lfs?.oid ?? entry.oid;
  const kind = entry.lfs ? "sha256" : "git-sha1";
  if (!Number.isSafeInteger(size) || (size as number) < 0)
    throw new Error(`the size of ${name} is not a number`);
  if (typeof value !== "string" || !(kind === "sha256" ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(value))
    throw new Error(`the hash of ${name} is missing`);
  return { name, size: size as number, hash: { kind, value } };
}
