const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n: number, thing: string) => `${whole.format(n)} ${thing}${n === 1 ? "" : "s"}`;
export const number = (n: number) => whole.format(n);
/** Three digits are what a reader compares. */
export const figure = (n: number) => (n >= 100 ? whole.format(n) : n.toFixed(n >= 10 ? 1 : 2));
export const megabytes = (bytes: number) => whole.format(bytes / 1e6);
export const percent = (part: number) => `${whole.format(100 * part)} %`;
