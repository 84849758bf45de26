// The page: which view is open, the frame around it, and the language.

import { enter, leave } from "./api.js";
import * as aside from "./aside.js";
import { h, morph } from "./dom.js";
import * as flow from "./flow.js";
import * as home from "./home.js";
import { icon } from "./icons.js";
import * as messages from "./messages.js";
import * as officers from "./officers.js";
import { button, title } from "./parts.js";
import * as received from "./received.js";
import * as send from "./send.js";
import { changed, follow, isDesk, onChange, refollow, state } from "./state.js";
import { choose, speak, spoken, t } from "./words.js";

const near = { name: () => t("In contact now"), view: () => [title(near.name()), home.near()] };

// route: view, icon, what the menu calls it
const OFFICER = {
  "": [home, "home", () => t("Overview")],
  send: [send, "send", () => t("Send")],
  messages: [messages, "list", () => t("Messages")],
  received: [received, "inbox", () => t("From the office")],
};
const DESK = {
  "": [officers, "carried", () => t("Officers")],
  flow: [flow, "chart", () => t("Carrying")],
  aside: [aside, "alarm", () => t("Put aside")],
  near: [near, "near", () => t("In contact")],
  messages: [messages, "list", () => t("Messages")],
};

let opened = null;

const routes = () => (isDesk() ? DESK : OFFICER);

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [route, ...parts] = path.split("/").map(decodeURIComponent);
  return { route: route in routes() ? route : "", parts, query: new URLSearchParams(query) };
}

function render() {
  const app = document.getElementById("app");
  const wanted = h("div", { id: "app" }, ...(state.shut ? gate() : state.status ? frame() : waiting()));
  morph(app, wanted);
  if (state.shut || !state.status) return;
  const at = place();
  const now = `${at.route}/${at.parts.join("/")}`;
  const [view] = routes()[at.route];
  document.title = `${view.name(at.parts)} · ${state.status.device.name} · meshnode`;
  if (opened !== null && opened !== now) {
    scrollTo(0, 0);
    document.querySelector("main h1")?.focus({ preventScroll: true });
  }
  opened = now;
}

function frame() {
  const at = place();
  const [view] = routes()[at.route];
  return [
    h("a", { class: "skip", href: "#main", on: { click: skip } }, t("To the content")),
    header(),
    h("nav", { class: "menu", "aria-label": t("Views"), "data-key": "menu" }, h("ul", {}, ...menu(at.route))),
    h("main", { id: "main", tabindex: "-1", "data-key": `main-${at.route}-${at.parts.join("/")}` }, ...view.view(at.parts, at.query)),
  ];
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function header() {
  const { device } = state.status;
  return h(
    "header",
    { class: "top", "data-key": "top" },
    h("p", { class: "who" }, h("strong", {}, device.name), h("span", { class: "quiet" }, device.fleet)),
    state.live
      ? h("p", { class: "link live" }, h("span", { class: "unseen" }, t("Up to date")))
      : h("p", { class: "link", role: "status" }, t("The node does not answer")),
    languages(),
    button("bare", "close", t("Leave"), out, { class: "bare leave" }),
  );
}

function languages() {
  const one = (code, text) =>
    h(
      "button",
      {
        type: "button",
        lang: code,
        "aria-label": text,
        "aria-pressed": String(spoken() === code),
        on: { click: () => change(code) },
      },
      text.slice(0, 2),
    );
  return h(
    "div",
    { class: "languages", role: "group", "aria-label": t("Language") },
    one("id", "ID Bahasa Indonesia"),
    one("en", "EN English"),
  );
}

async function change(code) {
  await choose(code);
  refollow();
  changed();
}

async function out() {
  await leave();
  state.shut = true;
  refollow();
  changed();
}

function menu(route) {
  return Object.entries(routes()).map(([name, [, picture, text]]) =>
    h(
      "li",
      {},
      h(
        "a",
        { href: `#/${name}`, "aria-current": name === route ? "page" : null },
        icon(picture),
        h("span", {}, text()),
        name === "aside" && count() ? h("span", { class: "dot" }, String(count())) : null,
      ),
    ),
  );
}

const count = () => state.officers?.quarantine.length || 0;

function waiting() {
  return [h("main", { class: "gate", "data-key": "waiting" }, h("h1", {}, "meshnode"), h("p", {}, t("Asking the node")))];
}

function gate() {
  return [
    h(
      "main",
      { class: "gate", "data-key": "gate" },
      h("h1", {}, t("This page is closed")),
      h("p", {}, t("Open it from this machine with:")),
      h("p", {}, h("code", { class: "command" }, "meshnode web")),
      h("p", { class: "quiet" }, t("It stays open for 12 hours, or until the node ends.")),
      languages(),
    ),
  ];
}

async function begin() {
  await speak().catch(() => {});
  onChange(render);
  addEventListener("hashchange", render);
  addEventListener("resize", changed);
  render();
  for (;;) {
    try {
      state.shut = !(await enter());
      break;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
  if (state.shut) render();
  else await follow();
}

begin();
