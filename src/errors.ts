/** The stable codes by which a program tells one cause from another; the message is for people. */
export const errorCodes = [
  "ERR_MODEL_FORMAT",
  "ERR_MODEL_TRUNCATED",
  "ERR_MODEL_LIMIT",
  "ERR_MODEL_UNSUPPORTED",
  "ERR_PATH",
  "ERR_DOWNLOAD",
  "ERR_TOKENIZER",
  "ERR_TEMPLATE",
  "ERR_TEMPLATE_LIMIT",
  "ERR_DRAFT_MISMATCH",
  "ERR_BAD_REQUEST",
  "ERR_CONTEXT",
  "ERR_ABORTED",
  "ERR_DISPOSED",
  "ERR_RUNTIME",
  "ERR_RUNTIME_NAN",
  "ERR_PROGRAM",
  "ERR_PLATFORM",
  "ERR_GRAMMAR",
  "ERR_AUTH",
  "ERR_HOST",
  "ERR_NOT_FOUND",
  "ERR_METHOD",
  "ERR_TOO_LARGE",
  "ERR_MEDIA_TYPE",
  "ERR_BUSY",
  "ERR_TIMEOUT",
  "ERR_LOADING",
  "ERR_UPSTREAM",
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** Every error that Outrider throws on purpose. Test `code`, not the class: two installed copies then agree. */
export class OutriderError extends Error {
  override readonly name: string = "OutriderError";
  /** The option or field at fault, e.g. `"temperature"` or `"messages[3].role"`. */
  readonly param?: string;
  /** Numbers that a program may want, e.g. `n_prompt_tokens` and `n_ctx` of `ERR_CONTEXT`. */
  readonly details?: Readonly<Record<string, number>>;

  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions & { param?: string; details?: Readonly<Record<string, number>> },
  ) {
    super(message, options);
    if (options?.param !== undefined) this.param = options.param;
    if (options?.details !== undefined) this.details = options.details;
  }
}

/** Text from a file or a request, made fit for a message: control characters escaped, at most 80 characters. */
export function quote(text: string): string {
  const shortened = text.length > 80 ? `${text.slice(0, 77)}...` : text;
  return JSON.stringify(shortened).replace(
    /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
