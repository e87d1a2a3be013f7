import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: [
      ...["src/**/*.test.ts", "test/**/*.test.ts", "bench/*.test.mjs", "web/src/**/*.test.ts"],
      // In a browser, where one is named: .ci/run does, and then it must be there.
      ...(process.env.OUTRIDER_CHROMIUM ? ["web/test/**/*.test.ts"] : []),
    ],
    globalSetup: ["test/support/build.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Two processor cores, and a model's passes use both: more workers would only fight.
    maxWorkers: 2,
    // What models learn while tests run is not the user's.
    env: { OUTRIDER_CACHE: mkdtempSync(path.join(tmpdir(), "outrider-test-")) },
    typecheck: { enabled: false },
  },
});
