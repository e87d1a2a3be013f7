/**
 * Remembers the tokens of recent words within a budget of bytes. Two generations instead of a list in order of
 * use: when the young one fills half the budget it becomes the old one, and the old one is forgotten.
 */
export class WordCache {
  #young = new Map<string, readonly number[]>();
  #old = new Map<string, readonly number[]>();
  #youngBytes = 0;

  /** @param budget bytes, counted as V8 stores them, roughly */
  constructor(private readonly budget: number) {}

  get(word: string): readonly number[] | undefined {
    const young = this.#young.get(word);
    if (young !== undefined) return young;
    const old = this.#old.get(word);
    if (old !== undefined) this.set(word, old);
    return old;
  }

  set(word: string, ids: readonly number[]): void {
    this.#young.set(word, ids);
    this.#youngBytes += 96 + 2 * word.length + 8 * ids.length;
    if (this.#youngBytes * 2 <= this.budget) return;
    this.#old = this.#young;
    this.#young = new Map();
    this.#youngBytes = 0;
  }
}
