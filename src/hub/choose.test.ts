import { describe, expect, test } from "vitest";
import { chooseFiles, weightType } from "./choose.js";
import { checkFileName, parseHubName } from "./name.js";

test.each([
  ["Qwen3-0.6B-Q8_0.gguf", "Q8_0"],
  ["model.Q4_K_M.gguf", "Q4_K_M"],
  ["Llama-3.2-1B-Instruct-IQ4_XS.gguf", "IQ4_XS"],
  ["gemma-3-1b-it-f16.gguf", "F16"],
  ["m-fp16.gguf", "F16"],
  ["m-BF16.gguf", "BF16"],
  ["Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "Q4_K_M"],
  ["m-UD-Q4_K_XL.gguf", "Q4_K_XL"],
  ["qwen3.gguf", undefined],
])("the weight type of %s", (name, type) => expect(weightType(name)).toBe(type));

describe("which files", () => {
  const names = [
    "README.md",
    "m-Q8_0.gguf",
    "m-Q4_K_M.gguf",
    "m-F16.gguf",
    "mmproj-m-F16.gguf",
    "sub/m-Q4_K_M.gguf",
  ];
  const choose = (selector?: string, all = names) => chooseFiles(all, selector, "hf:o/r");

  test("by preference, by type in any case, by name", () => {
    expect(choose().main).toBe("m-Q4_K_M.gguf");
    expect(choose("q8_0").main).toBe("m-Q8_0.gguf");
    expect(choose("m-F16.gguf").main).toBe("m-F16.gguf");
    expect(choose(undefined, ["m-F16.gguf", "m-Q6_K.gguf"]).main).toBe("m-Q6_K.gguf");
    expect(choose(undefined, ["odd.gguf"]).main).toBe("odd.gguf");
  });

  test("what is not there is an error with what is", () => {
    expect(() => choose("Q5_0")).toThrow('hf:o/r: no GGUF file of type "Q5_0"; there are Q8_0, Q4_K_M, F16');
    expect(() => choose("x.gguf")).toThrow('no file "x.gguf"');
    expect(() => choose(undefined, ["README.md"])).toThrow("neither GGUF nor safetensors");
    expect(() => choose(undefined, ["model.safetensors", "config.json"])).toThrow("tokenizer.json");
    expect(() => choose(undefined, ["m-Q8_0-00001-of-00002.gguf"])).toThrow("m-Q8_0-00002-of-00002.gguf");
  });

  test("of safetensors the sharded ones, where there is an index", () => {
    const all = [
      "config.json",
      "tokenizer.json",
      "model.safetensors.index.json",
      "model-00001-of-00002.safetensors",
    ];
    expect(
      choose(undefined, [...all, "model-00002-of-00002.safetensors", "other.safetensors"]).files,
    ).toEqual([...all, "model-00002-of-00002.safetensors"]);
  });
});

test("names of models", () => {
  expect(parseHubName("hf:Qwen/Qwen3-0.6B-GGUF:Q8_0")).toEqual({
    repository: "Qwen/Qwen3-0.6B-GGUF",
    revision: "main",
    selector: "Q8_0",
  });
  expect(parseHubName("hf:a/b@v1.0:sub/x.gguf")).toEqual({
    repository: "a/b",
    revision: "v1.0",
    selector: "sub/x.gguf",
  });
  for (const bad of [
    "hf:a",
    "hf:a/b/c",
    "hf:../b",
    "hf:a/..",
    "hf:a/b@../x",
    "hf:a/b:",
    "hf:a/b:x:y",
    "hf:a--b/c",
    "hf:-a/b",
  ])
    expect(() => parseHubName(bad), bad).toThrow(expect.objectContaining({ code: "ERR_PATH" }));
  expect(checkFileName("a/b c.gguf")).toBe("a/b c.gguf");
});
