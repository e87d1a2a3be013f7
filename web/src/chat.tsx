import { batch, effect, signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { type Answer, ask, isRunning } from "./answer.js";
import type { Message } from "./api.js";
import { count, figure } from "./format.js";
import {
  FormattedSwitch,
  MarkedSwitch,
  ModelSelect,
  SamplingFields,
  StrategySelect,
  SystemField,
} from "./settings.js";
import { announcement, formatted, maxTokens, model, seed, strategy, system, temperature } from "./state.js";
import { AnswerText, Figures, Legend, PassBars, PassInspector } from "./tokens.js";

interface Turn {
  readonly question: string;
  readonly answer: Answer;
}

/** Outlives the page: an answer goes on while another page is looked at. */
const turns = signal<readonly Turn[]>([]);
const draft = signal("");

const samples = [
  { title: "Planets", prompt: "List the planets of the solar system, each with one short fact." },
  {
    title: "A small edit",
    prompt:
      "Write this again with every name in capital letters: Anna met Ben at the market. Anna bought apples and Ben bought bread. Later Anna and Ben walked home.",
  },
  { title: "Why the sky is blue", prompt: "Explain to a ten-year-old why the sky is blue." },
  { title: "A table", prompt: "Write a Markdown table of the numbers 1 to 12 with their squares and cubes." },
];

/** Ask after the first `kept` turns; those behind them go. */
function say(question: string, kept: number): void {
  if (question.trim() === "") return;
  stop();
  const before = turns.value.slice(0, kept);
  const told: Message[] = system.value.trim() === "" ? [] : [{ role: "system", content: system.value }];
  const messages: Message[] = before.flatMap((turn) => [
    { role: "user" as const, content: turn.question },
    { role: "assistant" as const, content: turn.answer.content() },
  ]);
  const answer = ask({
    model: model.value,
    messages: [...told, ...messages, { role: "user", content: question }],
    strategy: strategy.value,
    temperature: temperature.value,
    seed: seed.value,
    maxTokens: maxTokens.value,
  });
  batch(() => {
    turns.value = [...before, { question, answer }];
    announcement.value = "Answering.";
  });
  void answer.ended.then(() => {
    const how = { stopped: "Stopped", failed: `Failed: ${answer.error()}` } as Record<string, string>;
    const state = how[answer.status.value] ?? "The answer is complete";
    announcement.value = `${state}. ${count(answer.ids().length, "token")}. ${answer.content()}`;
  });
}

const running = () => turns.value.find(({ answer }) => isRunning(answer))?.answer;
const stop = () => running()?.stop();

export function Chat() {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key === "Escape" && running()) stop();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  useFollowing();
  const empty = turns.value.length === 0;
  return (
    <div class="chat">
      <section class="conversation" aria-label="Conversation">
        {empty ? (
          <div class="welcome">
            <h1>Several tokens a pass. The same text.</h1>
            <p>
              Ask something and watch: each token wears the colour of whoever guessed it before the model
              agreed. Plain text is the model's own.
            </p>
            <ul class="samples" aria-label="Things to ask">
              {samples.map(({ title, prompt }) => (
                <li key={title}>
                  <button type="button" onClick={() => say(prompt, 0)}>
                    <strong>{title}</strong>
                    <span>{prompt}</span>
                  </button>
                </li>
              ))}
            </ul>
          </div>
        ) : (
          <>
            <h1 class="hidden">Chat</h1>
            {turns.value.map((turn, index) => (
              <TurnView key={index} turn={turn} index={index} />
            ))}
          </>
        )}
      </section>
      <aside class="settings" aria-label="Settings">
        <details open={innerWidth > 900}>
          <summary>Settings</summary>
          <ModelSelect />
          <StrategySelect label="Strategy" value={strategy} />
          <SystemField />
          <SamplingFields />
          <MarkedSwitch />
          <FormattedSwitch />
          {!empty && (
            <button
              type="button"
              onClick={() => {
                stop();
                turns.value = [];
              }}
            >
              New conversation
            </button>
          )}
        </details>
      </aside>
      <Composer />
      <PassInspector />
    </div>
  );
}

/** Keeps the end of the answer in sight for those who are at the end. */
function useFollowing(): void {
  useEffect(
    () =>
      effect(() => {
        const answer = running();
        if (!answer) return;
        answer.frame.value;
        const root = document.documentElement;
        if (root.scrollHeight - root.scrollTop - innerHeight < 180)
          requestAnimationFrame(() => root.scrollTo({ top: root.scrollHeight }));
      }),
    [],
  );
}

function TurnView({ turn: { question, answer }, index }: { turn: Turn; index: number }) {
  const editing = useSignal(false);
  const edited = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    if (editing.value) edited.current?.focus();
  }, [editing.value]);
  const finish = () => {
    const text = edited.current!.value;
    editing.value = false;
    say(text, index);
  };
  return (
    <article class="turn" aria-label={`Turn ${index + 1}`}>
      <div class="question">
        {editing.value ? (
          <>
            <textarea
              ref={edited}
              aria-label="Edit your message"
              defaultValue={question}
              onKeyDown={(event) => {
                if (sends(event)) {
                  event.preventDefault();
                  finish();
                }
                if (event.key === "Escape") editing.value = false;
              }}
            />
            <div class="row end">
              <button
                type="button"
                onClick={() => {
                  editing.value = false;
                }}
              >
                Cancel
              </button>
              <button type="button" class="primary" onClick={finish}>
                Ask again
              </button>
            </div>
          </>
        ) : (
          <>
            <p class="bubble">{question}</p>
            <button
              type="button"
              class="quiet small"
              aria-label={`Edit message ${index + 1}`}
              onClick={() => {
                editing.value = true;
              }}
            >
              Edit
            </button>
          </>
        )}
      </div>
      <div class="answer">
        {answer.status.value === "waiting" && <p class="dim pulse">Reading the prompt …</p>}
        <AnswerText answer={answer} label={`Answer ${index + 1}`} formatted={formatted.value} />
        {answer.status.value === "failed" && (
          <p class="problem" role="alert">
            {answer.error()}
          </p>
        )}
        <Legend answer={answer} />
        <PassBars answer={answer} />
        <div class="row spread">
          <Figures answer={answer} />
          {!isRunning(answer) && (
            <div class="row">
              <EndNote answer={answer} />
              <button
                type="button"
                class="quiet small"
                aria-label={`Retry answer ${index + 1}`}
                onClick={() => say(question, index)}
              >
                Retry
              </button>
            </div>
          )}
        </div>
      </div>
    </article>
  );
}

function EndNote({ answer }: { answer: Answer }) {
  const status = answer.status.value;
  const seed = answer.seed();
  const text =
    status === "stopped"
      ? "stopped"
      : status === "length"
        ? `cut at ${figure(answer.ids().length)} tokens`
        : "";
  return (
    <span class="dim small">
      {text}
      {text !== "" && seed !== undefined && " · "}
      {seed !== undefined && `${answer.request.strategy} · seed ${seed}`}
    </span>
  );
}

/** Enter sends, Shift+Enter is a new line; within an input method Enter chooses a word. */
const sends = (event: KeyboardEvent) => event.key === "Enter" && !event.shiftKey && !event.isComposing;

function Composer() {
  const busy = running() !== undefined;
  const send = () => {
    if (draft.value.trim() === "") return;
    const question = draft.value;
    draft.value = "";
    say(question, turns.value.length);
    requestAnimationFrame(() =>
      document.documentElement.scrollTo({ top: document.documentElement.scrollHeight }),
    );
  };
  return (
    <form
      class="composer"
      aria-label="Your message"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        rows={1}
        placeholder="Ask something"
        aria-label="Message"
        aria-describedby="composer-keys"
        value={draft.value}
        onInput={(event) => {
          draft.value = event.currentTarget.value;
        }}
        onKeyDown={(event) => {
          if (!sends(event)) return;
          event.preventDefault();
          if (!busy) send();
        }}
      />
      {busy ? (
        <button type="button" class="primary" onClick={stop}>
          Stop
        </button>
      ) : (
        <button type="submit" class="primary" disabled={draft.value.trim() === ""}>
          Send
        </button>
      )}
      <small id="composer-keys">Enter sends · Shift+Enter new line · Escape stops</small>
    </form>
  );
}
