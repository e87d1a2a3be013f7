import { computed, signal } from "@preact/signals";
import { fetchInfo, type Info } from "./api.js";

export const info = signal<Info | undefined>(undefined);
export const infoError = signal("");
/** What a screen reader is told. */
export const announcement = signal("");

export const model = signal<string | undefined>(undefined);
export const strategy = signal("auto");
export const temperature = signal(0.5);
/** Undefined: the server draws one. */
export const seed = signal<number | undefined>(undefined);
export const maxTokens = signal(400);
/** What the model is told before every conversation; empty: nothing. */
export const system = signal("");
/** Tokens coloured by how they came, or plain text. */
export const marked = signal(true);
/** Chats as Markdown, or letter for letter. */
export const formatted = signal(true);

export const modelId = computed(() => model.value ?? info.value?.models[0]?.id);

export async function refreshInfo(abort?: AbortSignal): Promise<void> {
  try {
    info.value = await fetchInfo(abort);
    infoError.value = "";
  } catch (error) {
    if (!abort?.aborted) infoError.value = error instanceof Error ? error.message : String(error);
  }
}

export type Theme = "auto" | "light" | "dark";
const themeName = "outrider-theme";
const stored = localStorage.getItem(themeName);
export const theme = signal<Theme>(stored === "light" || stored === "dark" ? stored : "auto");
document.documentElement.dataset.theme = theme.value;

export function setTheme(next: Theme): void {
  theme.value = next;
  document.documentElement.dataset.theme = next;
  localStorage.setItem(themeName, next);
}
