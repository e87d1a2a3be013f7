import { expect, test } from "vitest";
import { modelName } from "./model-name.js";

test.each([
  ["./models/SmolLM2-135M-Instruct.Q4_1.gguf", undefined, "SmolLM2-135M-Instruct.Q4_1"],
  ["big-Q4_K_M-00001-of-00003.gguf", undefined, "big-Q4_K_M"],
  ["/models/qwen3/", undefined, "qwen3"],
  ["hf:o/Qwen3-GGUF:Q8_0", "/cache/models--o--Qwen3-GGUF/snapshots/0a1b/sub/Qwen3-Q8_0.gguf", "Qwen3-Q8_0"],
  ["hf:o/Qwen3@main", "/cache/models--o--Qwen3/snapshots/0a1b", "Qwen3"],
])("%s is called by what its user sees", (source, file, name) => {
  expect(modelName(source, file ?? source)).toBe(name);
});
