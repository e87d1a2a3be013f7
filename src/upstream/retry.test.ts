import { expect, test } from "vitest";
import { OutriderError } from "../errors.js";
import { secondsUntil } from "./http.js";
import { retryDelay } from "./retry.js";

const answered = (status: number, retryAfter?: number) =>
  new OutriderError("ERR_BUSY", "", { details: { status, ...(retryAfter !== undefined && { retryAfter }) } });

test("only 429 and 503 are tried again", () => {
  for (const status of [400, 401, 404, 500, 502, 504])
    expect(retryDelay(answered(status), 0, 0)).toBeUndefined();
  expect(retryDelay(new Error("fetch failed"), 0, 0)).toBeUndefined();
  expect(retryDelay(new OutriderError("ERR_UPSTREAM", ""), 0, 0)).toBeUndefined();
});

test("Retry-After says when, up to a minute", () => {
  expect(retryDelay(answered(429, 0), 3, 0)).toBe(0);
  expect(retryDelay(answered(503, 1.5), 0, 0)).toBe(1500);
  expect(retryDelay(answered(429, 60), 0, 0)).toBe(60_000);
  expect(retryDelay(answered(429, 61), 0, 0)).toBeUndefined();
});

test("without Retry-After twice as long each time", () => {
  expect([0, 1, 2, 20].map((attempt) => retryDelay(answered(429), attempt, 0))).toEqual([
    500, 1000, 2000, 60_000,
  ]);
  expect(retryDelay(answered(429), 1, 0.5)).toBe(750);
});

test("Retry-After is seconds or a date", () => {
  const now = Date.parse("Wed, 21 Oct 2026 07:28:00 GMT");
  expect(secondsUntil("7", now)).toBe(7);
  expect(secondsUntil("Wed, 21 Oct 2026 07:28:30 GMT", now)).toBe(30);
  expect(secondsUntil("Wed, 21 Oct 2026 07:27:00 GMT", now)).toBe(0);
  for (const nothing of [null, undefined, "", "soon"]) expect(secondsUntil(nothing, now)).toBeUndefined();
});
