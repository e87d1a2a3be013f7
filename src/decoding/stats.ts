/** What decoding one text cost and what drafting brought. Times are milliseconds. */
export interface DecodeStats {
  /** Passes that drew tokens; prefill is not among them. */
  passes: number;
  /** Emitted tokens, an end token included. Always `passes + accepted`. */
  tokens: number;
  /** Drafted tokens that a pass verified. */
  drafted: number;
  /** Drafted tokens that were emitted and kept. */
  accepted: number;
  /** Tokens that only filled a pass up in order to measure its cost. */
  padded: number;
  /** [depth - 1] drafted tokens verified at each depth below the root. */
  draftedByPosition: number[];
  /** [depth - 1] drafted tokens accepted at each depth below the root. */
  acceptedByPosition: number[];
  /** Appending the prompt, without its last token; set by whoever prefills. */
  prefillMs: number;
  /** Whole passes: drafting, the engine and bookkeeping; not the time the consumer takes between them. */
  decodeMs: number;
  /** The part of `decodeMs` inside the native core. */
  coreMs: number;
  /** The part of `decodeMs` spent in the drafter. */
  draftMs: number;
}

export function newStats(): DecodeStats {
  return {
    passes: 0,
    tokens: 0,
    drafted: 0,
    accepted: 0,
    padded: 0,
    draftedByPosition: [],
    acceptedByPosition: [],
    prefillMs: 0,
    decodeMs: 0,
    coreMs: 0,
    draftMs: 0,
  };
}

/** Emitted tokens for each pass; plain decoding has 1, nothing decoded 0. */
export function tokensPerPass(stats: DecodeStats): number {
  return stats.passes === 0 ? 0 : stats.tokens / stats.passes;
}

/** The share of verified drafts that was accepted, 0 to 1; nothing drafted 0. */
export function acceptanceRate(stats: DecodeStats): number {
  return stats.drafted === 0 ? 0 : stats.accepted / stats.drafted;
}

export function tokensPerSecond(stats: DecodeStats): number {
  return stats.decodeMs === 0 ? 0 : (1000 * stats.tokens) / stats.decodeMs;
}
