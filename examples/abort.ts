// Stopping: a signal, or just leaving the loop. The model goes on working afterwards.
import { load, OutriderError } from "outrider";

await using model = await load();
try {
  const signal = AbortSignal.timeout(300);
  for await (const piece of model.generate("Tell me a very long story.", { signal }))
    process.stdout.write(piece.text);
} catch (error) {
  if (!(error instanceof OutriderError) || error.code !== "ERR_ABORTED") throw error;
  console.log("\n[stopped by the signal]");
}
console.log(await model.generate("Say hello.", { maxTokens: 12 }).text());
