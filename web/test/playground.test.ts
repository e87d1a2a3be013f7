// The playground in Chromium, against the built server as a process. OUTRIDER_CHROMIUM names the browser.
import { existsSync } from "node:fs";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type ServerProcess, startServer } from "../../test/support/server.js";

const executablePath = process.env.OUTRIDER_CHROMIUM!;
const args = [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
];
const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };

const patient = { timeout: 30_000 };

let server: ServerProcess;
let browser: Browser;
let problems: string[] = [];

beforeAll(async () => {
  if (!existsSync(executablePath))
    throw new Error(
      `OUTRIDER_CHROMIUM names ${executablePath}, which is not there: apt-get install chromium`,
    );
  [server, browser] = await Promise.all([startServer(), chromium.launch({ executablePath, args })]);
});
afterAll(async () => {
  await browser?.close();
  await server?.[Symbol.asyncDispose]();
});
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
  // Errors of scripts, what the content security policy refused, and requests to elsewhere.
  expect(problems.splice(0)).toEqual([]);
});

async function open(hash = "#/chat", options: BrowserContextOptions = {}, url = server.url): Promise<Page> {
  problems = [];
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", ({ message }) => problems.push(message));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().includes("401")) problems.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url)) problems.push(request.url());
  });
  await page.goto(`${url}/${hash}`);
  return page;
}

const message = (page: Page) => page.getByRole("textbox", { name: "Message", exact: true });
const answer = (page: Page, n = 1) => page.getByRole("group", { name: `Answer ${n}.` });
const retry = (page: Page, n = 1) => page.getByRole("button", { name: `Retry answer ${n}` });

async function set(page: Page, label: string, value: string): Promise<void> {
  const field = page.getByRole("spinbutton", { name: label });
  await field.fill(value);
  await field.blur();
}

/** Answers letter for letter, not as Markdown. */
const plain = (page: Page) => page.getByRole("checkbox", { name: "Format Markdown" }).uncheck();

async function say(page: Page, text: string): Promise<void> {
  await message(page).fill(text);
  await message(page).press("Enter");
}

const end = "<|im_end|>";

/** The server's answer to every chat, as if the model had said these tokens, one or more a pass; `end` is not text. */
async function answerWith(
  page: Page,
  passes: readonly (readonly (string | Buffer)[])[],
  changed = (id: number) => id,
) {
  await page.route("**/v1/chat/completions", async (route) => {
    const { strategy } = route.request().postDataJSON().outrider as { strategy: string };
    let next = 100;
    const events = passes.map((texts) => {
      const ids = texts.map(() => (strategy === "none" ? next++ : changed(next++)));
      return {
        choices: [
          {
            index: 0,
            delta: { content: texts.filter((text) => text !== end).join("") },
            logprobs: { content: texts.map((text) => ({ logprob: -0.5, bytes: [...Buffer.from(text)] })) },
            finish_reason: null,
          },
        ],
        outrider: {
          pass: { tokens: ids, drafted: [], parents: [], sources: [], accepted: 0, ms: 3 },
        },
      };
    });
    const last = { choices: [{ index: 0, delta: {}, logprobs: null, finish_reason: "stop" }] };
    await route.fulfill({
      contentType: "text/event-stream",
      body: [...events.map((event) => JSON.stringify(event)), JSON.stringify(last), "[DONE]"]
        .map((data) => `data: ${data}\n\n`)
        .join(""),
    });
  });
}

describe("chat", () => {
  test("an answer streams, is what the API gives, and its tokens add up", async () => {
    const page = await open();
    await plain(page);
    await set(page, "Temperature", "0");
    await set(page, "At most", "60");
    const question = "Name three colours, each with a thing of that colour.";
    await say(page, question);
    await retry(page).waitFor();
    const reply = await server.post("/v1/chat/completions", {
      messages: [{ role: "user", content: question }],
      temperature: 0,
      max_tokens: 60,
    });
    const { choices, usage } = (await reply.json()) as {
      choices: { message: { content: string } }[];
      usage: { completion_tokens: number };
    };
    const shown = await answer(page).evaluate((element) =>
      [...element.querySelectorAll(".by")].map((token) => token.textContent).join(""),
    );
    expect(shown).toBe(choices[0]!.message.content);
    const figures = await page.locator(".figures").innerText();
    expect(figures.replaceAll(/\s+/g, " ")).toMatch(new RegExp(`(^|\\D)${usage.completion_tokens}\\b`));
    expect(figures).toContain("tokens/pass");
    await expect
      .poll(() => page.getByRole("status").innerText(), patient)
      .toContain("The answer is complete");
  });

  test("drafted tokens are marked by who drafted them, rejected ones are shown on hover and focus", async () => {
    const page = await open();
    await set(page, "Temperature", "0");
    // Drafts of a set length: how many pay otherwise depends on the machine.
    await page.route("**/v1/chat/completions", async (route) => {
      const body = route.request().postDataJSON();
      await route.continue({ postData: { ...body, outrider: { ...body.outrider, draft_length: 4 } } });
    });
    await say(page, "Write the word apple forty times, separated by commas.");
    await retry(page).waitFor();
    const marked = answer(page).locator(".by:not(.by-model)").first();
    expect(await marked.evaluate((token) => getComputedStyle(token).textDecorationLine)).toBe("underline");
    await expect
      .poll(() => page.getByRole("list", { name: "Where tokens came from" }).innerText(), patient)
      .toMatch(/\d+ %/);
    const missed = answer(page).locator(".missed").first();
    await missed.hover();
    const inspector = page.getByRole("tooltip");
    expect(await inspector.locator("del").first().innerText()).not.toBe("");
    await page.mouse.move(5, 5);
    await inspector.waitFor({ state: "detached" });
    await missed.focus();
    await inspector.waitFor();
    expect(await inspector.innerText()).toContain("rejected");
  });

  test("stop, and Escape, end an answer at once; the conversation goes on", async () => {
    const page = await open();
    await set(page, "At most", "4000");
    // The model must not be done before it is stopped.
    await page.route("**/v1/chat/completions", async (route) => {
      await route.continue({ postData: { ...route.request().postDataJSON(), ignore_eos: true } });
    });
    for (const [turn, stop] of [
      [1, () => page.getByRole("button", { name: "Stop" }).click()],
      [2, () => page.keyboard.press("Escape")],
    ] as const) {
      // A stream that does not end by itself: the connection is held open behind its first pass.
      await say(page, "Write a very long story about a river, with many chapters and every detail.");
      await answer(page, turn).locator(".pass").nth(3).waitFor();
      await stop();
      await retry(page, turn).waitFor();
      await page
        .getByText(/^stopped/)
        .nth(turn - 1)
        .waitFor();
    }
    await expect
      .poll(
        async () => ((await (await server.get("/outrider/info")).json()) as { load: unknown }).load,
        patient,
      )
      .toEqual({ running: 0, waiting: 0 });
  });

  test("retry gives another answer, with the same seed the same", async () => {
    const page = await open();
    await set(page, "Temperature", "1");
    await set(page, "At most", "30");
    const text = () => answer(page).innerText();
    await say(page, "Invent a name for a village and describe it.");
    await retry(page).waitFor();
    const first = await text();
    await retry(page).click();
    await expect
      .poll(async () => (await retry(page).isVisible()) && (await text()) !== first, patient)
      .toBe(true);
    await set(page, "Seed", "7");
    const seeded: string[] = [];
    for (let i = 0; i < 2; i++) {
      const done = page.waitForResponse("**/v1/chat/completions");
      await retry(page).click();
      await done;
      await retry(page).waitFor();
      seeded.push(await text());
    }
    expect(seeded[1]).toBe(seeded[0]);
  });

  test("an edited message is asked again, and what came after it goes", async () => {
    const page = await open();
    await set(page, "At most", "8");
    await say(page, "Say one.");
    await retry(page).waitFor();
    await say(page, "Say two.");
    await retry(page, 2).waitFor();
    await page.getByRole("button", { name: "Edit message 1" }).click();
    const edit = page.getByRole("textbox", { name: "Edit your message" });
    await edit.fill("Say three.");
    const asked = page.waitForRequest("**/v1/chat/completions");
    await edit.press("Enter");
    expect((await asked).postDataJSON().messages).toEqual([{ role: "user", content: "Say three." }]);
    await retry(page).waitFor();
    expect(await page.getByRole("article").count()).toBe(1);
  });

  test("what models and users write is text, never markup", async () => {
    const page = await open();
    const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
    await answerWith(page, [["<b>", "bold</b>"], [evil]]);
    await say(page, evil);
    await retry(page).waitFor();
    for (const view of [() => Promise.resolve(), () => plain(page)]) {
      await view();
      expect(await answer(page).innerText()).toBe(`<b>bold</b>${evil}`);
      expect(await page.locator(".bubble").innerText()).toBe(evil);
      expect(await page.locator("main :is(b, img, script)").count()).toBe(0);
    }
    expect(await page.title()).toBe("Chat · Outrider");
  });

  test("a character of two tokens is whole, the token that ends an answer is a mark", async () => {
    const page = await open();
    await plain(page);
    const bytes = Buffer.from("😀");
    await answerWith(page, [["So "], [bytes.subarray(0, 2)], [bytes.subarray(2), "!"], [end]]);
    await say(page, "Smile.");
    await retry(page).waitFor();
    const tokens = await answer(page).locator(".by").allTextContents();
    expect(tokens).toEqual(["So ", "", "😀", "!"]);
    expect(await answer(page).getByTitle("The model ended its answer here").count()).toBe(1);
  });

  test("Markdown is formatted, and every token keeps its mark and its pass", async () => {
    const page = await open();
    const passes = [
      ["# Moons", " of", " *Mars*\n\nThere"],
      [" are **t", "wo**, see [", "here](https://example.org/moons)", ":\n\n"],
      ["1. Phobos\n", "2. `Deimos`\n\n"],
      ["| moon | km |\n|---|---|\n", "| Phobos | 22 |\n\n"],
      ["```js\nlet ", "moons = 2; // **not bold**\n```\n\n"],
      ["**"],
      ["![x](https://example.org/x.png) [bad](javascript:alert(1))", "**"],
      [end],
    ];
    await answerWith(page, passes);
    await say(page, "Moons?");
    await retry(page).waitFor();
    const box = answer(page);
    const text = (selector: string) => box.locator(selector).allInnerTexts();
    expect(await text("h3")).toEqual(["Moons of Mars"]);
    expect(await text("em")).toEqual(["Mars", "bad"]);
    expect(await text("strong")).toEqual(["two", "x bad"]);
    expect(await text("ol > li")).toEqual(["Phobos", "Deimos"]);
    expect(await text("td")).toEqual(["Phobos", "22"]);
    expect(await text("pre")).toEqual(["let moons = 2; // **not bold**"]);
    const links = await box
      .locator("a")
      .evaluateAll((all) =>
        all.map((a) => [a.getAttribute("href"), a.getAttribute("rel"), a.getAttribute("target")].join(" ")),
      );
    expect(links).toEqual([
      "https://example.org/moons noopener noreferrer nofollow _blank",
      "https://example.org/x.png noopener noreferrer nofollow _blank",
    ]);
    expect(await box.locator("img").count()).toBe(0);
    // A token that markup cuts is marked on both sides of it.
    expect(await box.locator("[data-pass='1'] .by").allInnerTexts()).toEqual([
      ...[" are ", "t", "wo", ", see ", "here", ":"],
    ]);
    expect(await box.locator("[data-pass='0'] .by").allInnerTexts()).toEqual([
      ...["Moons", " of", " ", "Mars", "There"],
    ]);
    // A pass has one beginning, in whichever block.
    for (const pass of [0, 1, 2, 3, 4, 6])
      expect(await box.locator(`[data-pass='${pass}']:not(.more)`).count()).toBe(1);
    // The pass that wrote markup alone is not there; the others are walked through.
    await box.focus();
    const walked: string[] = [];
    for (let i = 0; i < 8; i++) {
      await page.keyboard.press("ArrowRight");
      walked.push(/^Pass \d+/.exec(await page.getByRole("tooltip").innerText())![0]);
    }
    expect(walked.join()).toBe("Pass 1,Pass 2,Pass 3,Pass 4,Pass 5,Pass 7,Pass 7,Pass 7");
    // Letter for letter it is what the model said.
    await plain(page);
    expect(await box.locator(".by").allTextContents()).toEqual(passes.flat().filter((t) => t !== end));
  });

  test("a system prompt goes before every conversation; none where it is empty", async () => {
    const page = await open();
    await answerWith(page, [["Arr."]]);
    const field = page.getByRole("textbox", { name: "System prompt" });
    const asked = async (text: string) => {
      const request = page.waitForRequest("**/v1/chat/completions");
      await say(page, text);
      return (await request).postDataJSON().messages;
    };
    await field.fill("You are a pirate.");
    const system = { role: "system", content: "You are a pirate." };
    expect(await asked("Hi")).toEqual([system, { role: "user", content: "Hi" }]);
    await retry(page).waitFor();
    expect(await asked("Again")).toEqual([
      system,
      { role: "user", content: "Hi" },
      { role: "assistant", content: "Arr." },
      { role: "user", content: "Again" },
    ]);
    await retry(page, 2).waitFor();
    await field.fill("  ");
    await page.getByRole("button", { name: "New conversation" }).click();
    expect(await asked("Hi")).toEqual([{ role: "user", content: "Hi" }]);
  });

  test("the server's refusals are shown", async () => {
    const page = await open();
    await page.getByRole("combobox", { name: "Strategy" }).selectOption("draft-model");
    await say(page, "Hello");
    expect(await page.getByRole("alert").innerText()).toMatch(/draft/);
    await retry(page).waitFor();
    expect(problems.splice(0)).toEqual([expect.stringContaining("400")]); // the browser's own note
  });
});

describe("race", () => {
  test("two strategies give the same ids, sampled too, and it is shown", async () => {
    const page = await open("#/race");
    await page.getByText("Settings").click();
    await set(page, "Temperature", "0.8");
    await set(page, "At most", "80");
    for (const manner of ["Side by side, sharing passes", "One after the other"]) {
      await page.getByRole("radio", { name: manner }).check();
      await page.getByRole("button", { name: "Start" }).click();
      const result = page.getByRole("region", { name: "Result" });
      await result.waitFor();
      const [, ids, others] = /^Identical: (\d+) token ids? of (\d+) agree\./.exec(await result.innerText())!;
      expect(ids).toBe(others);
      expect(Number(ids)).toBeGreaterThan(1);
      const hashes = await result.locator("code").allInnerTexts();
      expect(hashes[0]).toMatch(/^[0-9a-f]{16}$/);
      expect(hashes[1]).toBe(hashes[0]);
      expect(await result.innerText()).toMatch(/\d\.\d\d\s*×/);
      const texts = await page.locator(".answer-text").allInnerTexts();
      expect(texts[1]).toBe(texts[0]);
    }
  });

  test("a difference of one id in equal texts is not called identical", async () => {
    const page = await open("#/race");
    await answerWith(page, [["one "], ["two "], ["three"]], (id) => (id === 101 ? 999 : id));
    await page.getByRole("button", { name: "Start" }).click();
    const result = page.getByRole("region", { name: "Result" });
    expect(await result.innerText()).toContain("Different from token 2 on");
    const hashes = await result.locator("code").allInnerTexts();
    expect(hashes[0]).not.toBe(hashes[1]);
  });
});

describe("machine", () => {
  test("cost curve and load are shown and looked at again", async () => {
    await (
      await server.post("/v1/completions", { prompt: "one two three one two three", max_tokens: 40 })
    ).arrayBuffer();
    const page = await open("#/machine");
    await page.getByRole("img", { name: /Milliseconds of a pass over 1 to \d+ tokens/ }).waitFor();
    expect(await page.locator(".chart canvas").first().isVisible()).toBe(true);
    await page.getByText("Figures").click();
    expect(await page.getByRole("row").count()).toBeGreaterThan(4);
    await page.waitForResponse("**/outrider/info");
    await page.waitForResponse("**/outrider/info");
    await page.getByRole("img", { name: /Requests over time/ }).waitFor();
  });
});

describe("for everyone", () => {
  test("by keyboard alone: write, send, walk through the passes, ask again", async () => {
    const page = await open();
    await page.getByRole("button", { name: /Planets/ }).waitFor();
    const focused = () =>
      page.evaluate(
        () => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent,
      );
    const order: string[] = [];
    for (let i = 0; i < 30 && order.at(-1) !== "Message"; i++) {
      await page.keyboard.press("Tab");
      order.push((await focused()) ?? "");
    }
    expect(order[0]).toContain("Skip");
    expect(order.indexOf("Race")).toBeLessThan(order.findIndex((name) => name.startsWith("Planets")));
    expect(order.at(-1)).toBe("Message");
    await page.keyboard.type("Name two");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("fruits.");
    const asked = page.waitForRequest("**/v1/chat/completions");
    await page.keyboard.press("Enter");
    expect((await asked).postDataJSON().messages[0].content).toBe("Name two\nfruits.");
    await retry(page).waitFor();
    for (let i = 0; i < 30 && !(await focused())?.startsWith("Answer 1"); i++)
      await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("ArrowRight");
    const pass = async () => Number(/^Pass (\d+)/.exec(await page.getByRole("tooltip").innerText())![1]);
    const first = await pass();
    await page.keyboard.press("ArrowRight");
    expect(await pass()).toBeGreaterThan(first);
    await page.keyboard.press("Home");
    expect(await pass()).toBe(first);
    for (let i = 0; i < 9 && (await focused()) !== "Retry answer 1"; i++) await page.keyboard.press("Tab");
    const again = page.waitForRequest("**/v1/chat/completions");
    await page.keyboard.press("Enter");
    await again;
    await retry(page).waitFor();
  });

  test.each(["chat", "race", "machine"])("%s: 360 pixels wide, nothing scrolls sideways", async (name) => {
    const page = await open(`#/${name}`, phone);
    await answerWith(page, [["word ".repeat(60)], ["x".repeat(400)], ["\nfn ".repeat(4)]]);
    const width = () => page.evaluate(() => document.documentElement.scrollWidth);
    await page.locator("h1").waitFor({ state: "attached" });
    expect(await width()).toBe(360);
    if (name === "chat") {
      await page.getByText("Settings").click();
      expect(await width()).toBe(360);
      await say(page, `${"y".repeat(300)} ${"z ".repeat(200)}`);
      await retry(page).waitFor();
    }
    if (name === "race") {
      await page.getByRole("button", { name: "Start" }).click();
      await page.getByRole("region", { name: "Result" }).waitFor();
    }
    if (name === "machine") await page.locator(".tile").first().waitFor();
    expect(await width()).toBe(360);
  });

  test("light and dark: by the system, and by the switch, which is remembered", async () => {
    const page = await open("#/chat", { colorScheme: "dark" });
    const lightness = () =>
      page.evaluate(() => {
        const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g)!.map(Number);
        return (r! + g! + b!) / 3;
      });
    expect(await lightness()).toBeLessThan(60);
    await page.getByRole("button", { name: "Theme: auto" }).click();
    expect(await lightness()).toBeGreaterThan(200);
    await page.reload();
    await page.getByRole("button", { name: "Theme: light" }).waitFor();
    expect(await lightness()).toBeGreaterThan(200);
    await page.getByRole("button", { name: "Theme: light" }).click();
    expect(await lightness()).toBeLessThan(60);
  });

  test.each(["light", "dark"] as const)("%s: text stands out from what is behind it", async (colorScheme) => {
    const page = await open("#/chat", { colorScheme });
    const low = await page.evaluate(() => {
      const probe = document.body.appendChild(document.createElement("i"));
      const luminance = (property: string) => {
        probe.style.color = `var(${property})`;
        const parts = getComputedStyle(probe)
          .color.match(/[\d.]+/g)!
          .slice(0, 3)
          .map(Number);
        const [r, g, b] = parts.map((part) => {
          const value = part / 255;
          return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
      };
      const contrast = (a: string, b: string) => {
        const [x, y] = [luminance(a), luminance(b)];
        return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
      };
      const grounds = ["--paper", "--raised", "--sunken"];
      const pairs = [
        ...grounds.flatMap((ground) =>
          ["--ink", "--dim", "--accent"].map((text) => [text, ground, 4.5] as const),
        ),
        ["--on-accent", "--accent", 4.5] as const,
        ...["lookup", "ngram", "recycle", "lookahead", "jacobi", "draft-model", "guide", "other", "warn"].map(
          (name) => [`--${name}`, "--paper", 3] as const,
        ),
      ];
      return pairs
        .map(([text, ground, least]) => ({ text, ground, least, is: contrast(text, ground) }))
        .filter(({ least, is }) => is < least);
    });
    expect(low).toEqual([]);
  });

  test.each(["chat", "race", "machine"])(
    "%s: everything has a name, one first heading, landmarks",
    async (name) => {
      const page = await open(`#/${name}`);
      await page.locator("h1").waitFor({ state: "attached" });
      if (name === "chat") {
        await set(page, "At most", "10");
        await say(page, "Hello");
        await retry(page).waitFor();
      }
      const found = await page.evaluate(() => {
        const nameless = [
          ...document.querySelectorAll<HTMLElement>(
            "a, button, input, select, textarea, [role=img], meter, progress",
          ),
        ]
          .filter((element) => {
            const labels = "labels" in element ? [...((element.labels as NodeList | null) ?? [])] : [];
            const own = element.matches("a, button") ? element.textContent : "";
            const names = [
              element.getAttribute("aria-label"),
              own,
              ...labels.map((label) => label.textContent),
            ];
            return !names.some((text) => text?.trim());
          })
          .map(({ outerHTML }) => outerHTML.slice(0, 120));
        const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
        const references = [...document.querySelectorAll("[aria-labelledby], [aria-describedby]")].flatMap(
          (element) =>
            ["aria-labelledby", "aria-describedby"].flatMap(
              (name) => element.getAttribute(name)?.split(" ") ?? [],
            ),
        );
        return {
          nameless,
          doubled: ids.filter((id, i) => ids.indexOf(id) !== i),
          dangling: references.filter((id) => !document.getElementById(id)),
          orderChanged: document.querySelectorAll("[tabindex]:not([tabindex='0'], [tabindex='-1'])").length,
          imagesWithoutAlt: document.querySelectorAll("img:not([alt])").length,
          headings: document.querySelectorAll("h1").length,
          language: document.documentElement.lang,
          landmarks: ["header", "nav", "main"].filter((tag) => document.querySelector(tag) === null),
          status: document.querySelectorAll("[role=status][aria-live=polite]").length,
        };
      });
      expect(found).toEqual({
        ...{ nameless: [], doubled: [], dangling: [], orderChanged: 0, imagesWithoutAlt: 0, headings: 1 },
        ...{ language: "en", landmarks: [], status: 1 },
      });
    },
  );

  test("an API key is asked for where the server wants one, and kept in the tab alone", async () => {
    await using guarded = await startServer([], { OUTRIDER_API_KEY: "open-sesame" });
    const page = await open("#/chat", {}, guarded.url);
    await page.getByLabel("Key", { exact: true }).fill("open-sesame");
    await page.getByRole("button", { name: "Use it" }).click();
    await expect
      .poll(() => page.getByRole("combobox", { name: "Strategy" }).locator("option").count(), patient)
      .toBeGreaterThan(3);
    await set(page, "At most", "5");
    await say(page, "Hello");
    await retry(page).waitFor();
    expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain("sesame");
  });
});
