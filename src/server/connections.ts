import { type Server as HttpServer, type ServerResponse, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { OutriderError } from "../errors.js";
import type { Limits } from "./limits.js";
import type { Refusal, Refuse } from "./refusal.js";

/** Milliseconds for a client to read why it was refused, before what it still sends resets the connection. */
const lingerMs = 500;

interface Connection {
  /** The answer to the last request whose headers came. */
  latest?: ServerResponse;
  /** The answers that are not out yet, in order. */
  readonly owed: Set<ServerResponse>;
  /** What it gets now is the last answer, and what it still sends is dropped. */
  refused: boolean;
}

/**
 * What happens on connections beside the app's requests: bytes that Node's parser does not take, requests that do not come
 * to their end, CONNECT, and more connections than there may be. Node would answer with an empty body or not at all; here
 * each gets an error like any other request's, behind the answers that are owed before it.
 */
export function watchConnections(http: HttpServer, limits: Limits, refuse: Refuse): void {
  const { sockets: most, idleTimeout } = limits;
  const connections = new Map<Duplex, Connection>();
  const strangers = new Set<Socket>(); // have never asked for anything
  const idle = new Set<Socket>(); // the one first that has been so longest
  const lingering = new Set<Duplex>();

  http.on("connection", (socket: Socket) => {
    connections.set(socket, { owed: new Set(), refused: false });
    strangers.add(socket);
    socket.once("close", () => forget(socket));
    socket.setTimeout(idleTimeout);
    makeRoom(socket);
  });
  http.on("request", ({ socket }, response) => {
    const connection = connections.get(socket);
    if (!connection) return;
    connection.latest = response;
    connection.owed.add(response);
    strangers.delete(socket);
    idle.delete(socket);
    socket.setTimeout(0); // an answer may take its time; the request's deadline ends it
    response.once("close", () => {
      connection.owed.delete(response);
      if (connection.owed.size === 0 && connections.has(socket)) idle.add(socket);
    });
  });

  http.on("clientError", (cause: NodeJS.ErrnoException, socket) => {
    const connection = connections.get(socket);
    if (!connection || !socket.writable || cause.code === "ECONNRESET") socket.destroy();
    else if (cause.code !== "ERR_HTTP_REQUEST_TIMEOUT") answer(socket, () => refuse(...describe(cause)));
    else {
      // Where this process was held up, the request may be there and wait to be read, which takes a turn.
      const { latest } = connection;
      const read = latest?.req.complete;
      setImmediate(() => {
        const now = connection.latest;
        if (now?.req.complete && !(now === latest && read)) return;
        answer(socket, () => refuse(...describe(cause)));
      });
    }
  });

  http.on("connect", (_, socket) => {
    socket.on("error", () => undefined);
    // Node has let go of the socket, so that an answer which is owed could not come to its end.
    if (connections.get(socket)?.owed.size) return socket.destroy();
    answer(socket, () => {
      const refusal = refuse(
        new OutriderError("ERR_METHOD", "this is no proxy: it takes GET and POST, not CONNECT"),
      );
      return { ...refusal, headers: { ...refusal.headers, allow: "GET, POST" } };
    });
  });

  // What is expected but not known may be left out of account (RFC 9110, 10.1.1).
  http.on("checkExpectation", (request, response) => http.emit("request", request, response));

  /** Gives the connection its last answer; never inside of one that has begun. */
  function answer(socket: Duplex, last: () => Refusal): void {
    const connection = connections.get(socket);
    if (!connection || connection.refused) return; // the parser complains of every further byte
    connection.refused = true;
    socket.removeAllListeners("data");
    socket.on("data", () => undefined).resume();
    const whenFree = () => {
      const before = [...connection.owed].find(({ req }) => req.complete);
      const { latest } = connection; // is what is wrong where it is not complete
      if (before) before.once("close", whenFree);
      else if (!socket.writable || (latest?.headersSent && !latest.req.complete)) socket.destroy();
      else {
        lingering.add(socket);
        socket.end(bytesOf(last()));
        setTimeout(() => socket.destroy(), lingerMs).unref();
      }
    };
    whenFree();
  }

  /**
   * At the limit a connection makes room for a new one, so that a thousand sockets that say nothing keep nobody out: those
   * that had their last answer, the oldest of those that never asked for anything, else the one that is idle longest.
   */
  function makeRoom(socket: Socket): void {
    for (const other of lingering) if (connections.size > most) drop(other);
    if (connections.size <= most) return;
    const [oldest] = strangers.size > 1 ? strangers : idle;
    if (oldest) drop(oldest);
    else
      answer(socket, () =>
        refuse(
          new OutriderError("ERR_BUSY", `the server takes ${most} connections, and all of them are busy`),
        ),
      );
  }

  function drop(socket: Duplex): void {
    forget(socket);
    socket.destroy();
  }

  function forget(socket: Duplex): void {
    connections.delete(socket);
    for (const set of [strangers, idle, lingering] as Set<Duplex>[]) set.delete(socket);
  }
}

/** What an error of Node's parser is to the client, and the status that its code alone does not say. */
function describe(cause: NodeJS.ErrnoException): [OutriderError, number?] {
  switch (cause.code) {
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return [
        new OutriderError("ERR_TIMEOUT", "the request did not come to its end in time", { cause }),
        408,
      ];
    case "HPE_HEADER_OVERFLOW":
      return [new OutriderError("ERR_TOO_LARGE", "the headers of the request are too large", { cause }), 431];
    case "HPE_CHUNK_EXTENSIONS_OVERFLOW":
      return [
        new OutriderError("ERR_TOO_LARGE", "the chunks of the body have too long extensions", { cause }),
      ];
    case "HPE_PAUSED_H2_UPGRADE":
      return [new OutriderError("ERR_BAD_REQUEST", "this server speaks HTTP/1.1, not HTTP/2", { cause })];
    default:
      return [new OutriderError("ERR_BAD_REQUEST", "this is not a valid HTTP/1.1 request", { cause })];
  }
}

function bytesOf({ status, headers, body }: Refusal): string {
  const lines = Object.entries({ ...headers, connection: "close" }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join("")}\r\n${body}`;
}
