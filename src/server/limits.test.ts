import { expect, test } from "vitest";
import { serve } from "./serve.js";

test.each([
  [{ parallel: 0 }, "limits.parallel is 0, expected a whole number from 1"],
  [{ queue: -1 }, "limits.queue is -1, expected a whole number from 0"],
  [{ deadline: 2 ** 31 }, "to 2147483647"],
  [{ bodies: 1 } as object, 'there is no option "bodies"'],
])("with which nothing could be answered: %j", async (limits, message) => {
  const refusal = { code: "ERR_BAD_REQUEST", message: expect.stringContaining(message) };
  await expect(serve({ models: [], port: 0, limits })).rejects.toMatchObject(refusal);
});
