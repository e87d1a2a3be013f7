/** The least program that prints a token, for the mode "start": FILE THREADS TOKEN,TOKEN,... */
import { createContext, loadModel } from "./llama-cpp-model.mjs";

const [file, threads, tokens] = process.argv.slice(2);
const promptTokens = tokens.split(",").map(Number);
const { llama, model } = await loadModel(file);
const context = await createContext(model, Number(threads), promptTokens.length + 1);
for await (const token of context.getSequence().evaluate(promptTokens, { temperature: 0 })) {
  console.log(token);
  break;
}
await llama.dispose();
