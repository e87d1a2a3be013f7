// Samples, votes and plans over an engine elsewhere that speaks OpenAI's API.
export type { UpstreamOptions, UpstreamPrompt, Usage } from "./chat.js";
export {
  type ConnectOptions,
  connect,
  type Plan,
  type Upstream,
  type UpstreamAnswer,
  type UpstreamPiece,
  type UpstreamResult,
  type UpstreamSampleOptions,
  type UpstreamSamples,
} from "./connect.js";
