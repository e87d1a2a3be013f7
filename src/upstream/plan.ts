// Skeleton-of-thought (Ning et al. 2023, arXiv:2307.15337): the model writes a list of points, then all points at a time.
import { OutriderError } from "../errors.js";
import { messageText } from "../text/chat-template.js";
import { messagesOf, type UpstreamPrompt } from "./chat.js";

/** What was asked last, and what was said before. */
function questionOf(prompt: UpstreamPrompt) {
  const messages = messagesOf(prompt);
  const last = messages.at(-1);
  if (last?.role === "user") return { before: messages.slice(0, -1), question: messageText(last) };
  throw new OutriderError("ERR_BAD_REQUEST", "plan: the last message must be the user's question", {
    param: "messages",
  });
}

export function skeletonPrompt(prompt: UpstreamPrompt, mostPoints: number): UpstreamPrompt {
  const { before, question } = questionOf(prompt);
  const content = `You are an organizer. Give only the skeleton of an answer to the question, not the answer itself: \
a numbered list of at most ${mostPoints} points (1., 2., 3., ...), each of three to five words. Write nothing else.

Question:
${question}

Skeleton, beginning with "1. ":`;
  return [...before, { role: "user", content }];
}

export function pointPrompt(
  prompt: UpstreamPrompt,
  points: readonly string[],
  index: number,
): UpstreamPrompt {
  const { before, question } = questionOf(prompt);
  const content = `You write one point, and only this one, of an answer to the question.

Question:
${question}

Skeleton of the answer:
${points.map((point, i) => `${i + 1}. ${point}`).join("\n")}

Write point ${index + 1}, "${points[index]}", in one or two sentences. Do not repeat its title, and do not go on to other \
points.`;
  return [...before, { role: "user", content }];
}

/** The points of a numbered list, at most so many; none where the text has no such list. */
export function pointsOf(skeleton: string, mostPoints: number): string[] {
  const points: string[] = [];
  for (const line of skeleton.split("\n")) {
    const point = /^\s*(?:\*\*)?(\d{1,3})[.)]\s*(\S.*)$/.exec(line);
    // A number out of turn begins a second list, or is none.
    if (point && Number(point[1]) === points.length + 1 && points.length < mostPoints)
      points.push(point[2]!.replaceAll("**", "").trim());
  }
  return points;
}

export function joined(points: readonly { readonly point: string; readonly text: string }[]): string {
  return points.map(({ point, text }, i) => `${i + 1}. ${point}\n${text.trim()}`).join("\n\n");
}
