/** The least program that prints a token, for the mode "start": FILE THREADS TOKEN,TOKEN,... */
import { load } from "../dist/index.js";

const [file, threads, tokens] = process.argv.slice(2);
const model = await load(file, { learn: false, threads: Number(threads) });
for await (const piece of model.generate(tokens.split(",").map(Number), { maxTokens: 1 }))
  console.log(piece.tokens[0]);
await model.close();
