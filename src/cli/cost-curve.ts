import type { Engine } from "../engine/engine.js";
import { resolveSampling } from "../engine/sampling.js";

const passLengths = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 64];
const pastLength = 256;
const promptLength = 512;

/** Milliseconds, one value a round. */
export interface CostCurve {
  /** Positions in the cache before each pass. */
  readonly past: number;
  readonly passes: readonly { readonly n: number; readonly ms: number[] }[];
  /** A prompt without a past; no picks are made of it. */
  readonly prefill: { readonly n: number; readonly ms: number[] };
  /** The weights' bytes read once at the memory's speed: what a pass cannot be faster than. */
  readonly read: { readonly bytes: number; readonly ms: number[] };
}

/** What a pass over n tokens costs in the core. The lengths take turns, so that a slow moment hits all of them. */
export async function measureCosts(
  engine: Engine,
  rounds: number,
  { signal, onRound }: { signal?: AbortSignal; onRound?: (round: number) => void } = {},
): Promise<CostCurve> {
  const { vocab } = engine.config;
  const tokens = Array.from({ length: promptLength }, (_, i) => (i * 7919 + 13) % vocab);
  const longest = passLengths.at(-1)!;
  const curve: CostCurve = {
    past: Math.max(0, Math.min(pastLength, engine.context - longest)),
    passes: passLengths.filter((n) => n <= engine.context).map((n) => ({ n, ms: [] })),
    prefill: { n: Math.min(promptLength, engine.context), ms: [] },
    read: { bytes: engine.memory.weights, ms: [] },
  };
  const sampling = resolveSampling({}, vocab, 0);
  using sequence = engine.open();
  await sequence.prefill(tokens.slice(0, curve.past), signal);
  // The round before the first warms up.
  for (let round = 0; round <= rounds; round++) {
    onRound?.(round);
    // Reading weights drove the past out of the caches.
    await sequence.step(tokens.slice(0, 1), { sampling, signal });
    sequence.keep([]);
    for (const { n, ms } of curve.passes) {
      const { coreMs } = await sequence.step(tokens.slice(0, n), { sampling, signal });
      sequence.keep([]);
      if (round > 0) ms.push(coreMs);
    }
    const started = performance.now();
    using prompt = engine.open();
    await prompt.prefill(tokens.slice(0, curve.prefill.n), signal);
    if (round > 0) curve.prefill.ms.push(performance.now() - started);
    const read = await engine.core.readMilliseconds(curve.read.bytes, 1);
    if (round > 0) curve.read.ms.push(read);
  }
  return curve;
}
