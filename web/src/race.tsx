import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { type Answer, ask, isRunning } from "./answer.js";
import { count, number } from "./format.js";
import { firstDifference, hashIds } from "./passes.js";
import { ModelSelect, SamplingFields, StrategySelect } from "./settings.js";
import { announcement, maxTokens, model, seed, temperature } from "./state.js";
import { AnswerText, Figures, Legend, PassBars, PassInspector } from "./tokens.js";

type Manner = "together" | "in turn";

const prompt = signal("Explain step by step how rain forms.");
const strategies = [signal("none"), signal("auto")] as const;
const manner = signal<Manner>("together");
const lanes = signal<readonly Answer[]>([]);
const stopped = signal(false);

const busy = () => lanes.value.some(isRunning);

async function start(): Promise<void> {
  if (prompt.value.trim() === "") return;
  stop();
  stopped.value = false;
  // One seed for both; strategies must not be able to hide behind chance.
  const shared = seed.value ?? Math.floor(Math.random() * 2 ** 32);
  const begin = (lane: 0 | 1) =>
    ask({
      model: model.value,
      messages: [{ role: "user", content: prompt.value }],
      strategy: strategies[lane].value,
      temperature: temperature.value,
      seed: shared,
      maxTokens: maxTokens.value,
    });
  announcement.value = "The race is on.";
  const first = begin(0);
  lanes.value = [first];
  if (manner.value === "in turn") await first.ended;
  if (lanes.value[0] !== first || stopped.value) return;
  const second = begin(1);
  lanes.value = [first, second];
  await Promise.all([first.ended, second.ended]);
  if (lanes.value[0] === first) announcement.value = verdict(first, second).text;
}

function stop(): void {
  stopped.value = true;
  for (const lane of lanes.value) lane.stop();
}

/** What the ids say: not the texts, which could agree by chance of tokens. */
function verdict(a: Answer, b: Answer): { same: boolean; text: string } {
  const [ids, others] = [a.ids(), b.ids()];
  const at = firstDifference(ids, others);
  if (at >= 0)
    return {
      same: false,
      text: `Different from token ${at + 1} on (${number(ids.length)} and ${number(others.length)} tokens).`,
    };
  return {
    same: true,
    text: `Identical: ${count(ids.length, "token id")} of ${number(others.length)} agree.`,
  };
}

export function Race() {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key === "Escape" && busy()) stop();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return (
    <div class="race">
      <h1>Race</h1>
      <p class="lead">Two strategies, one prompt, one seed. The ids of all tokens are compared at the end.</p>
      <form
        class="race-form"
        aria-label="The race"
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy()) void start();
        }}
      >
        <label>
          Prompt
          <textarea
            rows={2}
            value={prompt.value}
            onInput={(event) => {
              prompt.value = event.currentTarget.value;
            }}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
              event.preventDefault();
              if (!busy()) void start();
            }}
          />
        </label>
        <div class="pair">
          <StrategySelect label="Left" value={strategies[0]} />
          <StrategySelect label="Right" value={strategies[1]} />
        </div>
        <details>
          <summary>Settings</summary>
          <ModelSelect />
          <SamplingFields />
        </details>
        <fieldset class="row">
          <legend class="hidden">How they run</legend>
          {(["together", "in turn"] as const).map((how) => (
            <label key={how} class="switch">
              <input
                type="radio"
                name="manner"
                checked={manner.value === how}
                onChange={() => {
                  manner.value = how;
                }}
              />
              {how === "together" ? "Side by side, sharing passes" : "One after the other"}
            </label>
          ))}
          {busy() ? (
            <button type="button" class="primary" onClick={stop}>
              Stop
            </button>
          ) : (
            <button type="submit" class="primary" disabled={prompt.value.trim() === ""}>
              Start
            </button>
          )}
        </fieldset>
      </form>
      {lanes.value.length > 0 && (
        <>
          <Verdict />
          <div class="lanes">
            {lanes.value.map((lane, i) => (
              <Lane key={i} lane={lane} side={i === 0 ? "Left" : "Right"} />
            ))}
          </div>
        </>
      )}
      <PassInspector />
    </div>
  );
}

function Lane({ lane, side }: { lane: Answer; side: string }) {
  return (
    <section class="lane" aria-label={`${side}: ${lane.request.strategy}`}>
      <h2>{lane.request.strategy}</h2>
      <Progress lane={lane} />
      <Figures answer={lane} />
      <PassBars answer={lane} bars={80} />
      <AnswerText answer={lane} label={`${side} answer, ${lane.request.strategy}`} />
      {lane.status.value === "failed" && (
        <p class="problem" role="alert">
          {lane.error()}
        </p>
      )}
      <Legend answer={lane} />
    </section>
  );
}

function Progress({ lane }: { lane: Answer }) {
  lane.frame.value;
  const done = !isRunning(lane) && lane.status.value !== "stopped" && lane.status.value !== "failed";
  const most = Math.max(...lanes.value.map((other) => (isRunning(other) ? 0 : other.ids().length)));
  return (
    <progress
      aria-label={`Progress of ${lane.request.strategy}`}
      max={most > 0 ? most : lane.request.maxTokens}
      value={done ? (most > 0 ? most : lane.request.maxTokens) : lane.ids().length}
    />
  );
}

function Verdict() {
  const [a, b] = lanes.value;
  if (!a || !b || busy()) return null;
  if ([a, b].some(({ status }) => status.value === "stopped" || status.value === "failed")) return null;
  const { same, text } = verdict(a, b);
  const ratio = b.speed() / a.speed();
  const [fast, slow, times] = ratio >= 1 ? [b, a, ratio] : [a, b, 1 / ratio];
  return (
    <section class={same ? "verdict same" : "verdict different"} aria-label="Result">
      <div>
        <strong class="verdict-text">{text}</strong>
        <dl class="hashes">
          {[a, b].map((lane, i) => (
            <div key={i}>
              <dt>{lane.request.strategy}</dt>
              <dd>
                <code>{hashIds(lane.ids())}</code>
              </dd>
            </div>
          ))}
        </dl>
        <small>
          FNV-1a of the ids, 64 bits; temperature {a.request.temperature}, seed {a.request.seed}
        </small>
      </div>
      <div class="ratio">
        <span class="big">
          {times.toFixed(2)}
          <span class="unit">×</span>
        </span>
        <small>
          {fast.request.strategy} against {slow.request.strategy}, in tokens per second
          {manner.value === "together" && "; both shared the machine and its passes"}
        </small>
      </div>
    </section>
  );
}
