// Checked by `tsc --noEmit`, never run: what a user may write, and what must not compile.
import type { Generation, Piece } from "./generation.js";
import { type GenerateOptions, type LoadOptions, load, type Model } from "./model.js";

/** Compiles only where both types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>) => undefined;

export async function prompts(model: Model, ids: readonly number[]) {
  model.generate("text");
  model.generate(ids);
  model.generate([] as number[]);
  model.generate([{ role: "system", content: "s" }] as const);
  // @ts-expect-error a role is one of four
  model.generate([{ role: "robot", content: "s" }]);
  // @ts-expect-error content is text
  model.generate([{ role: "user", content: 5 }]);
  // @ts-expect-error ids are numbers
  model.generate(["1"]);
  // @ts-expect-error a prompt is needed
  model.generate();
}

export function options(model: Model) {
  model.generate("x", { strategy: "draft-model", stop: "a", logitBias: { 5: -100 }, seed: undefined });
  model.generate("x", { stop: ["a", "b"] as const, logitBias: new Map([[5, 1]]) });
  // @ts-expect-error no such strategy
  model.generate("x", { strategy: "lokup" });
  // @ts-expect-error a misspelt option
  model.generate("x", { maxToken: 5 });
  // @ts-expect-error a number, not its text
  model.generate("x", { temperature: "1" });
  // @ts-expect-error biases go by token id
  model.generate("x", { logitBias: { word: 1 } });
  // @ts-expect-error a conversation is never raw
  model.chat({ raw: true });
  // @ts-expect-error each turn has its own signal
  model.chat({ signal: AbortSignal.abort() });
  // @ts-expect-error a turn has no options but the signal
  model.chat().send("x", { maxTokens: 5 });
  // @ts-expect-error tokens are needed
  void model.score({ prompt: "a" });
  const given: GenerateOptions = { top: 3 };
  // @ts-expect-error options are read, not changed
  given.top = 4;
}

export async function loading(model: Model) {
  same<Awaited<ReturnType<typeof load>>, Model>(true);
  await load();
  await load("m.gguf", { draftModel: model, threads: 2, instructionSet: "scalar" });
  // @ts-expect-error a misspelt option
  await load("m.gguf", { thread: 2 });
  // @ts-expect-error no such instruction set
  const wrong: LoadOptions = { instructionSet: "mmx" };
  // @ts-expect-error made by load alone
  new (model.constructor as typeof Model)();
  return wrong;
}

export async function results(generation: Generation) {
  for await (const piece of generation) {
    same<typeof piece, Piece>(true);
    // @ts-expect-error pieces are read, not changed
    piece.text = "";
  }
  const result = await generation.result;
  same<typeof result.finishReason, "stop" | "length" | "abort">(true);
  same<typeof result.tokens, number[]>(true);
}
