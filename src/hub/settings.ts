import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { OutriderError, quote } from "../errors.js";

/** Where the hub is and where its files go, by the environment variables of the Hugging Face libraries. */
export interface HubSettings {
  /** Without a slash at its end. `HF_ENDPOINT`. */
  readonly endpoint: string;
  /** `HF_TOKEN`, or what `hf auth login` left. Goes to the endpoint's own host only. */
  readonly token: string | undefined;
  /** What is in the cache, or nothing: because of the environment variable, or since the caller asks for it. */
  readonly offline: "HF_HUB_OFFLINE" | boolean;
  /**
   * `OUTRIDER_HUB_HOSTS`: hosts of a private network (`HOST` or `HOST:PORT`, with commas between) that the hub may
   * redirect to, as a company's own hub does to its storage.
   */
  readonly trustedHosts: readonly string[];
  /** `HF_HUB_CACHE`, `HF_HOME/hub`. Shared with the Hugging Face libraries. */
  readonly cache: string;
}

/** Throws ERR_PATH where HF_ENDPOINT is not an address. */
export async function hubSettings(env: NodeJS.ProcessEnv, offline = false): Promise<HubSettings> {
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || join(homeFolder(), ".cache"), "huggingface");
  const endpoint = (env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:/.test(endpoint) || !URL.canParse(endpoint))
    throw new OutriderError(
      "ERR_PATH",
      `HF_ENDPOINT is ${quote(endpoint)}, expected an http or https address`,
    );
  return {
    endpoint,
    token:
      env.HF_TOKEN ||
      env.HUGGING_FACE_HUB_TOKEN ||
      (await storedToken(env.HF_TOKEN_PATH || join(home, "token"))),
    offline: /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? "") ? "HF_HUB_OFFLINE" : offline,
    trustedHosts: (env.OUTRIDER_HUB_HOSTS ?? "").split(",").filter((host) => host !== ""),
    cache: env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub"),
  };
}

function homeFolder(): string {
  try {
    return homedir();
  } catch (cause) {
    throw new OutriderError("ERR_PATH", "this user has no home folder; HF_HOME names one for models", {
      cause,
    });
  }
}

async function storedToken(path: string): Promise<string | undefined> {
  const text = await readFile(path, "utf8").catch(() => "");
  return /^[\x21-\x7e]{1,500}$/.exec(text.trim())?.[0];
}
