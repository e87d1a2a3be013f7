// A conversation: the second turn processes only what is new.
import { load } from "outrider";

await using model = await load();
const chat = model.chat({ system: "You answer in one short sentence.", maxTokens: 40 });
console.log(await chat.send("What is the capital of France?").text());
const second = await chat.send("And of Italy?").result;
console.log(second.text);
console.log(`${second.cachedTokens} of ${second.promptTokens.length} prompt tokens were still in the cache`);
