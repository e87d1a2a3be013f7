import { strategies } from "../decoding/strategies.js";
import { table } from "./table.js";
import { paint } from "./terminal.js";

/** Every way to decode, with its source and what it needs. */
export function listStrategies(flags: { readonly json?: boolean }): number {
  const list = Object.entries(strategies).map(([name, { summary, source, needs }]) => ({
    name,
    summary,
    source,
    needs,
  }));
  if (flags.json) {
    process.stdout.write(`${JSON.stringify(list)}\n`);
    return 0;
  }
  const [head, ...lines] = table(
    "lll",
    ["strategy", "needs", "what it does"],
    list.map(({ name, needs, summary }) => [name, needs === "nothing" ? "" : needs, summary]),
  );
  process.stdout.write(`${[paint(process.stdout, "bold", head!), ...lines].join("\n")}\n`);
  return 0;
}
