// What an office or a gateway sees first: every officer, and what is still out.

import { h } from "./dom.js";
import { alarms } from "./home.js";
import { icon } from "./icons.js";
import { bar, button, empty, table, title } from "./parts.js";
import { save } from "./api.js";
import { state } from "./state.js";
import { duration, number, t, tn, when } from "./words.js";

export const name = () => t("Officers");

const RANGES = 4; // so many gaps of one officer are named; the table for a spreadsheet has all
const NOW_S = 60;

export function view() {
  const told = state.officers;
  if (!told) return [title(name()), h("p", { class: "quiet" }, t("Asking the node"))];
  const officers = [...told.officers].sort((one, other) => urgency(other) - urgency(one) || one.name.localeCompare(other.name));
  return [
    alarms(),
    h("div", { class: "hero", "data-key": "hero" }, title(headline(officers)), totals(officers)),
    officers.length ? list(officers, told.now_ms) : empty(t("No officer has been heard of yet."), "near"),
    h("p", { class: "pair", "data-key": "save" }, button("second", "save", t("Save as a table (CSV)"), () => save("/v1/officers.csv", "officers.csv"))),
  ];
}

/** What is still out first, then what waits here, then all else. */
const urgency = (officer) => (officer.on_the_way ? 2 : 0) + (officer.here ? 1 : 0);

const sum = (officers, field) => officers.reduce((all, officer) => all + officer[field], 0);

function headline(officers) {
  if (!officers.length) return t("No officer has been heard of yet");
  const out = sum(officers, "on_the_way");
  if (out) return tn("{n} bundle is still out", "{n} bundles are still out", out);
  const here = sum(officers, "here");
  if (here) return tn("{n} bundle waits here to be handed on", "{n} bundles wait here to be handed on", here);
  return t("All that is known of is delivered");
}

/** Of one officer or of all: delivered, arrived, still out, in the colours of the legend. */
const shares = (delivered, here, out) => [["delivered", delivered], ["carried", here], ["here", out]];

function totals(officers) {
  const [delivered, here, out] = ["delivered", "here", "on_the_way"].map((field) => sum(officers, field));
  return h(
    "div",
    {},
    bar(shares(delivered, here, out)),
    h(
      "ul",
      { class: "legend" },
      h("li", { class: "delivered" }, t("{n} delivered", { n: number(delivered) })),
      h("li", { class: "carried" }, t("{n} arrived, not handed on yet", { n: number(here) })),
      h("li", { class: "here" }, t("{n} on the way", { n: number(out) })),
    ),
  );
}

function list(officers, nowMs) {
  return table(
    t("Officers and what of theirs is delivered"),
    [[t("Officer"), "who"], [t("Delivered"), "wide"], [t("Still out"), ""], [t("Last seen"), "seen"]],
    officers.map((officer) => [who(officer), progress(officer), gaps(officer), seen(officer, nowMs)]),
    { keys: officers.map((officer) => officer.id) },
  );
}

function who(officer) {
  return h(
    "span",
    {},
    h("span", { class: "name" }, officer.name),
    officer.role === "officer" ? null : h("span", { class: "tag" }, officer.role === "gateway" ? t("gateway") : t("office")),
    officer.revoked ? h("span", { class: "tag refused" }, t("revoked")) : null,
    officer.restored ? h("span", { class: "tag here" }, t("restored from a copy")) : null,
  );
}

function progress(officer) {
  if (!officer.recorded) return h("span", { class: "quiet" }, t("nothing known yet"));
  return h(
    "span",
    { class: "progress-cell" },
    h("span", {}, t("{delivered} of {recorded}", { delivered: number(officer.delivered), recorded: number(officer.recorded) })),
    bar(shares(officer.delivered, officer.here, officer.on_the_way), 8),
  );
}

/** The numbers that are missing, as 13, 15–22. */
function which(missing) {
  const named = missing.slice(0, RANGES).map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
  return named.join(", ") + (missing.length > RANGES ? ", …" : "");
}

function gaps(officer) {
  const { here, on_the_way: out, missing, oldest_missing_s: since } = officer;
  if (!here && !out) return h("span", { class: "badge delivered" }, icon("safe", 18), h("span", {}, t("nothing")));
  const numbers = tn("number {which}", "numbers {which}", out, { which: which(missing) });
  return h(
    "span",
    { class: "stack" },
    out ? h("span", { class: "badge here" }, icon("carried", 18), h("span", {}, numbers)) : null,
    here
      ? h("span", { class: "badge carried" }, icon("inbox", 18), h("span", {}, tn("{n} waits here", "{n} wait here", here)))
      : null,
    out && since !== null ? h("span", { class: "quiet" }, t("missing for {time}", { time: duration(since) })) : null,
  );
}

function seen(officer, nowMs) {
  if (officer.last_seen_ms === null) return h("span", { class: "quiet" }, t("never"));
  const ago = Math.max(0, (nowMs - officer.last_seen_ms) / 1000);
  if (ago < NOW_S && !officer.last_seen_via) return h("span", {}, t("just now"));
  const time = ago < 48 * 3600 ? t("{time} ago", { time: duration(ago) }) : when(officer.last_seen_ms);
  const through = officer.last_seen_via ? t("through {name}", { name: officer.last_seen_via }) : "";
  return h("span", { class: "stack" }, h("span", {}, time), through ? h("span", { class: "quiet" }, through) : null);
}
