// How likely is a text? The sum of its tokens' log-probabilities, for choosing between answers.
import { load } from "outrider";

await using model = await load();
for (const answer of [" Paris", " Rome", " a banana"]) {
  const { logprobs } = await model.score({ prompt: "The capital of France is", tokens: answer });
  console.log(answer, logprobs.reduce((sum, value) => sum + value, 0).toFixed(2));
}
