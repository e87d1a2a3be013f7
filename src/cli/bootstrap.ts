/** Between which values a figure lies in 95 of 100 resamplings. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

const resamplings = 1000;

/**
 * The ratio of two totals, `base` to `other`, over prompts that both have, resampled with replacement (the percentile
 * bootstrap of Efron 1979). Undefined for fewer than three prompts. The same numbers give the same interval.
 */
export function ratioInterval(
  base: ReadonlyMap<number, number>,
  other: ReadonlyMap<number, number>,
): Interval | undefined {
  const pairs = [...base].flatMap(([key, value]) =>
    other.has(key) ? [[value, other.get(key)!] as const] : [],
  );
  if (pairs.length < 3) return undefined;
  let state = 0x2545f491;
  const below = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const ratios = Array.from({ length: resamplings }, () => {
    let [a, b] = [0, 0];
    for (let i = 0; i < pairs.length; i++) {
      const [x, y] = pairs[below(pairs.length)]!;
      a += x;
      b += y;
    }
    return a / b;
  }).sort((a, b) => a - b);
  return { low: ratios[Math.floor(0.025 * resamplings)]!, high: ratios[Math.ceil(0.975 * resamplings) - 1]! };
}
