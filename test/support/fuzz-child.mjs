// Loads each model file given on standard input (one path a line) and generates a few tokens; one JSON line a file:
// {file, outcome: "good" | error code | stack, ms}. The last line: {maxRssMb}.
import { load, OutriderError } from "../../dist/index.js";

const input = await new Response(process.stdin).text();
for (const file of input.trim().split("\n")) {
  const start = performance.now();
  let outcome = "good";
  try {
    const model = await load(file, { threads: 2, context: 64 });
    try {
      await model.generate([1, 5, 9], { maxTokens: 4, temperature: 1 }).result;
      await model.generate("to be", { maxTokens: 4, raw: true }).result;
    } finally {
      await model.close();
    }
  } catch (error) {
    outcome = error instanceof OutriderError ? error.code : String(error?.stack ?? error);
  }
  console.log(JSON.stringify({ file, outcome, ms: performance.now() - start }));
}
console.log(JSON.stringify({ maxRssMb: process.resourceUsage().maxRSS / 1024 }));
