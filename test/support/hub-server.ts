/** A server on loopback that speaks the hub's API, as well or as badly as a test wants. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface HubRequest {
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** Answers a request for a file's contents by itself, or returns false to leave it to the server. */
export type Handler = (request: IncomingMessage, response: ServerResponse, attempt: number) => boolean;

export class HubServer implements AsyncDisposable {
  readonly requests: HubRequest[] = [];
  /** Bytes of contents that went out. */
  served = 0;
  /** Contents by name; names are listed as they are. */
  files = new Map<string, Buffer>();
  commit = "a".repeat(40);
  /** Bytes from which on a file is a large one. */
  largeFrom = 1000;
  handler: Handler = () => false;
  /** Answers every request of the API. */
  api: Handler = () => false;
  /** Changes an entry of the listing. */
  entry: (entry: Record<string, unknown>) => Record<string, unknown> = (entry) => entry;
  readonly #server: Server;
  #attempts = 0;

  private constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  static async start(files: Readonly<Record<string, Buffer>> = {}): Promise<HubServer> {
    const hub = new HubServer();
    hub.files = new Map(Object.entries(files));
    await new Promise<void>((resolve) => hub.#server.listen(0, "127.0.0.1", resolve));
    return hub;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Requests for contents. */
  get downloads(): HubRequest[] {
    return this.requests.filter(({ path }) => path.includes("/resolve/"));
  }

  hashOf(name: string): string {
    const data = this.files.get(name)!;
    return data.length >= this.largeFrom
      ? createHash("sha256").update(data).digest("hex")
      : createHash("sha1").update(`blob ${data.length}\0`).update(data).digest("hex");
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, this.endpoint);
    const path = decodeURIComponent(url.pathname);
    this.requests.push({
      path,
      range: request.headers.range,
      authorization: request.headers.authorization,
    });
    if (path.startsWith("/api/")) {
      if (this.api(request, response, ++this.#attempts)) return;
      if (path.includes("/tree/")) this.#tree(url, response);
      else this.#json(response, { _id: "1", id: "o/r", sha: this.commit, lastModified: "2026-01-01" });
      return;
    }
    const name = path.split("/resolve/")[1]?.split("/").slice(1).join("/") ?? path.slice("/cdn/".length);
    if (this.handler(request, response, ++this.#attempts)) return;
    const data = this.files.get(name);
    if (data === undefined) {
      response.writeHead(404).end();
      return;
    }
    this.send(request, response, data);
  }

  #json(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
    response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));
  }

  /** Two files a page, as the hub does with a thousand. */
  #tree(url: URL, response: ServerResponse): void {
    const from = Number(url.searchParams.get("cursor") ?? 0);
    const names = [...this.files.keys()];
    const page = names.slice(from, from + 2).map((name) => {
      const size = this.files.get(name)!.length;
      const hash = this.hashOf(name);
      const large =
        size >= this.largeFrom
          ? { oid: "0".repeat(40), lfs: { oid: hash, size, pointerSize: 130 } }
          : { oid: hash };
      return this.entry({ type: "file", path: name, size, ...large });
    });
    url.searchParams.set("cursor", String(from + 2));
    const next = from + 2 < names.length ? { link: `<${url.href}>; rel="next"` } : undefined;
    this.#json(response, page, next);
  }

  /** Contents, or the range that was asked for; so many bytes at most, and then the connection breaks. */
  send(
    request: IncomingMessage,
    response: ServerResponse,
    data: Buffer,
    breakAfter = Number.POSITIVE_INFINITY,
  ): void {
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const [start, end] = range
      ? [Number(range[1]), Math.min(Number(range[2]) + 1, data.length)]
      : [0, data.length];
    response.writeHead(range ? 206 : 200, {
      "content-length": end - start,
      ...(range ? { "content-range": `bytes ${start}-${end - 1}/${data.length}` } : {}),
    });
    const body = data.subarray(start, Math.min(end, start + breakAfter));
    this.served += body.length;
    if (body.length === end - start) response.end(body);
    else response.write(body, () => setTimeout(() => response.destroy(), 20));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
