import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { ModelInfo } from "./api.js";
import { figure, megabytes, number, percent } from "./format.js";
import { ModelSelect } from "./settings.js";
import { info, modelId, refreshInfo, theme } from "./state.js";

const everyMs = 2000;
const kept = 90;
/** What the server did lately: one point for each look at it. */
const history = signal<readonly { at: number; running: number; waiting: number }[]>([]);

function useRefresh(): void {
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const look = async () => {
      if (!document.hidden) {
        await refreshInfo(abort.signal);
        const load = info.value?.load;
        if (load && !abort.signal.aborted)
          history.value = [...history.value.slice(1 - kept), { at: Date.now() / 1000, ...load }];
      }
      if (!abort.signal.aborted) timer = setTimeout(() => void look(), everyMs);
    };
    void look();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, []);
}

export function Machine() {
  useRefresh();
  const models = info.value?.models ?? [];
  const shown = models.find(({ id }) => id === modelId.value);
  return (
    <div class="machine">
      <h1>Machine</h1>
      <p class="lead">
        What a pass over several tokens costs here, and what the server does at this moment; looked at every 2
        s.
      </p>
      {models.length > 1 && <ModelSelect />}
      {shown && <Load model={shown} />}
      {shown && <CostCurve model={shown} />}
      <LoadHistory />
    </div>
  );
}

function Load({ model }: { model: ModelInfo }) {
  const { state } = model;
  const cache = state?.cache;
  return (
    <section aria-label="Load">
      <dl class="tiles">
        <Tile name="Running" value={number(model.running)} unit="requests" />
        <Tile name="Waiting" value={number(model.waiting)} unit="requests" />
        {cache && (
          <Tile
            name="Cache in use"
            value={percent(cache.used / cache.positions)}
            unit={`${number(cache.used)} of ${number(cache.positions)} positions`}
            part={cache.used / cache.positions}
          />
        )}
        {cache && <Tile name="Kept prefixes" value={number(cache.kept)} unit="positions" />}
        <Tile name="Restarts" value={number(model.restarts)} unit="of the model's process" />
        {state && <Tile name="Memory" value={megabytes(state.rss)} unit="MB resident" />}
      </dl>
      <p class="dim">
        {[
          model.name ?? model.id,
          model.architecture,
          model.threads !== undefined && `${model.threads} threads`,
          model.instruction_set,
          model.context !== undefined && `context ${number(model.context)} tokens`,
          !model.loaded && "not loaded: it is when first asked for",
        ]
          .filter(Boolean)
          .join(" · ")}
      </p>
    </section>
  );
}

function Tile(props: { name: string; value: string; unit: string; part?: number }) {
  return (
    <div class="tile">
      <dt>{props.name}</dt>
      <dd>
        <span class="big">{props.value}</span> <span class="unit">{props.unit}</span>
        {props.part !== undefined && (
          <meter aria-label={props.name} min={0} max={1} value={props.part}>
            {percent(props.part)}
          </meter>
        )}
      </dd>
    </div>
  );
}

function CostCurve({ model }: { model: ModelInfo }) {
  const ms = model.state?.passMs ?? [];
  if (ms.length === 0)
    return (
      <section class="empty" aria-label="Cost of a pass">
        <h2>Cost of a pass</h2>
        <p>
          Nothing was decoded yet. <a href="#/chat">Ask something</a>, and the curve that drafting goes by is
          drawn here.
        </p>
      </section>
    );
  const sizes = ms.map((_, i) => i + 1);
  const same = ms.findLastIndex((cost) => cost <= 1.25 * ms[0]!) + 1;
  return (
    <section aria-labelledby="cost-title">
      <h2 id="cost-title">Cost of a pass</h2>
      <p>
        A pass over {same} {same === 1 ? "token" : "tokens"} takes at most a quarter longer than one over 1
        token ({figure(ms[0]!)} ms): what is drafted within is nearly free.
      </p>
      <Chart
        label={`Milliseconds of a pass over 1 to ${ms.length} tokens; the table below has the figures`}
        data={[sizes, [...ms], sizes.map((n) => n * ms[0]!)]}
        series={[
          { label: "one pass over n tokens", stroke: "--accent", width: 2.5, points: true },
          { label: "n passes over one", stroke: "--dim", width: 1.5, dash: [5, 5] },
        ]}
        x="tokens in the pass"
        y="ms"
        top={Math.max(...ms) * 1.25}
      />
      <details>
        <summary>Figures</summary>
        <table>
          <thead>
            <tr>
              <th scope="col">Tokens</th>
              <th scope="col">ms a pass</th>
              <th scope="col">ms a token</th>
            </tr>
          </thead>
          <tbody>
            {ms.map((cost, i) => (
              <tr key={i}>
                <th scope="row">{i + 1}</th>
                <td>{figure(cost)}</td>
                <td>{figure(cost / (i + 1))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </section>
  );
}

function LoadHistory() {
  const points = history.value;
  if (points.length < 2) return null;
  const most = Math.max(4, ...points.map(({ running, waiting }) => Math.max(running, waiting) + 1));
  const last = points.at(-1)!;
  return (
    <section aria-labelledby="load-title">
      <h2 id="load-title">Requests, the last minutes</h2>
      <Chart
        label={`Requests over time; now ${last.running} running and ${last.waiting} waiting`}
        data={[
          points.map(({ at }) => at - last.at),
          points.map(({ running }) => running),
          points.map(({ waiting }) => waiting),
        ]}
        series={[
          { label: "running", stroke: "--accent", width: 2 },
          { label: "waiting", stroke: "--warn", width: 2, dash: [3, 3] },
        ]}
        x="s ago"
        y="requests"
        top={most}
        from={-kept * (everyMs / 1000)}
        height={150}
      />
    </section>
  );
}

interface Line {
  readonly label: string;
  /** A custom property of the style sheet. */
  readonly stroke: string;
  readonly width: number;
  readonly dash?: number[];
  readonly points?: boolean;
}

function Chart(props: {
  label: string;
  data: uPlot.AlignedData;
  series: readonly Line[];
  x: string;
  y: string;
  top: number;
  /** Where the x axis begins; it ends at 0 then. */
  from?: number;
  height?: number;
}) {
  const { label, data, series, x, y, top, from, height = 260 } = props;
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const range = useRef(top);
  range.current = top;
  const chosen = theme.value;
  useEffect(() => {
    const element = box.current!;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element), data, element);
    };
    const options = (parent: HTMLElement): uPlot.Options => {
      const ink = colourOf(parent, "--dim");
      const grid = { stroke: colourOf(parent, "--line"), width: 1 };
      const axis = { stroke: ink, grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      return {
        width: parent.clientWidth,
        height,
        scales: {
          x: { time: false, ...(from !== undefined && { range: [from, 0] as [number, number] }) },
          y: { range: () => [0, range.current] },
        },
        axes: [
          { ...axis, label: x, labelSize: 22, size: 34, labelFont: axis.font },
          { ...axis, label: y, labelSize: 20, size: 44, labelFont: axis.font },
        ],
        cursor: { drag: { x: false, y: false } },
        series: [
          { label: x, value: (_: uPlot, v: number | null) => (v === null ? "" : figure(v)) },
          ...series.map((line) => ({
            label: line.label,
            stroke: colourOf(parent, line.stroke),
            width: line.width,
            ...(line.dash && { dash: line.dash }),
            points: { show: line.points === true, size: 7 },
            value: (_: uPlot, v: number | null) => (v === null ? "" : `${figure(v)} ${y}`),
          })),
        ],
      };
    };
    draw();
    const sized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    sized.observe(element);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    return () => {
      sized.disconnect();
      dark.removeEventListener("change", draw);
      plot.current?.destroy();
    };
  }, [chosen]);
  useEffect(() => plot.current?.setData(data));
  return <div ref={box} class="chart" role="img" aria-label={label} />;
}

/** A colour that the canvas understands, of whichever theme holds here. */
function colourOf(parent: HTMLElement, property: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${property})`;
  parent.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
