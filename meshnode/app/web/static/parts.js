// Pieces that several views are made of.

import { h, s } from "./dom.js";
import { icon } from "./icons.js";
import { state } from "./state.js";
import { t, tn, when } from "./words.js";

/** How each state of a message looks and reads; `group` is the filter that finds it. */
export const STATES = {
  on_this_device_only: { group: "here", icon: "here", says: () => t("only on this device") },
  carried: {
    group: "carried",
    icon: "carried",
    says: (row) => tn("carried by {n} colleague", "carried by {n} colleagues", row.copies),
  },
  delivered: { group: "delivered", icon: "safe", says: () => t("safe at the office") },
  accepted: { group: "delivered", icon: "accepted", says: () => t("accepted by the registry") },
  refused: { group: "refused", icon: "refused", says: () => t("refused by the registry") },
};

/** The state of a message: an icon and words. */
export function stateBadge(row) {
  const look = STATES[row.state];
  return h("span", { class: `badge ${look.group}` }, icon(look.icon, 18), h("span", {}, look.says(row)));
}

/** What a person calls a message. */
export const nameOf = (row) => row.reference || t("Without a name");

/** What a kind is called; those that are free stand as they are. */
export const kindOf = (kind) => (kind === "ktp-el" ? "KTP-el" : kind);

/** A heading that a view begins with; it takes the focus when the view opens. */
export const title = (text) => h("h1", { tabindex: "-1" }, text);

/** A section of a view, named by its heading. */
export function section(id, heading, ...children) {
  return h(
    "section",
    { class: "part", "aria-labelledby": id, "data-key": id },
    h("h2", { id }, heading),
    ...children,
  );
}

/** What the office wrote, in few words: its text, or what became of which message. */
export function letterOf(letter) {
  const verdict = letter.kind === "answer" ? STATES[letter.meta.verdict] : null;
  const time = h("p", { class: "quiet" }, when(letter.received_ms));
  if (!verdict) return [h("p", { class: "letter" }, letter.text || letter.reference || kindOf(letter.kind)), time];
  const about = letter.meta.about;
  return [
    h("p", { class: "name" }, h("a", { href: `#/messages/${encodeURIComponent(about)}` }, state.messages.get(about)?.reference || about)),
    h("p", {}, h("span", { class: `badge ${verdict.group}` }, icon(verdict.icon, 18), h("span", {}, verdict.says()))),
    letter.meta.reason ? h("p", { class: "reason" }, letter.meta.reason) : null,
    time,
  ];
}

export const empty = (text, name = "clock") => h("p", { class: "empty" }, icon(name), h("span", {}, text));

/** A bar of parts [class, count], as wide as its place. Readers get the words beside it. */
export function bar(parts, height = 12) {
  const all = parts.reduce((sum, [, count]) => sum + count, 0) || 1;
  let at = 0;
  const pieces = parts
    .filter(([, count]) => count > 0)
    .map(([name, count]) => {
      const piece = s("rect", {
        class: name,
        x: `${(100 * at) / all}%`,
        y: 0,
        width: `${(100 * count) / all}%`,
        height,
      });
      at += count;
      return piece;
    });
  return s("svg", { class: "bar", width: "100%", height, "aria-hidden": "true" }, ...pieces);
}

/** A table: heads [text, class], rows of cells. On a narrow screen each row becomes a card, and heads stand in it. */
export function table(caption, heads, rows, { cards = true, keys = [] } = {}) {
  return h(
    "div",
    { class: "scroll", role: "region", tabindex: "0", "aria-label": caption },
    h(
      "table",
      { class: cards ? "cards" : "plain" },
      h("caption", { class: "unseen" }, caption),
      h(
        "thead",
        {},
        h("tr", {}, ...heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text))),
      ),
      h(
        "tbody",
        {},
        ...rows.map((cells, at) =>
          h(
            "tr",
            { "data-key": keys[at] },
            ...cells.map((cell, column) =>
              h(
                column ? "td" : "th",
                { class: heads[column][1], scope: column ? null : "row", "data-head": heads[column][0] },
                cell,
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

export const button = (look, name, text, click, more = {}) =>
  h("button", { type: "button", class: look, on: { click }, ...more }, icon(name, 20), h("span", {}, text));
