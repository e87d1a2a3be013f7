// Prompts as one user sends them day after day: the same request about other things.
const requests = [
  [
    (what) => `Write a polite e-mail to a customer whose order of ${what} will arrive a week late.`,
    "garden chairs, running shoes, a coffee machine, school books, a winter coat, printer paper, a tent, two lamps, " +
      "a guitar, a bicycle helmet, kitchen knives, a suitcase",
  ],
  [
    (what) => `Write a job advertisement for ${what} in a small town.`,
    "a nurse, a baker, an electrician, a teacher, a librarian, a gardener, a bus driver, an accountant, a cook, " +
      "a carpenter, a receptionist, a plumber",
  ],
  [
    (what) => `Explain to a ten-year-old how ${what} works. Use simple words.`,
    "a refrigerator, a rainbow, a bicycle, a volcano, a telephone, a magnet, an aeroplane, a mirror, a battery, " +
      "a compass, a steam engine, a microscope",
  ],
  [
    (what) => `List five tips for ${what}, each with one sentence of explanation.`,
    "sleeping better, saving money, learning a language, giving a speech, growing tomatoes, packing for a journey, " +
      "reading more, writing a letter, cleaning a kitchen, running a meeting, training a dog, choosing a laptop",
  ],
];

/** [kinds][12] */
export const similarPrompts = requests.map(([request, things]) => things.split(", ").map(request));
