import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Models } from "./models.js";
import type { JobPiece, JobResult } from "./protocol.js";

const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** What one request that generates tells, as it goes. */
export interface RequestMetrics {
  started(): void;
  readonly piece: (piece: JobPiece) => void;
  finished(result: JobResult): void;
  ended(reason: string): void;
}

export interface Metrics {
  /** The text that Prometheus reads. */
  text(): Promise<string>;
  readonly contentType: string;
  request(model: string): RequestMetrics;
  http(route: string, status: number): void;
  load(): { running: number; waiting: number };
}

/** vLLM's names, so that its dashboards serve here too, under `outrider:`. */
export function createMetrics(models: () => Models): Metrics {
  const registry = new Registry();
  const common = { registers: [registry], labelNames: ["model_name"] as const };
  const counter = (name: string, help: string) => new Counter({ name: `outrider:${name}`, help, ...common });
  const histogram = (name: string, help: string) =>
    new Histogram({ name: `outrider:${name}`, help, buckets: seconds, ...common });
  const gauge = (name: string, help: string, of: (model: ReturnType<Models["list"]>[number]) => number) =>
    new Gauge({
      name: `outrider:${name}`,
      help,
      ...common,
      collect() {
        for (const model of models().list()) this.set({ model_name: model.name }, of(model));
      },
    });

  gauge("num_requests_running", "Requests that are being answered.", ({ scheduler }) => scheduler.running);
  gauge("num_requests_waiting", "Requests that wait for their turn.", ({ scheduler }) => scheduler.waiting);
  gauge("model_loaded", "Whether the model is in memory.", ({ info }) => (info ? 1 : 0));
  gauge("model_memory_bytes", "Packed weights, and the cache of one full context.", ({ bytes }) => bytes);
  gauge("engine_restarts_total", "How often the model's process had to be started again.", (m) => m.restarts);
  new Gauge({
    name: "outrider:kv_cache_usage_perc",
    help: "The part of the key/value cache that texts under way hold, 0 to 1.",
    ...common,
    async collect() {
      for (const { name, info, engine } of models().list()) {
        const state =
          info && (await engine!.call("state", {}, AbortSignal.timeout(1000)).catch(() => undefined));
        if (state) this.set({ model_name: name }, state.cache.used / state.cache.positions);
      }
    },
  });
  const promptTokens = counter("prompt_tokens_total", "Tokens of prompts.");
  const generationTokens = counter("generation_tokens_total", "Tokens of answers.");
  const prefixQueries = counter("prefix_cache_queries_total", "Tokens of prompts looked up in the cache.");
  const prefixHits = counter("prefix_cache_hits_total", "Tokens of prompts found in the cache.");
  const drafts = counter("spec_decode_num_drafts_total", "Passes that verified a draft.");
  const drafted = counter("spec_decode_num_draft_tokens_total", "Tokens drafted and verified.");
  const accepted = counter("spec_decode_num_accepted_tokens_total", "Tokens drafted and accepted.");
  const acceptedAt = new Counter({
    name: "outrider:spec_decode_num_accepted_tokens_per_pos_total",
    help: "Tokens accepted at each place of a draft.",
    registers: [registry],
    labelNames: ["model_name", "position"],
  });
  const success = new Counter({
    name: "outrider:request_success_total",
    help: "Requests answered, by how the answer ended.",
    registers: [registry],
    labelNames: ["model_name", "finished_reason"],
  });
  const responses = new Counter({
    name: "outrider:http_responses_total",
    help: "Answers by route and status.",
    registers: [registry],
    labelNames: ["route", "status"],
  });
  const firstToken = histogram("time_to_first_token_seconds", "From a request's arrival to its first token.");
  const betweenTokens = histogram(
    "inter_token_latency_seconds",
    "Between passes of one text, for each token.",
  );
  const whole = histogram("e2e_request_latency_seconds", "From a request's arrival to its end.");
  const queued = histogram("request_queue_time_seconds", "From a request's arrival to its turn.");

  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    http: (route, status) => responses.inc({ route, status: String(status) }),
    load() {
      const all = models().list();
      return {
        running: all.reduce((sum, { scheduler }) => sum + scheduler.running, 0),
        waiting: all.reduce((sum, { scheduler }) => sum + scheduler.waiting, 0),
      };
    },
    request(model) {
      const label = { model_name: model };
      const arrived = performance.now();
      let last: number | undefined;
      const since = (then: number) => (performance.now() - then) / 1000;
      return {
        started: () => queued.observe(label, since(arrived)),
        piece({ tokens }) {
          if (last === undefined) firstToken.observe(label, since(arrived));
          else if (tokens.length > 0) betweenTokens.observe(label, since(last) / tokens.length);
          last = performance.now();
        },
        finished({ promptTokens: prompt, cachedTokens, completionTokens, stats, finishReason }) {
          promptTokens.inc(label, prompt);
          prefixQueries.inc(label, prompt);
          prefixHits.inc(label, cachedTokens);
          generationTokens.inc(label, completionTokens);
          drafts.inc(label, stats.draftedByPosition[0] ?? 0);
          drafted.inc(label, stats.drafted);
          accepted.inc(label, stats.accepted);
          for (const [position, n] of stats.acceptedByPosition.entries())
            acceptedAt.inc({ ...label, position: String(position) }, n);
          success.inc({ ...label, finished_reason: finishReason });
        },
        ended(reason) {
          whole.observe(label, since(arrived));
          if (reason === "abort" || reason === "error") success.inc({ ...label, finished_reason: reason });
        },
      };
    },
  };
}
