// Random requests: whatever is asked, 200 or a 4xx that names the field; never a 5xx, never a crash.
// OUTRIDER_FUZZ_REQUESTS: how many (npm run fuzz:api asks 10,000).
import { afterAll, beforeAll, expect, test } from "vitest";
import { Seeded } from "./support/seeded.js";
import { type ServerProcess, startServer } from "./support/server.js";
import { tinyChatModel } from "./support/tiny-chat-model.js";
import { sideBySide } from "./support/workload.js";

const requests = Number(process.env.OUTRIDER_FUZZ_REQUESTS ?? 500);
const seed = Number(process.env.OUTRIDER_FUZZ_SEED ?? 1);

let server: ServerProcess;
beforeAll(async () => {
  server = await startServer(["--model", `tiny=${tinyChatModel()}`]);
});
afterAll(() => server?.[Symbol.asyncDispose]());

/** A schema as far as OpenAPI documents hold them. */
interface Schema {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly minimum?: number;
  readonly maximum?: number;
}

const junk: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e308,
  -1e308,
  2 ** 53,
  "",
  "0.7",
  "NaN",
  "\u0000",
  "\ud800",
  "<|im_end|></s>",
  "x".repeat(3000),
  "🦊".repeat(300),
  [],
  [[]],
  {},
  { a: { b: [1, { c: null }] } },
  Array.from({ length: 600 }, (_, i) => i),
];

/** A value that the schema would take, or nearly; shorter texts and smaller numbers more often. */
function draw(schema: Schema, random: Seeded): unknown {
  if (random.chance(0.03)) return random.pick(junk);
  const branches = schema.anyOf ?? schema.oneOf;
  if (branches) return draw(random.pick(branches), random);
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return random.pick(schema.enum);
  switch (schema.type) {
    case "object": {
      const value: Record<string, unknown> = {};
      for (const [key, property] of Object.entries(schema.properties ?? {}))
        if (schema.required?.includes(key) ? random.chance(0.98) : random.chance(0.12))
          value[key] = draw(property, random);
      if (random.chance(0.02))
        value[random.pick(["x", "", "constructor", "toString", "prompt2"])] = random.pick(junk);
      return value;
    }
    case "array":
      return Array.from({ length: random.integer(0, 3) }, () => draw(schema.items ?? {}, random));
    case "integer":
    case "number": {
      const { minimum = -10, maximum = 10 } = schema;
      const edges = [minimum, maximum, minimum - 1, maximum + 1, 0, 1, 2, 3, 0.5];
      return random.pick(edges);
    }
    case "boolean":
      return random.chance(0.5);
    case "string":
      return random.pick(["a", "hi there", "name_1", "tiny", "", "é🦊", "\ud83d"]);
    case "null":
      return null;
    default:
      return random.pick(junk);
  }
}

/** Cut, doubled, or with a byte changed. */
function damaged(text: string, random: Seeded): string {
  const at = random.integer(0, text.length);
  return random.pick([
    text.slice(0, at),
    text + text,
    `${text.slice(0, at)}${String.fromCharCode(random.integer(0, 0xffff))}${text.slice(at + 1)}`,
  ]);
}

test(`${requests} random requests`, async () => {
  const { paths } = (await (await server.get("/openapi.json")).json()) as {
    paths: Record<string, { post?: { requestBody: { content: Record<string, { schema: Schema }> } } }>;
  };
  const routes = Object.entries(paths).flatMap(([path, { post }]) =>
    post ? [{ path, schema: post.requestBody.content["application/json"]!.schema }] : [],
  );
  const good = async () => {
    const body = { prompt: "once upon", max_tokens: 5, temperature: 0, ignore_eos: true };
    return ((await (await server.post("/v1/completions", body)).json()) as { choices: unknown }).choices;
  };
  const before = await good();

  const statuses = new Map<number, number>();
  const numbers = Array.from({ length: requests }, (_, i) => i);
  await sideBySide(numbers, 4, async (i) => {
    const random = new Seeded(seed * 1_000_003 + i);
    const { path, schema } = random.pick(routes);
    const value = draw(schema, random) as Record<string, unknown>;
    // Without a limit a text fills the context: correct, and slow.
    if (typeof value === "object" && value !== null && !Array.isArray(value) && random.chance(0.95)) {
      if ("messages" in value || "prompt" in value) value.max_tokens ??= random.integer(0, 6);
      if ("input" in value) value.max_output_tokens ??= random.integer(0, 6);
      if (value.model !== undefined) value.model = "tiny";
    }
    const whole = JSON.stringify(value);
    const body = random.chance(0.1) ? damaged(whole, random) : whole;
    const response = await server.post(path, undefined, { body });
    const text = await response.text();
    const context = () =>
      `request ${i}: ${path} ${body.slice(0, 500)} → ${response.status} ${text.slice(0, 500)}`;
    statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
    if (response.status !== 200) {
      expect(response.status, context()).toBeGreaterThanOrEqual(400);
      expect(response.status, context()).toBeLessThan(500);
      const { error } = JSON.parse(text);
      expect(error, context()).toMatchObject({
        message: expect.any(String),
        code: expect.stringMatching(/^ERR_/),
      });
      // Where the body is an object, a field is at fault; else the body itself.
      if (body === whole && typeof value === "object" && value !== null && !Array.isArray(value))
        expect(error.param, context()).toEqual(expect.any(String));
    } else expect(text, context()).not.toContain('"error":{');
  });
  // Not all refused, not all taken: the generator reaches both.
  expect(statuses.get(200), JSON.stringify([...statuses])).toBeGreaterThan(requests / 10);
  expect(statuses.get(400), JSON.stringify([...statuses])).toBeGreaterThan(requests / 10);
  expect(await good()).toEqual(before);
  expect(server.log().match(/"engine ready"/g)).toHaveLength(1);
});
