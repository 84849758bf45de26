// Who carried for whom, how much came on which day, and how long it took. Each drawing has a table of the same numbers.

import { save } from "./api.js";
import { h, s } from "./dom.js";
import { button, empty, section, table, title } from "./parts.js";
import { state } from "./state.js";
import { day, duration, number, size, t, tn } from "./words.js";

export const name = () => t("Carrying");

const DAYS = 30; // so many of the last days are drawn
const NARROW = matchMedia("(max-width: 699px)");
// Drawings are as wide as they are shown, so that what is written in them stays legible on a phone.
const wide = () => (NARROW.matches ? 320 : 600);
const PEOPLE = 16; // on each side of the drawing of carriers

export function view() {
  const told = state.officers;
  if (!told) return [title(name()), h("p", { class: "quiet" }, t("Asking the node"))];
  const days = told.days.slice(-DAYS);
  return [
    title(name()),
    section("who", t("Who carried for whom"), ...who(told.carried)),
    section("much", t("Messages a day"), ...throughput(days)),
    section("late", t("From recording to office"), ...delays(days)),
    h(
      "p",
      { class: "pair", "data-key": "save" },
      button("second", "save", t("Carriers as a table (CSV)"), () => save("/v1/carried.csv", "carried.csv")),
      button("second", "save", t("Days as a table (CSV)"), () => save("/v1/days.csv", "days.csv")),
    ),
  ];
}

const numbers = (key, content) => h("details", { "data-key": key }, h("summary", {}, t("The same as numbers")), content);

const asNumbers = (heading) => t("{heading}, as numbers", { heading });

// --- carriers ---

function who(carried) {
  if (!carried.length) return [empty(t("Nobody has brought anything yet."), "carried")];
  return [
    h("p", { class: "quiet" }, t("On the left who recorded, on the right who brought it; the wider, the more. Green: their own.")),
    drawCarriers(carried),
    numbers(
      "who-numbers",
      table(
        asNumbers(t("Who carried for whom")),
        [[t("Recorded by"), ""], [t("Brought by"), ""], [t("Bundles"), "number"], [t("Size"), "number"]],
        carried.map((it) => [it.source, it.carrier, number(it.bundles), size(it.bytes)]),
        { cards: false },
      ),
    ),
  ];
}

function ranked(carried, field) {
  const sums = new Map();
  for (const it of carried) sums.set(it[field], (sums.get(it[field]) || 0) + it.bytes);
  return [...sums].sort((one, other) => other[1] - one[1]).slice(0, PEOPLE);
}

/** Heights in proportion to bytes, one below the other: name -> {top, height, at}. */
function columnOf(people, all, room, gap) {
  let top = 0;
  const places = new Map();
  for (const [who_, bytes] of people) {
    const height = Math.max(3, (bytes / all) * room);
    places.set(who_, { top, height, at: top });
    top += Math.max(height, 18) + gap;
  }
  return { places, end: top };
}

function drawCarriers(carried) {
  const [sources, carriers] = [ranked(carried, "source"), ranked(carried, "carrier")];
  const all = carried.reduce((sum, it) => sum + it.bytes, 0) || 1;
  const room = 40 * Math.max(sources.length, carriers.length);
  const left = columnOf(sources, all, room, 12);
  const right = columnOf(carriers, all, room, 12);
  const height = Math.max(left.end, right.end);
  const [from, to] = [wide() / 4, (3 * wide()) / 4];
  const bands = carried
    .filter((it) => left.places.has(it.source) && right.places.has(it.carrier))
    .map((it, at) => band(it, left.places.get(it.source), right.places.get(it.carrier), all, room, from, to, at));
  return s(
    "svg",
    { class: "drawing carriers", viewBox: `0 0 ${wide()} ${height}`, role: "img", "aria-label": t("Who carried for whom") },
    ...bands,
    ...[...left.places].map(([text, place]) => person(text, place, from - 6, "end")),
    ...[...right.places].map(([text, place]) => person(text, place, to + 6, "start")),
  );
}

function band(it, start, end, all, room, from, to, at) {
  const width = Math.max(1.5, (it.bytes / all) * room);
  const [y1, y2] = [start.at + width / 2, end.at + width / 2];
  start.at += width;
  end.at += width;
  const middle = (from + to) / 2;
  return s(
    "path",
    {
      class: it.itself ? "band own" : `band other-${at % 2}`,
      d: `M${from} ${y1}C${middle} ${y1} ${middle} ${y2} ${to} ${y2}`,
      "stroke-width": width,
    },
    s("title", {}, `${it.source} → ${it.carrier}: ${tn("{n} bundle", "{n} bundles", it.bundles)}, ${size(it.bytes)}`),
  );
}

function person(text, place, x, anchor) {
  const y = place.top + Math.max(place.height / 2, 6);
  const most = Math.floor(wide() / 34);
  const short = text.length > most ? `${text.slice(0, most - 1)}…` : text;
  return s("text", { x, y, "text-anchor": anchor, "dominant-baseline": "central" }, short, s("title", {}, text));
}

// --- days ---

const [HIGH, LEFT, BELOW] = [200, 52, 26];

function throughput(days) {
  if (!days.length) return [empty(t("Nothing was handed on yet."), "chart")];
  const most = niceMost(Math.max(...days.map((it) => it.messages)));
  const step = (wide() - LEFT) / days.length;
  const thick = Math.min(step * 0.7, 48);
  const bars = days.map((it, at) => {
    const height = (it.messages / most) * (HIGH - BELOW - 10);
    return s(
      "rect",
      {
        class: "column",
        x: LEFT + (at + 0.5) * step - thick / 2,
        y: HIGH - BELOW - height,
        width: thick,
        height,
        rx: 2,
      },
      s("title", {}, `${day(it.day)}: ${tn("{n} message", "{n} messages", it.messages)}, ${size(it.bytes)}`),
    );
  });
  return [
    chart(t("Messages a day"), days, step, most, number, bars),
    numbers(
      "much-numbers",
      table(
        asNumbers(t("Messages a day")),
        [[t("Day"), ""], [t("Messages"), "number"], [t("Size"), "number"]],
        days.map((it) => [day(it.day), number(it.messages), size(it.bytes)]),
        { cards: false },
      ),
    ),
  ];
}

function delays(days) {
  const known = days.filter((it) => it.delay_max_s !== null);
  if (!known.length) return [empty(t("Nothing was handed on yet."), "clock")];
  const most = niceTime(Math.max(...known.map((it) => it.delay_max_s)));
  const step = (wide() - LEFT) / known.length;
  const lines = [
    ["delay_max_s", "max", t("the slowest")],
    ["delay_p90_s", "p90", t("nine of ten within")],
    ["delay_p50_s", "p50", t("half of them within")],
  ];
  const y = (value) => HIGH - BELOW - (value / most) * (HIGH - BELOW - 10);
  const x = (at) => LEFT + (at + 0.5) * step;
  const drawn = lines.map(([field, look]) =>
    s(
      "g",
      { class: `line ${look}` },
      s("polyline", { points: known.map((it, at) => `${x(at)},${y(it[field])}`).join(" ") }),
      ...known.map((it, at) =>
        s("circle", { cx: x(at), cy: y(it[field]), r: 3 }, s("title", {}, `${day(it.day)}: ${duration(it[field])}`)),
      ),
    ),
  );
  return [
    h("ul", { class: "legend" }, ...lines.map(([, look, text]) => h("li", { class: look }, text))),
    chart(t("From recording to office"), known, step, most, duration, drawn),
    numbers(
      "late-numbers",
      table(
        asNumbers(t("From recording to office")),
        [[t("Day"), ""], ...[...lines].reverse().map(([, , text]) => [text, "number"])],
        known.map((it) => [day(it.day), duration(it.delay_p50_s), duration(it.delay_p90_s), duration(it.delay_max_s)]),
        { cards: false },
      ),
    ),
  ];
}

function chart(label, days, step, most, says, drawn) {
  const floor = HIGH - BELOW;
  const lines = [0, 0.5, 1].map((share) => {
    const y = floor - share * (floor - 10);
    return [
      s("line", { class: "grid", x1: LEFT, x2: wide(), y1: y, y2: y }),
      s("text", { x: LEFT - 6, y, "text-anchor": "end", "dominant-baseline": "central" }, says(share * most)),
    ];
  });
  const every = Math.ceil((days.length * 100) / (wide() - LEFT));
  const named = days.map((it, at) =>
    at % every
      ? null
      : s("text", { x: LEFT + (at + 0.5) * step, y: HIGH - 6, "text-anchor": "middle" }, day(it.day)),
  );
  return s("svg", { class: "drawing", viewBox: `0 0 ${wide()} ${HIGH}`, role: "img", "aria-label": label }, ...lines, ...drawn, ...named);
}

/** The next even number that is easy to halve. */
function niceMost(value) {
  const scale = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return Math.max(2, [1, 2, 4, 6, 8, 10].map((step) => step * scale).find((step) => step >= value));
}

const niceTime = (value) =>
  [60, 120, 600, 1200, 3600, 7200, 14400, 43200, 86400, 172800, 345600, 691200, 1382400].find((step) => step >= value) || value;
