import fc from "fast-check";
import { expect, test } from "vitest";
import { Recent } from "./recent.js";

test("a quantile is that of the last numbers, however often it is asked for (property)", () => {
  const call = fc.oneof(
    fc.record({ add: fc.integer({ min: -9, max: 9 }) }),
    fc.record({ ask: fc.constantFrom(0, 0.25, 0.5, 1) }),
    fc.constant("clear" as const),
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5 }), fc.array(call, { maxLength: 40 }), (capacity, calls) => {
      const recent = new Recent(capacity);
      let all: number[] = [];
      for (const one of calls) {
        if (one === "clear") {
          recent.clear();
          all = [];
        } else if ("add" in one) {
          recent.add(one.add);
          all = [...all, one.add].slice(-capacity);
        } else if (all.length > 0) {
          const sorted = all.toSorted((a, b) => a - b);
          expect(recent.quantile(one.ask)).toBe(sorted[Math.floor((all.length - 1) * one.ask)]);
        }
        expect(recent.size).toBe(all.length);
      }
    }),
    { numRuns: 500 },
  );
});
