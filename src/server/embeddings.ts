import { type Answering, type Caller, inTurn } from "./answer.js";
import type { EmbeddingsRequest } from "./schemas.js";

/** POST /v1/embeddings: one text after another, in one turn. */
export async function embeddings(server: Answering, caller: Caller, model: string, body: EmbeddingsRequest) {
  const inputs = inputsOf(body.input);
  const characters = inputs.reduce((sum, input) => sum + input.length, 0);
  const shape = { promptLength: Math.ceil(characters / 4), maxTokens: 0 };
  const embedded = await inTurn(server, caller, model, shape, async ({ engine }, signal) => {
    const vectors = [];
    for (const input of inputs)
      vectors.push(await engine.call("embed", { input, pooling: body.outrider?.pooling ?? "mean" }, signal));
    return vectors;
  });
  const tokens = embedded.reduce((sum, one) => sum + one.tokens, 0);
  return {
    object: "list",
    data: embedded.map(({ vector }, index) => ({
      object: "embedding",
      index,
      embedding: body.encoding_format === "base64" ? base64(vector) : Array.from(vector),
    })),
    model,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  };
}

function inputsOf(input: EmbeddingsRequest["input"]): (string | number[])[] {
  if (typeof input === "string") return [input];
  return typeof input[0] === "number" ? [input as number[]] : (input as (string | number[])[]);
}

/** Float32, little-endian, as OpenAI's client asks for it. */
function base64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  for (const [i, x] of vector.entries()) bytes.writeFloatLE(x, i * 4);
  return bytes.toString("base64");
}
