import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { watchConnections } from "./connections.js";
import { defaultLimits } from "./limits.js";
import { createRefuse } from "./refusal.js";

/** Connects, asks once the server is held up, and tells the first line of the answer. */
const client = `
  const { parentPort, workerData } = require("node:worker_threads");
  const { port, bytes, state } = workerData;
  let text = "";
  const socket = require("node:net").connect(port, "127.0.0.1", () => {
    Atomics.wait(state, 0, 0);
    socket.write(bytes, () => {
      Atomics.store(state, 0, 2);
      Atomics.notify(state, 0);
    });
  });
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
  const state = new Int32Array(new SharedArrayBuffer(4)); // 1: the server is held up, 2: the request is sent
  http.once("connection", () => {
    Atomics.store(state, 0, 1);
    Atomics.notify(state, 0);
    Atomics.wait(state, 0, 1);
    // Until the request is late; then what checks for late requests runs before anything is read.
    Atomics.wait(state, 0, 2, 1000);
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const worker = new Worker(client, {
    eval: true,
    workerData: { port: (http.address() as AddressInfo).port, bytes, state },
  });
  expect(await new Promise((resolve) => worker.once("message", resolve))).toBe(expected);
  http.close();
});
