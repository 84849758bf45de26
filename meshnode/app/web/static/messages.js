// All messages of this device, and the story of one.

import { Refused, get } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { messageRow } from "./home.js";
import { STATES, empty, kindOf, nameOf, section, stateBadge, title } from "./parts.js";
import { changed, counts, state } from "./state.js";
import { number, size, t, tn, when } from "./words.js";

const SHOWN = 50;
const look = { text: "", shown: SHOWN };
const stories = { key: "", told: null, problem: "", asked: "" };

export const name = (parts) => (parts[0] ? nameOf(state.messages.get(parts[0]) || {}) : t("My messages"));

export function view(parts, query) {
  return parts[0] ? one(parts[0]) : list(query.get("state") || "all");
}

// --- the list ---

function list(group) {
  const found = counts();
  const rows = [...state.messages.values()].reverse().filter((row) => isMeant(row, group));
  return [
    title(t("My messages")),
    h("div", { role: "search", class: "finder", "data-key": "finder" }, search(), filters(group, found)),
    h(
      "p",
      { class: "quiet", role: "status", "data-key": "count" },
      tn("{n} message", "{n} messages", rows.length),
    ),
    rows.length
      ? h("ul", { class: "rows wide", "data-key": "rows" }, ...rows.slice(0, look.shown).map(messageRow))
      : empty(found.all ? t("None is like that.") : t("Nothing was sent from this device yet"), "search"),
    rows.length > look.shown
      ? h("button", { type: "button", class: "second", "data-key": "more", on: { click: more } }, t("Show more"))
      : null,
  ];
}

function isMeant(row, group) {
  if (group !== "all" && STATES[row.state].group !== group) return false;
  const text = `${row.reference} ${row.kind} ${row.to} ${row.key} ${row.reason}`.toLowerCase();
  return look.text.split(" ").every((word) => text.includes(word));
}

function search() {
  const input = (event) => {
    look.text = event.target.value.trim().toLowerCase();
    look.shown = SHOWN;
    changed();
  };
  return h(
    "div",
    { class: "field search" },
    h("label", { for: "search" }, t("Search")),
    h("input", { id: "search", type: "search", on: { input }, autocomplete: "off" }),
  );
}

function filters(group, found) {
  const kinds = [
    ["all", t("All")],
    ["here", t("only on this device")],
    ["carried", t("carried by colleagues")],
    ["delivered", t("safe at the office")],
    ["refused", t("refused by the registry")],
  ];
  return h(
    "nav",
    { "aria-label": t("Show only") },
    h(
      "ul",
      { class: "filters" },
      ...kinds.map(([kind, text]) =>
        h(
          "li",
          {},
          h(
            "a",
            { href: `#/messages?state=${kind}`, "aria-current": kind === group ? "true" : null },
            `${text} `,
            h("span", { class: "count" }, number(found[kind])),
          ),
        ),
      ),
    ),
  );
}

function more() {
  look.shown += SHOWN;
  changed();
}

// --- one of them ---

function one(key) {
  const row = state.messages.get(key);
  if (!row) return [back(), title(t("There is no such message")), h("p", {}, key)];
  ask(row);
  const told = stories.key === key ? stories.told : null;
  return [
    back(),
    h(
      "div",
      { class: "narrow", "data-key": key },
      title(nameOf(row)),
      h("p", { class: "state" }, stateBadge(row)),
      row.reason ? h("p", { class: "reason" }, row.reason) : null,
      told?.now ? h("p", { class: "lead" }, told.now) : null,
      facts(row, told),
      section("story", t("What has happened"), story(told)),
    ),
  ];
}

const back = () =>
  h("p", { class: "back", "data-key": "back" }, h("a", { href: "#/messages" }, icon("back", 20), h("span", {}, t("My messages"))));

function facts(row, told) {
  const pairs = [
    [t("Sent"), when(row.submitted_ms)],
    [t("To"), row.to === "office" ? t("the office") : row.to],
    [t("Kind"), kindOf(row.kind)],
    [t("Size"), told ? `${size(row.size_bytes)} · ${tn("{n} bundle", "{n} bundles", told.bundles)}` : size(row.size_bytes)],
    [t("Key"), h("code", {}, row.key)],
  ];
  return h(
    "dl",
    { class: "facts" },
    ...pairs.filter(([, value]) => value).map(([head, value]) => h("div", {}, h("dt", {}, head), h("dd", {}, value))),
  );
}

function story(told) {
  if (stories.problem) return h("p", { class: "quiet" }, stories.problem);
  if (!told) return h("p", { class: "quiet" }, t("Asking the node"));
  return h(
    "ol",
    { class: "story" },
    ...told.story.map((step) =>
      h(
        "li",
        { class: step.code },
        h("p", {}, step.text),
        step.at_ms ? h("time", { class: "quiet", datetime: new Date(step.at_ms).toISOString() }, when(step.at_ms)) : null,
      ),
    ),
  );
}

/** The story, asked for again when the message has moved. */
async function ask(row) {
  const asked = `${row.key} ${row.state} ${row.copies} ${document.documentElement.lang}`;
  if (stories.asked === asked) return;
  stories.asked = asked;
  if (stories.key !== row.key) Object.assign(stories, { key: row.key, told: null });
  let told = null;
  let problem = "";
  try {
    told = await get(`/v1/messages/${encodeURIComponent(row.key)}`);
  } catch (error) {
    problem = error instanceof Refused ? error.message : t("The node does not answer.");
  }
  if (stories.asked !== asked) return;
  Object.assign(stories, { told, problem });
  changed();
}
