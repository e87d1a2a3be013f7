import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { goldenModel } from "./engines.js";
import { describeGguf, withMetadata, writeGguf } from "./gguf-writer.js";

const template =
  "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:";

/** A random model of 280 tokens and 512 positions, with a chat template: conversations in milliseconds. */
export function tinyChatModel(): string {
  const file = path.join(mkdtempSync(path.join(tmpdir(), "outrider-")), "tiny.gguf");
  const described = withMetadata(describeGguf(readFileSync(goldenModel("llama-gqa-untied"))), {
    key: "tokenizer.chat_template",
    type: "string",
    value: template,
  });
  writeFileSync(file, writeGguf(described).bytes);
  return file;
}
