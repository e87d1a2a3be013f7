import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { watchConnections } from "./connections.js";
import { defaultLimits } from "./limits.js";
import { createRefuse } from "./refusal.js";

/** Connects, asks some time later, and tells the first line of the answer: beside the thread that is held up. */
const client = `
  const { parentPort, workerData } = require("node:worker_threads");
  let text = "";
  const socket = require("node:net").connect(workerData.port, "127.0.0.1", () =>
    setTimeout(() => socket.write(workerData.bytes), 100));
  socket.on("data", (chunk) => { text += chunk; });
  socket.on("close", () => parentPort.postMessage(text.split("\\r\\n")[0]));
`;

test.each([
  ["is answered", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK"],
  ["of which only a part came is refused", "GET / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 408 Request Timeout"],
])("a request that waited to be read while the process was held up %s", async (_, bytes, expected) => {
  const http = createServer({ headersTimeout: 500, connectionsCheckingInterval: 100 }, (__, response) =>
    response.end(),
  );
  const refuse = createRefuse({ http: () => undefined }, { info: () => undefined } as never);
  watchConnections(http, defaultLimits, refuse);
  // Until the request is late and has long come; then what checks for late requests runs before anything is read.
  http.once("connection", () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const worker = new Worker(client, {
    eval: true,
    workerData: { port: (http.address() as AddressInfo).port, bytes },
  });
  expect(await new Promise((resolve) => worker.once("message", resolve))).toBe(expected);
  http.close();
});
