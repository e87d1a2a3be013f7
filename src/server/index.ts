export { OutriderError } from "../errors.js";
export { defaultLimits, type Limits } from "./limits.js";
export type { ModelSpec } from "./models.js";
export type { EngineSource } from "./protocol.js";
export { type ServeOptions, type Server, serve } from "./serve.js";
