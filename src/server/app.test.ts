import { expect, test } from "vitest";
import { type AppOptions, createApp } from "./app.js";
import { defaultLimits } from "./limits.js";

test("that the model is still loading is an answer, not a failure in the log", async () => {
  const failures: unknown[] = [];
  const app = createApp({
    limits: defaultLimits,
    log: { info: () => undefined, error: (failure: unknown) => failures.push(failure) },
    metrics: {
      http: () => undefined,
      text: () => Promise.reject(new Error("no metrics")),
    },
    keys: [],
    host: { bound: "127.0.0.1", keyed: false, allowHosts: [], allowOrigins: [] },
    files: new Map(),
    ready: () => false,
  } as unknown as AppOptions);
  const get = (path: string) => app.request(path, {}, { incoming: { headers: { host: "localhost" } } });
  const ready = await get("/ready");
  expect(ready.status).toBe(503);
  expect(await ready.json()).toMatchObject({ error: { code: "ERR_LOADING" } });
  expect(failures).toHaveLength(0);
  expect((await get("/metrics")).status).toBe(500);
  expect(failures).toHaveLength(1);
});
