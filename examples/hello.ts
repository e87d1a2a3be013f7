// A model answers, streaming; then what it took.
import { load } from "outrider";

await using model = await load(); // the embedded SmolLM2-135M; or "./model.gguf"
const run = model.generate("Why is the sky blue?", { maxTokens: 60 });
for await (const piece of run) process.stdout.write(piece.text);
const { stats } = await run.result;
console.log(
  `\n${stats.tokens} tokens in ${stats.passes} passes, ${stats.accepted} of ${stats.drafted} drafts accepted`,
);
