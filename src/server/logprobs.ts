import type { JobPiece, TokenLogprob } from "./protocol.js";

/** A token as text: of part of a character U+FFFD, its bytes being exact. */
export const tokenText = ({ bytes }: Pick<TokenLogprob, "bytes">): string =>
  Buffer.from(bytes).toString("utf8");

// JSON has no -Infinity; OpenAI's API says -9999 of tokens that cannot be.
const finite = (logprob: number) => (Number.isFinite(logprob) ? logprob : -9999);

const entry = (token: TokenLogprob) => ({
  token: tokenText(token),
  logprob: finite(token.logprob),
  bytes: [...token.bytes],
});

/** `logprobs.content` of a chat completion. */
export function chatLogprobs(pieces: readonly JobPiece[]) {
  return pieces.flatMap(({ logprobs = [] }) =>
    logprobs.map((token) => ({ ...entry(token), top_logprobs: token.top.map(entry) })),
  );
}

/** `logprobs` of a completion; `offset`: characters before the first token. */
export function completionLogprobs(pieces: readonly JobPiece[], offset: number) {
  const tokens = pieces.flatMap(({ logprobs = [] }) => logprobs);
  const texts = tokens.map(tokenText);
  let at = offset;
  return {
    tokens: texts,
    token_logprobs: tokens.map(({ logprob }) => finite(logprob)),
    top_logprobs: tokens.map(({ top }) =>
      Object.fromEntries(top.map((token) => [tokenText(token), finite(token.logprob)])),
    ),
    text_offset: texts.map((text) => {
      const here = at;
      at += text.length;
      return here;
    }),
  };
}
