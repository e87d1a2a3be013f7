import { OutriderError, quote } from "../errors.js";

/** A model on the hub: `hf:OWNER/REPO`, with `@REVISION` and `:FILE` or `:QUANT` behind it. */
export interface HubName {
  /** `OWNER/REPO` */
  readonly repository: string;
  /** A branch, tag or commit. */
  readonly revision: string;
  /** A file's name in the repository, or the name of a weight type such as `Q4_K_M`. */
  readonly selector: string | undefined;
}

const pattern =
  /^hf:([A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95})(?:@([A-Za-z0-9][\w.-]{0,199}))?(?::([^:]{1,400}))?$/;

export const isHubName = (source: string): boolean => source.startsWith("hf:");

/** Throws ERR_PATH where the name is not one. */
export function parseHubName(name: string): HubName {
  const match = pattern.exec(name);
  const [, repository, revision = "main", selector] = match ?? [];
  if (repository === undefined || /\.\.|--|\.git$/.test(repository) || revision.includes(".."))
    throw new OutriderError(
      "ERR_PATH",
      `${quote(name)} is not a model on the hub, expected hf:OWNER/REPO, hf:OWNER/REPO:Q4_K_M or hf:OWNER/REPO:FILE.gguf`,
    );
  return { repository, revision, selector };
}

/**
 * A name of a file in a repository that is a path inside the repository's folder on every system: nothing absolute, no
 * `..`, no drive, no backslash, no control character. Throws ERR_PATH.
 */
export function checkFileName(name: string): string {
  const parts = name.split("/");
  const bad = (part: string) => part === "" || part === "." || part === ".." || part.length > 255;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
  if (name.length <= 1024 && !parts.some(bad) && !/[\\:\u0000-\u001f\u007f]/.test(name)) return name;
  throw new OutriderError(
    "ERR_PATH",
    `the repository has a file named ${quote(name)}, which leads out of its folder; nothing was written`,
  );
}
