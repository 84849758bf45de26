// What the office has written to this device.

import { h } from "./dom.js";
import { empty, letterOf, title } from "./parts.js";
import { icon } from "./icons.js";
import { state } from "./state.js";
import { size, t } from "./words.js";

export const name = () => t("From the office");

export function view() {
  return [
    h(
      "div",
      { class: "narrow", "data-key": "received" },
      title(name()),
      state.received.length
        ? h("ul", { class: "letters" }, ...state.received.map(letter))
        : empty(t("The office has written nothing to this device yet."), "inbox"),
    ),
  ];
}

function letter(it) {
  return h(
    "li",
    { "data-key": it.key, class: "card" },
    letterOf(it),
    it.files.length && it.kind !== "answer" ? files(it) : null,
  );
}

function files(it) {
  return [
    h(
      "ul",
      { class: "files" },
      ...it.files.map((file) =>
        h("li", {}, icon("file", 20), h("span", { class: "name" }, file.name), h("span", { class: "quiet" }, size(file.size_bytes))),
      ),
    ),
    h("p", { class: "quiet" }, t("They lie in {folder}", { folder: it.path })),
  ];
}
