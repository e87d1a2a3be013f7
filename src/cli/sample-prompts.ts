/** What `bench` and `verify` ask unless they are given a file: a bit of everything people ask of a model. */
export const samplePrompts: readonly { readonly category: string; readonly prompt: string }[] = [
  {
    category: "writing",
    prompt: "Write a short story about a lighthouse keeper who finds a letter in a bottle.",
  },
  {
    category: "writing",
    prompt: "Write a friendly email to my neighbours, inviting them to a garden party on Saturday.",
  },
  {
    category: "questions",
    prompt: "Why does bread dough rise, and why does it need to rest before it is baked?",
  },
  { category: "questions", prompt: "What are the main differences between a comet and an asteroid?" },
  {
    category: "code",
    prompt:
      "Write a Python class Stack with the methods push, pop, peek and is_empty, and a test for each of them.",
  },
  {
    category: "code",
    prompt: `Add a parameter "limit" to this function and return the same code otherwise unchanged:

function longestWords(text) {
  const words = text.split(/\\s+/);
  words.sort((a, b) => b.length - a.length);
  return words.slice(0, 10);
}`,
  },
  {
    category: "summary",
    prompt: `Summarise this text in two sentences.

The village library had been closed for six years when a group of pensioners asked the council for the key. They swept the floors, mended the roof with tiles from a fallen barn, and sorted nine thousand books into boxes. On the first Saturday in May the library opened again, for three hours, with coffee. By the end of the year it had four hundred members, a reading group for children, and a waiting list for the sewing machine that somebody had left in the cellar. The council now pays for the heating.`,
  },
  {
    category: "summary",
    prompt: `Summarise this report for somebody who has no time.

On Monday the pump at the north station stopped twice, at 04:10 and at 06:55. Both times the sensor for the inlet pressure read zero while the pressure at the outlet was normal. The sensor was cleaned on Tuesday and replaced on Wednesday, and the pump has run without a stop since. The pump at the south station has a sensor of the same kind and the same age. We recommend that it be replaced during the maintenance in March.`,
  },
  {
    category: "extraction",
    prompt: `List every person in this text with their town, one a line, as "name: town".

Clara Weiss, a carpenter from Lindau, met Tomas Novak at the market in Brno, where he has lived all his life. His sister Eva moved to Graz last year. Their friend Pierre Laurent still sends postcards from Dijon, and Amina Diallo telephones from Thies on Sundays.`,
  },
  {
    category: "extraction",
    prompt: `Write this list as JSON, an array of objects with the keys "item", "number" and "price".

3 notebooks at 2.40 each; 12 pencils at 0.35 each; 1 sharpener at 4.10; 2 rulers at 1.25 each; 5 folders at 0.80 each`,
  },
  {
    category: "translation",
    prompt: "Translate into French: The train to the coast leaves at half past nine from platform two.",
  },
  {
    category: "translation",
    prompt: "Translate into Spanish: My grandmother keeps bees, and in summer we eat bread with honey.",
  },
];
