import { signal, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { apiKey, keyWanted, setApiKey } from "./api.js";
import { Chat } from "./chat.js";
import { Machine } from "./machine.js";
import { Race } from "./race.js";
import { announcement, infoError, refreshInfo, setTheme, type Theme, theme } from "./state.js";

const pages = { chat: Chat, race: Race, machine: Machine };
type PageName = keyof typeof pages;
const titles: Record<PageName, string> = { chat: "Chat", race: "Race", machine: "Machine" };

const named = (): PageName => {
  const name = location.hash.replace(/^#\/?/, "");
  return name in pages ? (name as PageName) : "chat";
};
const page = signal<PageName>(named());
addEventListener("hashchange", () => {
  page.value = named();
});

const nextTheme: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };
const themeIcon: Record<Theme, string> = { auto: "◐", light: "☀", dark: "☾" };

export function App() {
  const Page = pages[page.value];
  useEffect(() => void refreshInfo(), []);
  useSignalEffect(() => {
    document.title = `${titles[page.value]} · Outrider`;
  });
  return (
    <>
      <button type="button" class="skip" onClick={() => document.getElementById("content")?.focus()}>
        Skip to the content
      </button>
      <header class="top">
        <span class="wordmark">
          <img src="/favicon.svg" alt="" width="24" height="24" />
          Outrider
        </span>
        <nav aria-label="Pages">
          {Object.entries(titles).map(([name, title]) => (
            <a key={name} href={`#/${name}`} aria-current={page.value === name ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <div class="tools">
          <button
            type="button"
            class="quiet"
            aria-label="API key"
            title="API key"
            onClick={() => {
              keyWanted.value = true;
            }}
          >
            <svg viewBox="0 0 20 20" width="17" height="17" aria-hidden="true">
              <circle cx="6.5" cy="13.5" r="3.5" />
              <path d="M9 11 16.5 3.5M13 7l2.5 2.5" />
            </svg>
          </button>
          <button
            type="button"
            class="quiet"
            aria-label={`Theme: ${theme.value}`}
            title={`Theme: ${theme.value}`}
            onClick={() => setTheme(nextTheme[theme.value])}
          >
            <span aria-hidden="true">{themeIcon[theme.value]}</span>
          </button>
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        {infoError.value !== "" && (
          <p class="problem" role="alert">
            {infoError.value}{" "}
            <button type="button" onClick={() => void refreshInfo()}>
              Try again
            </button>
          </p>
        )}
        <Page />
      </main>
      <div class="hidden" role="status" aria-live="polite">
        {announcement.value}
      </div>
      <KeyDialog />
    </>
  );
}

function KeyDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  useSignalEffect(() => {
    if (keyWanted.value && !dialog.current?.open) dialog.current?.showModal();
    if (!keyWanted.value) dialog.current?.close();
  });
  return (
    <dialog
      ref={dialog}
      aria-labelledby="key-title"
      onClose={() => {
        keyWanted.value = false;
      }}
    >
      <form
        method="dialog"
        onSubmit={(event) => {
          event.preventDefault();
          setApiKey(String(new FormData(event.currentTarget).get("key") ?? "").trim());
          void refreshInfo();
        }}
      >
        <h2 id="key-title">API key</h2>
        <p>
          Needed where the server was started with one. It is kept in this tab alone and forgotten with it.
        </p>
        <label>
          Key
          <input name="key" type="password" autocomplete="off" defaultValue={apiKey.value} />
        </label>
        <div class="row end">
          <button
            type="button"
            onClick={() => {
              keyWanted.value = false;
            }}
          >
            Cancel
          </button>
          <button type="submit" class="primary">
            Use it
          </button>
        </div>
      </form>
    </dialog>
  );
}
