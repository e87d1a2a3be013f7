import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { CostCurve } from "./cost-curve.js";
import type { Speed } from "./decoding-speed.js";
import { median } from "./median.js";
import { figures } from "./table.js";
import type { Together } from "./together.js";

export interface BenchReport {
  readonly title: string;
  readonly circumstances: string;
  readonly costs: CostCurve;
  readonly decoding: readonly Speed[];
  readonly together: readonly Together[];
}

/** One HTML file that needs nothing else: charts of the figures (uPlot, inside it), and the figures as tables. */
export function benchPage(report: BenchReport): string {
  const require = createRequire(import.meta.url);
  const library = readFileSync(require.resolve("uplot/dist/uPlot.iife.min.js"), "utf8");
  const style = readFileSync(require.resolve("uplot/dist/uPlot.min.css"), "utf8");
  const { costs, decoding, together } = report;
  const strategies = [...new Set(decoding.map((s) => s.strategy))];
  const categories = [...new Set(decoding.map((s) => s.category))];
  const find = (category: string, strategy: string) =>
    decoding.find((s) => s.category === category && s.strategy === strategy)!;
  const all = strategies.map((strategy) => find("all", strategy));
  const deepest = Math.max(0, ...all.map((s) => s.acceptedByPosition.length));
  const data = {
    cost: [costs.passes.map(({ n }) => n), costs.passes.map(({ ms }) => median(ms))],
    read: median(costs.read.ms),
    categories,
    strategies,
    speedups: strategies.map((strategy) => categories.map((c) => find(c, strategy).speedup.median)),
    acceptance: all.map((s) => Array.from({ length: deepest }, (_, i) => s.acceptedByPosition[i] ?? null)),
  };
  const interval = ({ interval: i }: Speed) => (i ? `${figures(i.low)}–${figures(i.high)}` : "");
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${text(report.title)}</title>
<style>${style}
:root { color-scheme: light dark; --ink: light-dark(#1d2530, #e4e8ee); --dim: light-dark(#5c6878, #9aa5b4); --line: light-dark(#d8dee6, #333c48); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: light-dark(#fff, #14181e); max-width: 860px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; } p { color: var(--dim); margin: .3rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); } th:first-child, td:first-child, .l { text-align: left; }
.scroll { overflow-x: auto; } .chart { min-height: 300px; } .u-legend { color: var(--ink); }
</style>
<h1>${text(report.title)}</h1>
<p>${text(report.circumstances)}</p>
<h2>What a pass costs</h2>
<p>Milliseconds of a pass over n tokens, ${costs.past} behind them. The line below is reading the weights once.</p>
<div id="cost" class="chart"></div>
<h2>Speed-up by category</h2>
<p>Beside ${text(strategies[0]!)}, in the same run; medians.</p>
<div id="speedup" class="chart"></div>
<h2>Acceptance by position</h2>
<p>The share of tokens drafted at each depth that the model took.</p>
<div id="acceptance" class="chart"></div>
<h2>Figures</h2>
<div class="scroll"><table>
<tr><th>category</th><th class="l">strategy</th><th>prompts</th><th>tokens/s</th><th>tokens/pass</th><th>speed-up</th><th>95 %</th><th>drafter</th><th>exact</th></tr>
${decoding
  .map(
    (s) =>
      `<tr><td>${text(s.category)}</td><td class="l">${text(s.strategy)}</td><td>${s.prompts}</td><td>${figures(s.tokensPerSecond.median)}</td><td>${figures(s.tokensPerPass.median)}</td><td>${figures(s.speedup.median)}×</td><td>${interval(s)}</td><td>${figures(100 * s.draftShare)} %</td><td>${s.exact} of ${s.answers}</td></tr>`,
  )
  .join("\n")}
</table></div>
${
  together.length === 0
    ? ""
    : `<h2>Several at a time</h2><div class="scroll"><table>
<tr><th>kind</th><th>at a time</th><th>tokens/s</th><th>beside one after another</th><th>exact</th></tr>
${together.map((t) => `<tr><td>${t.kind}</td><td>${t.size}</td><td>${figures(t.tokensPerSecond)}</td><td>${figures(t.speedup)}×</td><td>${t.exact} of ${t.answers}</td></tr>`).join("\n")}
</table></div>`
}
<script>${library.replaceAll("</script", "<\\/script")}</script>
<script>
const data = ${JSON.stringify(data).replaceAll("<", "\\u003c")};
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ink = dark ? "#9aa5b4" : "#5c6878", line = dark ? "#333c48" : "#e4e8ee";
const colours = ["#7b8794", "#2f7ed8", "#e0803a", "#3aa676", "#a35bd1", "#d1495b", "#b59f1d", "#00a3b4"];
const axis = (label, rest) => ({ label, stroke: ink, grid: { stroke: line }, ticks: { stroke: line }, ...rest });
const width = () => Math.min(828, document.body.clientWidth - 4);
const chart = (id, series, axes, values, scales) => {
  const place = document.getElementById(id);
  const plot = new uPlot({ width: width(), height: 320, series, axes, scales }, values, place);
  addEventListener("resize", () => plot.setSize({ width: width(), height: 320 }));
};
chart("cost", [{ label: "tokens" }, { label: "pass, ms", stroke: colours[1], width: 2, points: { show: true } }, { label: "reading the weights, ms", stroke: colours[0], dash: [6, 4] }],
  [axis("tokens in the pass"), axis("ms")], [data.cost[0], data.cost[1], data.cost[0].map(() => data.read)], { x: { time: false }, y: { range: (u, low, high) => [0, high * 1.05] } });
const bars = data.strategies.length, group = 0.8;
chart("speedup", [{ label: "category", value: (u, v) => data.categories[v] ?? "" }, ...data.strategies.map((name, i) => ({ label: name, stroke: colours[i % 8], fill: colours[i % 8] + "99", points: { show: false },
  paths: (u, s, from, to) => {
    const path = new Path2D();
    for (let x = from; x <= to; x++) {
      const left = u.valToPos(x - group / 2 + (group * i) / bars, "x", true), right = u.valToPos(x - group / 2 + (group * (i + 1)) / bars, "x", true);
      const top = u.valToPos(u.data[s][x], "y", true), bottom = u.valToPos(0, "y", true);
      path.rect(left + 1, top, Math.max(1, right - left - 2), bottom - top);
    }
    return { fill: path, stroke: null };
  } }))],
  [axis("", { splits: () => data.categories.map((_, i) => i), values: () => data.categories, rotate: -35, size: 90 }), axis("× " + data.strategies[0])],
  [data.categories.map((_, i) => i), ...data.speedups], { x: { time: false, range: [-0.6, data.categories.length - 0.4] }, y: { range: (u, low, high) => [0, high * 1.1] } });
const depths = data.acceptance[0]?.length ?? 0;
if (depths > 0) chart("acceptance", [{ label: "depth" }, ...data.strategies.map((name, i) => ({ label: name, stroke: colours[i % 8], width: 2, points: { show: true } }))],
  [axis("position in the draft"), axis("accepted")], [Array.from({ length: depths }, (_, i) => i + 1), ...data.acceptance], { x: { time: false }, y: { range: [0, 1] } });
</script>
`;
}

function text(raw: string): string {
  return raw.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}
