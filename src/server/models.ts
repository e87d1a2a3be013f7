import { stat } from "node:fs/promises";
import { OutriderError, quote } from "../errors.js";
import type { Scheduler } from "../scheduling/scheduler.js";
import { type EngineEvents, EngineProcess } from "./engine-process.js";
import type { EngineInfo, EngineSource } from "./protocol.js";

export interface ModelSpec {
  /** As requests name it. */
  readonly name: string;
  readonly source: EngineSource;
}

/** A loaded model that is not unloaded until it is released. */
export interface Lease {
  readonly name: string;
  readonly engine: EngineProcess;
  readonly info: EngineInfo;
  readonly scheduler: Scheduler;
  release(): void;
}

interface Entry {
  readonly spec: ModelSpec;
  readonly scheduler: Scheduler;
  engine: EngineProcess | undefined;
  leases: number;
  usedAt: number;
  /** Bytes: as loaded, or the file's until then. */
  bytes: number;
}

export interface ModelsOptions {
  /** Bytes that loaded models may take together: packed weights, and the cache of one full context each. */
  readonly memoryBudget?: number | undefined;
  readonly scheduler: (name: string) => Scheduler;
  readonly events: (name: string) => EngineEvents;
}

/** The models that requests may name. Each is loaded when it is first asked for, the least recently used leaves first. */
export class Models {
  readonly #entries = new Map<string, Entry>();
  readonly #budget: number;
  readonly #events: ModelsOptions["events"];
  /** Loading and unloading take turns, or two models would both see the room for one. */
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(specs: readonly ModelSpec[], options: ModelsOptions) {
    if (specs.length === 0) throw new OutriderError("ERR_BAD_REQUEST", "there is no model to serve");
    for (const spec of specs) {
      if (this.#entries.has(spec.name))
        throw new OutriderError("ERR_BAD_REQUEST", `two models are called ${quote(spec.name)}`, {
          param: "models",
        });
      const scheduler = options.scheduler(spec.name);
      this.#entries.set(spec.name, { spec, scheduler, engine: undefined, leases: 0, usedAt: 0, bytes: 0 });
    }
    this.#budget = options.memoryBudget ?? Number.POSITIVE_INFINITY;
    this.#events = options.events;
  }

  get names(): readonly string[] {
    return [...this.#entries.keys()];
  }

  /** Requests that name no model mean the first. */
  get first(): string {
    return this.names[0]!;
  }

  /** What is known without loading anything. */
  list(): {
    name: string;
    info: EngineInfo | undefined;
    pid: number | undefined;
    restarts: number;
    bytes: number;
    scheduler: Scheduler;
    engine: EngineProcess | undefined;
  }[] {
    return [...this.#entries.values()].map(({ spec, engine, bytes, scheduler }) => ({
      name: spec.name,
      info: engine?.info,
      pid: engine?.pid,
      restarts: engine?.restarts ?? 0,
      bytes: engine ? bytes : 0,
      scheduler,
      engine,
    }));
  }

  get(name: string): { scheduler: Scheduler } {
    const entry = this.#entries.get(name);
    if (entry) return entry;
    throw new OutriderError(
      "ERR_NOT_FOUND",
      `there is no model ${quote(name)}; there are: ${this.names.join(", ")}`,
      { param: "model" },
    );
  }

  /** The model, loaded. Rejects with ERR_NOT_FOUND, ERR_BUSY where no room can be made, or what is wrong with its file. */
  async lease(name: string): Promise<Lease> {
    this.get(name);
    const entry = this.#entries.get(name)!;
    entry.leases++; // from now on, so that it is not unloaded while it waits
    entry.usedAt = performance.now();
    try {
      if (!entry.engine) {
        const loaded = this.#turn.then(() => this.#load(entry));
        this.#turn = loaded.catch(() => undefined);
        await loaded;
      }
      const engine = entry.engine!;
      const info = await engine.start();
      let released = false;
      return {
        name,
        engine,
        info,
        scheduler: entry.scheduler,
        release: () => {
          if (released) return;
          released = true;
          entry.leases--;
          entry.usedAt = performance.now();
        },
      };
    } catch (error) {
      entry.leases--;
      throw error;
    }
  }

  async #load(entry: Entry): Promise<void> {
    if (this.#closed) throw new OutriderError("ERR_DISPOSED", "the server is stopping");
    if (entry.engine) return;
    const { source, name } = entry.spec;
    // A file that is not there is the engine's to report.
    if (entry.bytes === 0) entry.bytes = (await stat(source.file).catch(() => undefined))?.size ?? 0;
    await this.#makeRoom(entry);
    entry.engine = new EngineProcess(source, this.#events(name));
    try {
      const info = await entry.engine.start();
      entry.bytes = info.memory.weights + info.memory.cache;
    } catch (error) {
      const { engine } = entry;
      entry.engine = undefined;
      await engine.close();
      throw error;
    }
  }

  async #makeRoom(wanted: Entry): Promise<void> {
    if (wanted.bytes > this.#budget)
      throw new OutriderError(
        "ERR_MODEL_LIMIT",
        `the model ${quote(wanted.spec.name)} takes ${wanted.bytes} bytes, the memory budget is ${this.#budget}`,
      );
    const others = [...this.#entries.values()].filter((e) => e !== wanted && e.engine);
    let used = others.reduce((sum, { bytes }) => sum + bytes, 0);
    const idle = others.filter(({ leases }) => leases === 0).sort((a, b) => a.usedAt - b.usedAt);
    for (const entry of idle) {
      if (used + wanted.bytes <= this.#budget) break;
      if (entry.leases > 0) continue; // taken while another was being unloaded
      const { engine } = entry;
      entry.engine = undefined;
      await engine!.close();
      used -= entry.bytes;
    }
    if (used + wanted.bytes > this.#budget)
      throw new OutriderError(
        "ERR_BUSY",
        `there is no room for the model ${quote(wanted.spec.name)} while others work: try again later`,
      );
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#entries.values()].map(({ engine }) => engine?.close()));
  }
}
