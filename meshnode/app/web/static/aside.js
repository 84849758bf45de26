// What could not be handed on, and what the registry has refused.

import { Refused, post, save } from "./api.js";
import { announce, h } from "./dom.js";
import { icon } from "./icons.js";
import { button, empty, section, title } from "./parts.js";
import { changed, state } from "./state.js";
import { t, when } from "./words.js";

export const name = () => t("Put aside");

const tries = new Map(); // key: "now" while it is tried, else the sentence that came of it

export function view() {
  const told = state.officers;
  if (!told) return [title(name()), h("p", { class: "quiet" }, t("Asking the node"))];
  return [
    title(name()),
    section(
      "kept",
      t("Kept apart here"),
      told.quarantine.length
        ? h("ul", { class: "letters" }, ...told.quarantine.map(kept))
        : empty(t("Everything that arrived was handed on."), "safe"),
    ),
    section(
      "refused",
      t("Refused by the registry"),
      told.refused.length
        ? h("ul", { class: "letters" }, ...told.refused.map(refused))
        : empty(t("The registry has refused nothing."), "safe"),
    ),
    h(
      "p",
      { class: "pair", "data-key": "save" },
      button("second", "save", t("Save all messages as a table (CSV)"), () => save("/v1/messages.csv", "messages.csv")),
    ),
  ];
}

function kept(it) {
  const tried = tries.get(it.key);
  return h(
    "li",
    { class: "card", "data-key": it.key },
    h("p", { class: "name" }, t("From {name}", { name: it.source })),
    h("p", { class: "reason" }, it.reason),
    h("p", { class: "quiet" }, it.since_ms ? `${when(it.since_ms)} · ` : "", h("code", {}, it.key)),
    it.can_retry
      ? button("second", "again", tried === "now" ? t("Trying") : t("Try again"), () => retry(it), { disabled: tried === "now" })
      : null,
    tried && tried !== "now" ? h("p", {}, tried) : null,
  );
}

async function retry(it) {
  tries.set(it.key, "now");
  changed();
  let said;
  try {
    const { state: became } = await post("/v1/quarantine/retry", { key: it.key });
    if (became === "delivered") said = t("It was handed on now.");
    else if (became === "quarantined") said = t("It was not taken this time either.");
    else said = t("It is being tried; it is not known yet what comes of it.");
  } catch (error) {
    said = error instanceof Refused ? error.message : t("The node does not answer.");
  }
  tries.set(it.key, said);
  announce(said);
  changed();
}

function refused(it) {
  return h(
    "li",
    { class: "card", "data-key": it.key },
    h("p", { class: "name" }, icon("refused", 20), " ", t("From {name}", { name: it.source })),
    it.reason ? h("p", { class: "reason" }, it.reason) : null,
    h("p", { class: "quiet" }, `${when(it.at_ms)} · `, h("code", {}, it.key)),
  );
}
