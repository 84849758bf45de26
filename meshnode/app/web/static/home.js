// What an officer sees first: where everything is.

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { bar, empty, kindOf, letterOf, nameOf, section, stateBadge, title } from "./parts.js";
import { counts, state } from "./state.js";
import { duration, number, size, t, tn, when } from "./words.js";

const LATEST = 5;

export const name = () => t("Where everything is");

export function view() {
  const found = counts();
  return [
    alarms(),
    h("div", { class: "hero", "data-key": "hero" }, title(headline(found)), ...(found.all ? [summary(found)] : first())),
    h("div", { class: "columns", "data-key": "columns" }, latest(), h("div", {}, near(), carrying(), letters())),
  ];
}

function headline(found) {
  const lost = found.here + found.carried;
  if (!found.all) return t("Nothing was sent from this device yet");
  if (!lost && !found.refused) return t("Everything is safe at the office");
  if (!lost) return tn("The registry has refused {n} message", "The registry has refused {n} messages", found.refused);
  if (found.here) {
    return tn("{n} message is only on this device", "{n} messages are only on this device", found.here);
  }
  return tn("{n} message is on its way with colleagues", "{n} messages are on their way with colleagues", lost);
}

function advice(found) {
  if (found.here) {
    return t("Take care of this device until a colleague or the office is near. Then everything goes by itself.");
  }
  if (found.carried) return t("Colleagues carry copies as well. You need to do nothing.");
  if (found.refused) return t("Look at the reason below, correct it, and send it again.");
  return t("The office has signed for each one.");
}

const first = () => [
  h(
    "p",
    { class: "lead" },
    t("What you send is sealed at once and stays on this device until the office has signed for it."),
  ),
  h("div", { class: "pair" }, sendLink()),
];

const sendLink = () => h("a", { class: "main", href: "#/send" }, icon("send", 20), h("span", {}, t("Send to the office")));

function summary(found) {
  const tiles = [
    tile("delivered", "safe", found.delivered, t("safe at the office")),
    tile("carried", "carried", found.carried, t("carried by colleagues")),
    tile("here", "here", found.here, t("only on this device")),
  ];
  if (found.refused) tiles.push(tile("refused", "refused", found.refused, t("refused by the registry")));
  const oldest = state.status.oldest_waiting_s;
  return h(
    "div",
    {},
    h("p", { class: "lead" }, advice(found)),
    bar(["delivered", "carried", "here", "refused"].map((group) => [group, found[group]])),
    h("ul", { class: "tiles" }, ...tiles),
    h(
      "div",
      { class: "pair" },
      sendLink(),
      oldest === null ? null : h("p", { class: "quiet" }, t("The oldest waits for {time}.", { time: duration(oldest) })),
    ),
  );
}

function tile(group, picture, count, text) {
  return h(
    "li",
    { "data-key": group },
    h(
      "a",
      { class: `tile ${group}${count ? "" : " none"}`, href: `#/messages?state=${group}` },
      icon(picture, 28),
      h("span", { class: "count" }, number(count)),
      h("span", { class: "text" }, text),
    ),
  );
}

/** What is wrong and what to do, or nothing. */
export function alarms() {
  const told = state.status.alarms;
  if (!told.length) return null;
  return h(
    "section",
    { class: "alarms", "aria-label": t("What needs attention"), "data-key": "alarms" },
    ...told.map(({ code, text }) =>
      h("div", { class: "alarm", role: "alert", "data-key": `${code} ${text}` }, icon("alarm"), h("p", {}, text)),
    ),
  );
}

function latest() {
  const rows = [...state.messages.values()].slice(-LATEST).reverse();
  if (!rows.length) return section("latest", t("Sent last"), empty(t("Here you will see what became of each one."), "list"));
  return section(
    "latest",
    t("Sent last"),
    h("ul", { class: "rows" }, ...rows.map(messageRow)),
    h("p", {}, h("a", { class: "more", href: "#/messages" }, t("All messages"))),
  );
}

/** One message in a list. */
export function messageRow(row) {
  return h(
    "li",
    { "data-key": row.key },
    h(
      "a",
      { class: "row", href: `#/messages/${encodeURIComponent(row.key)}` },
      h("span", { class: "name" }, nameOf(row)),
      h(
        "span",
        { class: "quiet" },
        [row.to === "office" ? "" : t("to {name}", { name: row.to }), kindOf(row.kind), size(row.size_bytes), when(row.submitted_ms)]
          .filter(Boolean)
          .join(" · "),
      ),
      stateBadge(row),
      row.reason ? h("span", { class: "reason" }, row.reason) : null,
    ),
  );
}

/** Who is in contact now. */
export function near() {
  const contacts = state.status.contacts;
  const people = contacts.map((peer) =>
    h(
      "li",
      { "data-key": peer.id },
      icon(peer.roles.includes("office") ? "office" : "carried"),
      h("span", { class: "name" }, peer.name),
      h("span", { class: "quiet" }, t("in contact for {time}", { time: duration(peer.since_s) })),
    ),
  );
  return section(
    "near",
    t("In contact now"),
    contacts.length
      ? h("ul", { class: "people" }, ...people)
      : empty(t("Nobody is near. Messages wait here; you need to do nothing."), "near"),
    uplink(),
  );
}

function uplink() {
  const { uplink: reached, uplink_problem: problem } = state.status;
  if (reached) return h("p", { class: "good" }, icon("office", 20), h("span", {}, t("The office is reached from here.")));
  return problem ? h("p", { class: "quiet" }, problem.text) : null;
}

function carrying() {
  const { bundles, bytes, sources } = state.status.carrying;
  if (!bundles) return null;
  const from = tn("of {n} colleague", "of {n} colleagues", sources);
  const what = tn("{n} bundle", "{n} bundles", bundles);
  return section(
    "carrying",
    t("Carried here for others"),
    h("p", {}, t("{what} {from}, {size}, sealed.", { what, from, size: size(bytes) })),
  );
}

function letters() {
  if (!state.received.length) return null;
  return section(
    "letters",
    t("From the office"),
    h(
      "ul",
      { class: "rows" },
      ...state.received.slice(0, 3).map((letter) => h("li", { "data-key": letter.key, class: "note" }, letterOf(letter))),
    ),
    h("p", {}, h("a", { class: "more", href: "#/received" }, t("All from the office"))),
  );
}
