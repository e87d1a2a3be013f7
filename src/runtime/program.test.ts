import { expect, test, vi } from "vitest";
import { Core } from "./core.js";
import { KvCache } from "./kv-cache.js";
import { addon } from "./native.js";
import { ProgramBuilder, type Tensor } from "./program.js";
import { Weight } from "./weight.js";

const width = 32;
const vocab = 48;

test("rows whose logits nobody wants stop at the last layer's keys and values", () => {
  using core = new Core(1);
  using cache = new KvCache(2, 1, width, 2, "f16");
  using embedding = new Weight("embedding", "F32", vocab, width);
  using square = new Weight("square", "Q8_0", width, width);
  const norm = new Float32Array(width).fill(1);
  const b = new ProgramBuilder({ vocab, maxRows: 4, maxOutputs: 1, maxPosition: 32, precise: false });
  let x: Tensor = b.embed(embedding);
  for (const layer of [0, 1]) {
    const h = b.rmsNorm(x, norm, 1e-5);
    b.store(b.matmul(h, square), b.matmul(h, square), layer);
    x = b.add(x, b.matmul(b.attend(b.matmul(h, square), layer, { heads: 1, scale: 1 }), square));
    x = b.add(x, b.matmul(b.gated(b.rmsNorm(x, norm, 1e-5), square, square), square));
  }
  const logits = b.matmul(b.rmsNorm(b.selectOutputs(x), norm, 1e-5), embedding);
  const create = vi.spyOn(addon(), "createProgram");
  b.finish(core, cache, logits)[Symbol.dispose]();
  const { ops, buffers } = create.mock.calls[0]![1];
  create.mockRestore();

  const kinds = Array.from({ length: ops.length / 8 }, (_, i) => ops[8 * i]!);
  const [matmul, gated, select, attend] = [3, 4, 10, 8];
  // Two selects, of the residual stream and of what attention gave; then everything is per wanted output.
  const last = kinds.lastIndexOf(attend);
  expect(kinds.filter((kind) => kind === select)).toHaveLength(2);
  expect(kinds.indexOf(select)).toBeGreaterThan(last);
  for (let i = 0; i < kinds.length; i++) {
    const output = kinds[i] === matmul ? ops[8 * i + 3]! : kinds[i] === gated ? ops[8 * i + 4]! : undefined;
    if (output !== undefined) expect(buffers[4 * output + 1], `operator ${i}`).toBe(i > last ? 1 : 0);
  }
});
