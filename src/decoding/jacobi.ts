import { type Draft, type Drafter, EMPTY_DRAFT, type PassInfo } from "./drafter.js";

/**
 * - `jacobi`: a window of guesses behind the text; every pass replaces all of them at once and the window moves on.
 * - `gauss-seidel`: blocks in order, Jacobi inside each; the next block begins when the last one stands still.
 * - `hybrid`: that for as many tokens as the prompt has, then one token at a time, as for translations, whose length is
 *   about known.
 */
export type FixedPoint = "jacobi" | "gauss-seidel" | "hybrid";

/**
 * Decoding as the solution of equations (Song et al. 2021, arXiv:2002.03629; Santilli et al. 2023, arXiv:2305.10427):
 * the next `block` tokens are guessed, a pass computes what the model says behind each, and that is the next guess,
 * until guess and answer agree. The part that agrees is what plain decoding says.
 */
export function jacobi(mode: FixedPoint, block: number): Drafter {
  const text: number[] = [];
  let guess: number[] = [];
  let promptLength = 0;
  let left = block; // places of the block that are still open

  /** The token that last followed this one, or the token itself. */
  const filler = (token: number): number => {
    const at = text.lastIndexOf(token, text.length - 2);
    return at < 0 ? token : text[at + 1]!;
  };

  return {
    name: mode === "jacobi" ? "jacobi" : `jacobi (${mode})`,
    reset(prompt) {
      text.length = 0;
      for (const token of prompt) text.push(token);
      promptLength = prompt.length;
      guess = [];
      left = block;
    },
    accept(tokens, pass?: PassInfo) {
      for (const token of tokens) text.push(token);
      left = tokens.length < left ? left - tokens.length : block;
      // Rows behind the accepted ones guessed on from wrong tokens, or right ones in wrong places.
      guess = pass === undefined ? [] : Array.from(pass.result.picks.subarray(pass.path.length, pass.rows));
    },
    propose(limit): Draft {
      if (text.length === 0 || (mode === "hybrid" && text.length >= 2 * promptLength)) return EMPTY_DRAFT;
      // Of a block of n tokens the last is the pass's own.
      const wanted = Math.min(limit, mode === "jacobi" ? block - 1 : left - 1);
      const tokens = guess.slice(0, wanted);
      while (tokens.length < wanted) tokens.push(filler(tokens.at(-1) ?? text.at(-1)!));
      return { tokens, probabilities: tokens.map(() => ESTIMATE) };
    },
    [Symbol.dispose]() {
      text.length = 0;
    },
  };
}

/** Of SmolLM2-135M's guesses about one in eight is right once the one before it is. */
const ESTIMATE = 0.12;
