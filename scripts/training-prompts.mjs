/**
 * Prompts for scripts/learn-ngrams.mjs: a bit of everything people ask, put together from lists with a fixed seed, and
 * none of it taken from a benchmark.
 */
const TOPICS =
  `photosynthesis; the Roman Empire; black holes; sourdough bread; the French Revolution; machine learning; coral reefs;
electric cars; the water cycle; jazz music; chess openings; vaccines; inflation; the human heart; plate tectonics; solar panels;
impressionist painting; the Silk Road; bees and pollination; cryptography; the stock market; yoga; climate change; the internet;
volcanoes; Shakespeare's plays; nuclear energy; sleep; the immune system; coffee; marathon training; urban gardening;
the Great Wall of China; antibiotics; time zones; earthquakes; the printing press; dinosaurs; the Amazon rainforest;
renewable energy; supply and demand; the Renaissance; databases; recycling; the moon landing; meditation; glaciers;
the Industrial Revolution; genetics; public transport; the Olympic Games; tea; the brain; wind turbines; origami; democracy;
the periodic table; whales; remote work; bicycle repair; personal budgeting; the Vikings; semiconductors; mental health;
lighthouses; the piano; rice farming; social media; ancient Egypt; robots; vitamins; gravity; poetry; sailing; honey;
the Cold War; artificial intelligence; beekeeping; watercolour; operating systems; public libraries; the Sahara desert;
cheese making; electric guitars; hurricanes; the European Union; knitting; compilers; tourism; hiking; photography`
    .split(";")
    .map((s) => s.trim().replaceAll("\n", " "));
const PEOPLE =
  "Anna; Omar; Priya; Lucas; Mei; Sofia; Daniel; Fatima; Jonas; Elena; Kofi; Hannah; Ravi; Clara; Tom; Yuki; Ben; Nora"
    .split(";")
    .map((s) => s.trim());
const PLACES =
  "Lisbon; Kyoto; Nairobi; Montreal; Oslo; Lima; Hanoi; Prague; Cairo; Dublin; Seoul; Denver; Athens; Jakarta; Vienna; Quito"
    .split(";")
    .map((s) => s.trim());
const COUNTRIES =
  "Portugal; Japan; Kenya; Canada; Norway; Peru; Vietnam; Egypt; Ireland; Mexico; Greece; India; Austria; Chile; Poland; Turkey"
    .split(";")
    .map((s) => s.trim());
const THINGS =
  "apples; pencils; books; stickers; marbles; cookies; tickets; eggs; flowers; chairs; bottles; stamps; boxes; shirts; coins; cards"
    .split(";")
    .map((s) => s.trim());
const LANGUAGES = "French; Spanish; German; Italian; Portuguese".split(";").map((s) => s.trim());
const ROLES =
  "a travel guide; a doctor; a historian; a chef; a financial adviser; a teacher; a pirate; a detective; a software engineer; a gardener; a librarian; an astronaut"
    .split(";")
    .map((s) => s.trim());
const PROGRAMS =
  `reverses a string; checks whether a number is prime; counts the words in a file; sorts a list of numbers; finds the largest
element of an array; computes the factorial of a number; merges two sorted lists; removes duplicates from a list; converts Celsius to
Fahrenheit; finds the common elements of two arrays; checks whether a string is a palindrome; prints the Fibonacci sequence; reads a CSV
file and prints its columns; implements binary search; computes the average of a list; implements a queue; downloads a web page; flattens a
nested list; counts the vowels in a text; draws a triangle of stars; validates an email address; finds the longest word in a sentence`
    .split(";")
    .map((s) => s.trim().replaceAll("\n", " "));
const CODE_LANGUAGES = "Python; JavaScript; Java; C++; Go; TypeScript".split(";").map((s) => s.trim());
const GERMAN =
  `Der Zug nach Hamburg hat heute zwanzig Minuten Verspätung. Die Kinder spielen im Garten, weil die Sonne scheint. Die Regierung hat am
Montag ein neues Gesetz über erneuerbare Energien vorgestellt. Mein Bruder arbeitet seit drei Jahren in einer Bäckerei. Die Ausstellung zeigt Bilder
aus der ganzen Welt und ist bis Ende März geöffnet. Wegen des Sturms wurden viele Flüge gestrichen. Der Präsident sprach mit den Vertretern der
Gewerkschaften über die Löhne. Das Unternehmen will in den nächsten Jahren fünfhundert Arbeitsplätze schaffen. Im Winter fahren wir oft in die Berge.
Die Polizei sucht nach Zeugen des Unfalls. Die Wissenschaftler haben eine neue Art von Fröschen entdeckt. Die Stadt baut eine neue Brücke über den Fluss.
Meine Großmutter erzählt gern Geschichten aus ihrer Jugend. Der Minister kündigte an, die Steuern zu senken. Das Spiel endete nach Verlängerung mit zwei zu eins.
Viele Menschen fahren mit dem Fahrrad zur Arbeit. Die Universität bietet einen neuen Studiengang an. Nach dem Regen war die Straße sehr glatt.`
    .replaceAll("\n", " ")
    .split(/(?<=\.) /);
const QUESTIONS =
  `who invented the telephone; what is the capital of COUNTRY; how many bones does a human have; when did the Berlin Wall fall; who painted the
ceiling of the Sistine Chapel; what is the largest ocean on earth; where do penguins live; how long does it take to fly from PLACE to PLACE; who was the first
president of COUNTRY; what is the boiling point of water at high altitude; which planet has the most moons; what language is spoken in COUNTRY; when was the
university of PLACE founded; what does a sommelier do; how is glass made; why is the sky red at sunset; who wrote Pride and Prejudice; what is the currency of
COUNTRY; how do submarines dive; what causes rainbows; when does spring begin in COUNTRY; who discovered penicillin; what is the tallest building in PLACE;
how do I remove a coffee stain; what is the difference between a crocodile and an alligator; what year did the film about TOPIC come out; who sings the song
about PLACE; how many people live in PLACE; what is the population of COUNTRY; where is the headquarters of the largest bank of COUNTRY; who plays the
detective in the series set in PLACE; what are the ingredients of a traditional soup from COUNTRY; when was TOPIC first described`
    .split(";")
    .map((s) => s.trim().replaceAll("\n", " "));

const FORMS = [
  [
    4,
    () =>
      `Explain ${topic()} ${pick(["", "in simple terms", "to a ten-year-old", "to a student", "in two paragraphs", "briefly"])}.`,
  ],
  [2, () => `What is ${topic()}, and why does it matter?`],
  [
    2,
    () =>
      `Write ${pick(["an essay", "a short article", "a blog post", "a speech", "a report", "an introduction"])} about ${topic()}.`,
  ],
  [
    2,
    () =>
      `Give me ${pick(["five", "ten", "three", "seven"])} ${pick(["facts", "tips", "ideas", "reasons", "questions"])} about ${topic()}.`,
  ],
  [2, () => `What are the advantages and disadvantages of ${topic()}?`],
  [2, () => `Compare ${topic()} and ${topic()}.`],
  [1, () => `How did ${topic()} change the world?`],
  [
    2,
    () =>
      `Write a ${pick(["short story", "poem", "dialogue", "fairy tale", "song"])} about ${person()} and ${topic()}.`,
  ],
  [
    2,
    () =>
      `Imagine you are ${pick(ROLES)}. ${pick(["Give advice about", "Tell me about", "Describe a day with", "Answer a question about"])} ${topic()}.`,
  ],
  [
    1,
    () =>
      `Write ${pick(["an email", "a letter", "a text message"])} to ${person()} to ${pick(["apologise for being late", "invite them to a party", "ask for a refund", "say thank you for a gift", "postpone a meeting", "apply for a job"])}.`,
  ],
  [
    1,
    () =>
      `Plan a ${pick(["weekend", "week", "day"])} in ${place()} for ${pick(["a family", "students", "two friends"])} interested in ${topic()}.`,
  ],
  [1, () => `Which role does ${topic()} play in the economy of ${country()}?`],
  [8, () => capital(fill(pick(QUESTIONS))) + pick(["", "?", "?"])],
  [4, () => fill(pick(QUESTIONS))],
  [3, () => `Write a ${pick(CODE_LANGUAGES)} ${pick(["function", "program"])} that ${pick(PROGRAMS)}.`],
  [
    1,
    () =>
      `How do I ${pick(["install a package", "read a file", "sort a list", "make an HTTP request", "write a unit test"])} in ${pick(CODE_LANGUAGES)}?`,
  ],
  [6, () => `Translate German to English: ${some(pick([1, 1, 2]), GERMAN)}`],
  [
    1,
    () =>
      `Translate this sentence into ${pick(LANGUAGES)}: ${person()} wants to learn about ${topic()} in ${place()}.`,
  ],
  ...[
    (a, b, c) =>
      `${person()} has ${a} ${thing()}. ${person()} gives away ${b} of them and buys ${c} more. How many are there now?`,
    (a, b, c) =>
      `A shop sells ${thing()} for $${a} each. If ${person()} buys ${b} of them and pays with $${a * b + c}, how much change is due?`,
    (a, b, c) =>
      `${person()} works ${a} hours a day for ${b} days and earns $${c} an hour. How much money does ${person()} earn in total?`,
    (a, b) => `A train travels ${a * 10} kilometres in ${b} hours. What is its average speed?`,
    (a, b, c) =>
      `There are ${a} boxes with ${b} ${thing()} each. ${c}% of them are broken. How many are not broken?`,
    (a, b, c) =>
      `${person()} is ${a} years old. In ${b} years, ${person()} will be twice as old as ${person()} is now. ${person()} is ${c}. How old is ${person()}?`,
    (a, b, c) =>
      `A recipe for ${b} people needs ${a} cups of flour. How many cups are needed for ${c} people?`,
    (a, b, c) =>
      `${person()} reads ${a} pages on Monday, ${b} more on Tuesday than on Monday, and half as many as on Tuesday on Wednesday. The book has ${a + 2 * b + c + 100} pages. How many pages are left?`,
  ].map((form) => [1, () => form(number(), number(), number())]),
  [1, () => `Solve for x: ${number()}x + ${number()} = ${number() * 5}.`],
  [
    1,
    () =>
      `Give the names and numbers in this sentence as JSON: ${person()} sold ${number()} ${thing()} to ${person()} in ${place()} for $${number()}.`,
  ],
  [
    1,
    () =>
      `Is this review positive or negative? "The ${thing()} arrived ${pick(["late and broken", "quickly and were perfect", "in the wrong colour", "as described"])}. I would ${pick(["never", "gladly"])} buy from this shop again."`,
  ],
  [1, () => `Correct the grammar: ${person()} have went to ${place()} and buyed ${number()} ${thing()}.`],
];

/** What a passage, an earlier answer of the model, can be asked. */
const PASSAGE_FORMS = [
  [4, (text) => `Summarize: ${text}`],
  [
    1,
    (text) =>
      `Summarize the following text in ${pick(["one sentence", "three sentences", "bullet points"])}.\n\n${text}`,
  ],
  [1, (text) => `Rewrite this text in a more formal style:\n\n${text}`],
  [1, (text) => `What is the main idea of this text?\n\n${text}`],
  [
    2,
    (text) =>
      `Answer the question with the help of these documents.\n\n${text}\n\nQuestion: What is ${topic()}?\nAnswer:`,
  ],
  [2, (text) => `Context: ${text}\n\nWhat does the context say about ${topic()}?`],
];

let state = 0;
function random() {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
}
const pick = (list) => list[Math.floor(random() * list.length)];
const some = (count, list) => Array.from({ length: count }, () => pick(list)).join(" ");
const topic = () => pick(TOPICS);
const person = () => pick(PEOPLE);
const place = () => pick(PLACES);
const country = () => pick(COUNTRIES);
const thing = () => pick(THINGS);
const number = () => 2 + Math.floor(random() * 40);
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const fill = (text) =>
  text.replace("COUNTRY", country).replace("PLACE", place).replace("PLACE", place).replace("TOPIC", topic);

function weighted(forms) {
  let left = random() * forms.reduce((sum, [weight]) => sum + weight, 0);
  for (const [weight, form] of forms) {
    left -= weight;
    if (left < 0) return form;
  }
  return forms.at(-1)[1];
}

/** The prompt of this number; about one in five is about a passage, once there are some. */
export function trainingPrompt(index, passages) {
  state = Math.imul(index + 1, 0x9e3779b1) >>> 0;
  for (let i = 0; i < 4; i++) random();
  return passages.length > 0 && random() < 0.2 ? weighted(PASSAGE_FORMS)(pick(passages)) : weighted(FORMS)();
}
