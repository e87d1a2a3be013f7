import { z } from "zod";

interface Described {
  readonly method: string;
  readonly path: string;
  readonly summary: string;
  readonly schema?: z.ZodType;
}

const error = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["message", "type", "code", "param"],
      properties: {
        message: { type: "string" },
        type: { type: "string" },
        code: { type: "string" },
        param: { type: ["string", "null"] },
      },
    },
  },
};

/** The OpenAPI 3.1 document; bodies are described by the very schemas that check them. */
export function openApi(routes: readonly Described[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const { method, path, summary, schema } of routes) {
    paths[path] ??= {};
    paths[path][method] = {
      summary,
      ...(schema && {
        requestBody: {
          required: true,
          content: {
            "application/json": { schema: z.toJSONSchema(schema, { io: "output", unrepresentable: "any" }) },
          },
        },
      }),
      responses: {
        "200": { description: "Done." },
        default: {
          description: "What is wrong; `param` names the field.",
          content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
        },
      },
    };
  }
  return {
    openapi: "3.1.0",
    info: { title: "Outrider", version },
    paths,
    components: {
      schemas: { Error: error },
      securitySchemes: { key: { type: "http", scheme: "bearer" } },
    },
    security: [{ key: [] }],
  };
}
