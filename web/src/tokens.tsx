import { signal, useComputed, useSignal } from "@preact/signals";
import { Component } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { type Answer, isRunning } from "./answer.js";
import { tokenText } from "./api.js";
import { count, figure, percent } from "./format.js";
import { FormattedPasses } from "./formatted.js";
import { countBySource, own, type Pass, type Rejected } from "./passes.js";
import { marked } from "./state.js";

/** Drafters that have a colour and a line of their own in the style sheet. */
const known = [own, "lookup", "ngram", "recycle", "lookahead", "jacobi", "draft-model", "guide"];
export const sourceClass = (source: string) => `by by-${known.includes(source) ? source : "other"}`;
const sourceName = (source: string) => (source === own ? "the model itself" : source);

/** The pass under the pointer or the keyboard's focus. */
interface Inspected {
  readonly pass: Pass;
  readonly model: string | undefined;
  readonly place: DOMRect;
}
const inspected = signal<Inspected | undefined>(undefined);
const inspectorId = "pass-inspector";

/** Passes never change: only new ones are drawn. */
class PassText extends Component<{ pass: Pass }> {
  override shouldComponentUpdate(next: { pass: Pass }) {
    return next.pass !== this.props.pass;
  }
  render({ pass }: { pass: Pass }) {
    const shown = pass.tokens.filter(({ end }) => !end);
    const ends = pass.tokens.length > shown.length;
    return (
      <span class={pass.rejected.length > 0 ? "pass missed" : "pass"} data-pass={pass.index} tabIndex={-1}>
        {shown.map(({ text, source }, i) => (
          <span key={i} class={sourceClass(source)}>
            {text}
          </span>
        ))}
        {ends && (
          <span class="end-mark" title="The model ended its answer here">
            <span aria-hidden="true">■</span>
          </span>
        )}
      </span>
    );
  }
}

/** The answer's text, as it is or `formatted` as Markdown; arrow keys walk through its passes. */
export function AnswerText(props: { answer: Answer; label: string; formatted?: boolean }) {
  const { answer, label, formatted = false } = props;
  const box = useRef<HTMLDivElement>(null);
  answer.frame.value;

  const passAt = (target: EventTarget | null) => {
    const element = (target as Element | null)?.closest<HTMLElement>("[data-pass]");
    return element ? { element, pass: answer.passes[Number(element.dataset.pass)]! } : undefined;
  };
  const inspect = (event: MouseEvent | FocusEvent) => {
    const at = passAt(event.target);
    if (!at || at.pass === inspected.value?.pass) return;
    const point = event instanceof MouseEvent ? { x: event.clientX, y: event.clientY } : undefined;
    const rects = [...at.element.getClientRects()];
    const under = rects.find((r) => point && point.y >= r.top && point.y <= r.bottom) ?? rects[0];
    if (!under) return;
    leave();
    at.element.setAttribute("aria-describedby", inspectorId);
    inspected.value = { pass: at.pass, model: answer.request.model, place: under };
  };
  const leave = () => {
    for (const told of box.current?.querySelectorAll("[aria-describedby]") ?? [])
      told.removeAttribute("aria-describedby");
    inspected.value = undefined;
  };
  const walk = (event: KeyboardEvent) => {
    // Of a pass that only wrote markup nothing is shown where the text is formatted.
    const all = [...box.current!.querySelectorAll<HTMLElement>("[data-pass]")];
    const shown = all.filter(({ dataset }, i) => dataset.pass !== all[i - 1]?.dataset.pass);
    const at = shown.findIndex(({ dataset }) => dataset.pass === String(passAt(event.target)?.pass.index));
    const last = shown.length - 1;
    const next: Record<string, number> = {
      ArrowRight: Math.min(at + 1, last),
      ArrowLeft: at < 0 ? last : Math.max(at - 1, 0),
      Home: 0,
      End: last,
    };
    const to = next[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    shown[to]!.focus();
  };
  useEffect(() => leave, []);

  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for forms
    <div
      ref={box}
      class={["answer-text", marked.value && "marked", formatted && "formatted"].filter(Boolean).join(" ")}
      role="group"
      aria-label={`${label}. Arrow keys walk through its passes.`}
      aria-busy={isRunning(answer)}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys act here
      tabIndex={0}
      onPointerMove={inspect}
      onPointerLeave={leave}
      onFocusCapture={inspect}
      onBlurCapture={leave}
      onKeyDown={walk}
    >
      {formatted ? (
        <FormattedPasses passes={answer.passes} />
      ) : (
        answer.passes.map((pass) => <PassText key={pass.index} pass={pass} />)
      )}
      {isRunning(answer) && <span class="caret" aria-hidden="true" />}
    </div>
  );
}

/** What the pass under the pointer or focus did. One for the whole page. */
export function PassInspector() {
  const at = inspected.value;
  if (!at || !marked.value) return null;
  const { pass, place, model } = at;
  const width = Math.min(352, innerWidth - 24);
  const left = Math.max(12, Math.min(place.left, innerWidth - width - 12));
  const below = place.bottom + 260 < innerHeight || place.top < 280;
  const shown = pass.rejected.slice(0, 6);
  return (
    <div
      id={inspectorId}
      class="inspector"
      role="tooltip"
      style={{
        width: `${width}px`,
        left: `${left}px`,
        ...(below ? { top: `${place.bottom + 8}px` } : { bottom: `${innerHeight - place.top + 8}px` }),
      }}
    >
      <div class="inspector-head">
        <strong>Pass {pass.index + 1}</strong>
        <span>
          {count(pass.tokens.length, "token")} · {figure(pass.ms)} ms
        </span>
      </div>
      <ul class="inspector-tokens">
        {pass.tokens.map(({ id, text, source, probability }, i) => (
          <li key={i}>
            <code class={sourceClass(source)}>{visible(text) || "…"}</code>
            <span>{sourceName(source)}</span>
            <span class="dim">{probability === undefined ? `id ${id}` : percent(probability)}</span>
          </li>
        ))}
      </ul>
      {pass.drafted > 0 && (
        <p class="dim">
          Accepted {pass.accepted} of {pass.drafted} drafted
          {shown.length > 0 && "; rejected:"}
        </p>
      )}
      {shown.length > 0 && (
        <ul class="inspector-rejected">
          {shown.map((way, i) => (
            <RejectedWay key={`${pass.index} ${i}`} way={way} model={model} />
          ))}
          {pass.rejected.length > shown.length && (
            <li class="dim">and {pass.rejected.length - shown.length} more</li>
          )}
        </ul>
      )}
    </div>
  );
}

const visible = (text: string) => text.replaceAll("\n", "⏎").replaceAll(" ", "·");

function RejectedWay({ way, model }: { way: Rejected; model: string | undefined }) {
  const texts = useSignal<readonly string[]>(way.ids.map(() => "…"));
  useEffect(() => {
    let live = true;
    void Promise.all(way.ids.map((id) => tokenText(model, id)))
      .catch(() => way.ids.map((id) => ` ${id}`))
      .then((all) => {
        if (live) texts.value = all;
      });
    return () => {
      live = false;
    };
  }, [way]);
  return (
    <li>
      <code>
        {texts.value.map((text, i) =>
          i < way.right ? (
            <span key={i} class="dim">
              {visible(text)}
            </span>
          ) : (
            <del key={i}>{visible(text)}</del>
          ),
        )}
      </code>
      <span>{sourceName(way.source)}</span>
    </li>
  );
}

/** Figures of an answer, as they happen. */
export function Figures({ answer }: { answer: Answer }) {
  answer.frame.value;
  answer.status.value;
  const tokens = answer.ids().length;
  const passes = answer.passes.length;
  if (passes === 0) return null;
  return (
    <dl class="figures">
      <Figure value={String(tokens)} unit={tokens === 1 ? "token" : "tokens"} />
      <Figure value={String(passes)} unit={passes === 1 ? "pass" : "passes"} />
      <Figure value={(tokens / passes).toFixed(2)} unit="tokens/pass" />
      <Figure value={figure(answer.speed())} unit="tokens/s" />
    </dl>
  );
}

function Figure({ value, unit }: { value: string; unit: string }) {
  return (
    <div>
      <dt>{unit}</dt>
      <dd>{value}</dd>
    </div>
  );
}

/** Each pass a bar: as tall as it brought tokens, in the colours of who guessed them. */
export function PassBars({ answer, bars = 96 }: { answer: Answer; bars?: number }) {
  answer.frame.value;
  const last = answer.passes.slice(-bars);
  if (last.length === 0 || !marked.value) return null;
  const most = Math.max(4, ...last.map(({ tokens }) => tokens.length));
  const height = 36 / most;
  return (
    <svg
      class="bars"
      viewBox={`0 0 ${bars * 5} 36`}
      preserveAspectRatio="none"
      role="img"
      aria-label={`Tokens of each of the last ${last.length} passes, at most ${most}`}
    >
      {last.flatMap(({ tokens, index }, x) =>
        tokens.map(({ source }, i) => (
          <rect
            key={`${index} ${i}`}
            class={sourceClass(source)}
            x={x * 5}
            y={36 - height * (i + 1)}
            width="4"
            height={height - 0.8}
          />
        )),
      )}
    </svg>
  );
}

/** Who brought how many tokens; the key to colours and lines. */
export function Legend({ answer }: { answer: Answer }) {
  const counts = useComputed(() => {
    answer.frame.value;
    return [...countBySource(answer.passes)].sort((a, b) => b[1] - a[1]);
  });
  if (counts.value.length === 0 || !marked.value) return null;
  const total = answer.ids().length;
  return (
    <ul class="legend" aria-label="Where tokens came from">
      {counts.value.map(([source, n]) => (
        <li key={source}>
          <span class={sourceClass(source)} aria-hidden="true">
            Ab
          </span>{" "}
          {sourceName(source)} <span class="dim">{percent(n / total)}</span>
        </li>
      ))}
    </ul>
  );
}
