// The sentences of the page in the reader's language. They stand in English in the code; another language is a file
// of the node, which finds what is to be translated by the calls of t and tn with a sentence written out.

const LANGUAGES = ["id", "en"];
const STORED = "meshnode-language";
let words = {};
let language = "en";

/** A sentence; what stands in braces in it is filled in from `fields`. */
export function t(sentence, fields = {}) {
  return fill(words[sentence] || sentence, fields);
}

/** A sentence with a number, which stands in it as {n}. */
export function tn(one, many, n, fields = {}) {
  const sentence = n === 1 ? one : many;
  return fill(words[sentence] || sentence, { n: number(n), ...fields });
}

function fill(sentence, fields) {
  return sentence.replace(/\{(\w+)\}/g, (whole, name) => (name in fields ? String(fields[name]) : whole));
}

/** The language of the page now, as in <html lang>. */
export const spoken = () => language;

/** The language that was chosen here; empty: what the node is set to, or else the browser. */
export const chosen = () => {
  const stored = localStorage.getItem(STORED) || "";
  return LANGUAGES.includes(stored) ? stored : "";
};

/** Speak a language from now on, and in this browser ever after. */
export async function choose(wanted) {
  localStorage.setItem(STORED, wanted);
  await speak();
}

/** Fetch the sentences of the language that is chosen. */
export async function speak() {
  const answer = await fetch(`words.json?lang=${chosen()}`);
  if (!answer.ok) return;
  words = await answer.json();
  language = answer.headers.get("Content-Language") || "en";
  document.documentElement.lang = language;
}

// --- numbers, sizes, times ---

export const number = (value) => new Intl.NumberFormat(language).format(value);

/** Bytes as a person says them: 512 B, 1.4 MB. */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < 3) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  const text = new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
  return `${text} ${["B", "kB", "MB", "GB"][unit]}`;
}

/** Seconds as a person says them. */
export function duration(seconds) {
  if (seconds < 60) return t("{n} s", { n: number(Math.max(0, Math.round(seconds))) });
  if (seconds < 3600) return t("{n} min", { n: number(Math.floor(seconds / 60)) });
  if (seconds < 48 * 3600) {
    const minutes = Math.floor((seconds % 3600) / 60);
    const hours = Math.floor(seconds / 3600);
    return minutes ? t("{h} h {m} min", { h: hours, m: minutes }) : t("{h} h", { h: hours });
  }
  return tn("{n} day", "{n} days", Math.floor(seconds / 86400));
}

const isToday = (date) => new Date().toDateString() === date.toDateString();

/** A time of this device's clock: today only the hour, else the day too. */
export function when(ms) {
  const date = new Date(ms);
  const style = isToday(date) ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(language, style).format(date);
}

/** A day as the office writes it, 2026-11-28: the shortest that says it. */
export function day(text) {
  const date = new Date(`${text}T12:00:00`);
  return Number.isNaN(date.getTime())
    ? text
    : new Intl.DateTimeFormat(language, { day: "numeric", month: "short" }).format(date);
}
