import type { Tokenizer } from "./tokenizer.js";

interface Family {
  readonly name: string;
  /** Tokens that a model of the family has. */
  readonly tokens: readonly string[];
  readonly template: string;
}

const turns = (body: string) => `{% for message in messages %}${body}{% endfor %}`;
const prompt = (text: string) => `{% if add_generation_prompt %}${text}{% endif %}`;

/** The first whose tokens are all there is taken. */
const families: readonly Family[] = [
  {
    name: "ChatML",
    tokens: ["<|im_start|>", "<|im_end|>"],
    template:
      turns("{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}") +
      prompt("{{ '<|im_start|>assistant\\n' }}"),
  },
  {
    name: "Llama 3",
    tokens: ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    template:
      "{{ bos_token }}" +
      turns(
        "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}",
      ) +
      prompt("{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"),
  },
  {
    name: "Gemma",
    tokens: ["<start_of_turn>", "<end_of_turn>"],
    template:
      "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" +
      turns(
        "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' + message.content | trim + '<end_of_turn>\\n' }}",
      ) +
      prompt("{{ '<start_of_turn>model\\n' }}"),
  },
  {
    name: "Granite",
    tokens: ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"],
    template:
      turns(
        "{{ '<|start_of_role|>' + message.role + '<|end_of_role|>' + message.content + '<|end_of_text|>\\n' }}",
      ) + prompt("{{ '<|start_of_role|>assistant<|end_of_role|>' }}"),
  },
  {
    name: "Phi 3",
    tokens: ["<|user|>", "<|assistant|>", "<|end|>"],
    template:
      turns("{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}") +
      prompt("{{ '<|assistant|>\\n' }}"),
  },
  {
    name: "DeepSeek",
    tokens: ["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"],
    template:
      "{{ bos_token }}" +
      turns(
        "{% if message.role == 'system' %}{{ message.content }}{% elif message.role == 'assistant' %}" +
          "{{ '<｜Assistant｜>' + message.content + '<｜end▁of▁sentence｜>' }}{% else %}{{ '<｜User｜>' + message.content }}{% endif %}",
      ) +
      prompt("{{ '<｜Assistant｜>' }}"),
  },
  {
    name: "Mistral",
    tokens: ["[INST]", "[/INST]"],
    template:
      "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" +
      turns(
        "{% if message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}{% else %}{{ '[INST] ' + message.content + ' [/INST]' }}{% endif %}",
      ),
  },
  {
    name: "plain",
    tokens: [],
    template:
      turns("{{ message.role | capitalize + ': ' + message.content | trim + '\\n\\n' }}") +
      prompt("{{ 'Assistant:' }}"),
  },
];

/**
 * A chat template for a model whose file has none, chosen by the special tokens that it has, and a warning that says
 * so. A model that knows none of the usual tokens gets turns as plain text.
 */
export function fallbackTemplate(tokenizer: Tokenizer): { template: string; warning: string } {
  const known = (text: string) => tokenizer.encode(text, { special: true }).length === 1;
  const family = families.find(({ tokens }) => tokens.every(known))!;
  const reason =
    family.tokens.length > 0 ? `it has the tokens of ${family.name}` : "it has no tokens that mark turns";
  return {
    template: family.template,
    warning: `the model has no chat template; ${reason}, so messages are written in ${
      family.tokens.length > 0 ? "that form" : 'plain form ("User: …"): answers may be poor'
    }`,
  };
}
