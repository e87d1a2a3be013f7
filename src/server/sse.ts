import { describeError } from "./http-error.js";

/** One event of a stream. */
export interface ServerEvent {
  readonly event?: string;
  readonly data: unknown;
}

/**
 * A response that streams the events as they come, and asks for the next only when the connection took the last. The
 * first one is waited for, so that what fails before it is an ordinary error with its status. When the client leaves,
 * the generator ends.
 */
export async function streamEvents(
  events: AsyncGenerator<ServerEvent, void, undefined>,
  { done, onError }: { done?: string; onError: (error: unknown) => void },
): Promise<Response> {
  const encoder = new TextEncoder();
  const encode = ({ event, data }: ServerEvent) =>
    encoder.encode(`${event === undefined ? "" : `event: ${event}\n`}data: ${JSON.stringify(data)}\n\n`);
  let ahead: Promise<IteratorResult<ServerEvent, void>> | undefined = Promise.resolve(await events.next());
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const step = await (ahead ?? events.next());
          ahead = undefined;
          if (!step.done) return controller.enqueue(encode(step.value));
          if (done !== undefined) controller.enqueue(encoder.encode(`data: ${done}\n\n`));
        } catch (error) {
          onError(error);
          controller.enqueue(encode({ event: undefined, data: describeError(error).body }));
        }
        controller.close();
      },
      async cancel() {
        await events.return();
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      // nginx would collect the stream
      "x-accel-buffering": "no",
    },
  });
}
