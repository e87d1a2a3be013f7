import { expect, test } from "vitest";
import type { ProgramBuilder, Tensor } from "../runtime/program.js";
import type { ModelConfig, ModelWeights } from "./architecture.js";
import { residualLayers } from "./decoder.js";

// Tensors that say how they came about.
const builder = { add: (a: unknown, b: unknown) => `${a}+${b}` } as unknown as ProgramBuilder;
const weights = { layer: (i: number) => i } as unknown as ModelWeights;
const said = (text: string) => text as unknown as Tensor;
const behind = (layerGroups: ModelConfig["layerGroups"], layers: number) =>
  residualLayers(builder, { layers, layerGroups } as ModelConfig, weights, said("x"), {
    attend: (x, layer) => said(`a${layer}(${x})`),
    feed: (x, layer) => said(`f${layer}(${x})`),
  });

test("layers follow each other, those of a group attend to the same", () => {
  const one = "x+a0(x)+f0(x+a0(x))";
  expect(behind(undefined, 1)).toBe(one);
  expect(behind([[0], [1]], 2)).toBe(behind(undefined, 2));
  const attended = `${one}+a1(${one})+a2(${one})`;
  const fed = `${attended}+f1(${attended})`;
  expect(behind([[0], [1, 2]], 3)).toBe(`${fed}+f2(${fed})`);
});
