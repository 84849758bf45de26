// Handing over a message: files from a folder, dropped ones, or the camera, and what to call it.

import { Refused, submit } from "./api.js";
import { announce, h } from "./dom.js";
import { icon } from "./icons.js";
import { button, title } from "./parts.js";
import { changed } from "./state.js";
import { size, t, tn } from "./words.js";

export const name = () => t("Send to the office");

const form = { files: [], sending: null, progress: 0, done: null, refusal: "", over: false };

/** What a person has put in and not sent is kept while the page is open. */
export function view() {
  return [
    h("div", { class: "narrow", "data-key": "send" }, title(name()), h("p", { class: "lead" }, lead()), body()),
  ];
}

const lead = () => t("All files together are one message. It is sealed at once: nobody but the office can read it.");

function body() {
  return h(
    "form",
    { class: "form", on: { submit: send }, autocomplete: "off" },
    picker(),
    chosen(),
    h(
      "div",
      { class: "field" },
      h("label", { for: "kind" }, t("Kind")),
      h("input", { id: "kind", name: "kind", list: "kinds", value: "ktp-el", maxlength: 64 }),
      h("datalist", { id: "kinds" }, h("option", { value: "ktp-el" }), h("option", { value: "kk" }), h("option", { value: "akta" })),
    ),
    h(
      "div",
      { class: "field" },
      h("label", { for: "reference" }, t("What you call it")),
      h("input", { id: "reference", name: "reference", maxlength: 200, "aria-describedby": "reference-hint" }),
      h("p", { id: "reference-hint", class: "quiet" }, t("You and the office see this; colleagues who carry it do not.")),
    ),
    h(
      "div",
      { class: "field" },
      h("label", { for: "note" }, t("Note to the office")),
      h("textarea", { id: "note", name: "note", rows: 2, maxlength: 2000 }),
    ),
    h(
      "div",
      { class: "check" },
      h("input", { id: "urgent", name: "urgent", type: "checkbox" }),
      h("label", { for: "urgent" }, t("Urgent: before all others")),
    ),
    outcome(),
    h(
      "button",
      { class: "main", type: "submit", disabled: form.sending !== null, "data-key": "go" },
      icon("send", 20),
      h("span", {}, form.sending ? t("Sealing and storing") : t("Send")),
    ),
  );
}

function picker() {
  const drag = (over) => (event) => {
    event.preventDefault();
    if (form.over !== over) {
      form.over = over;
      changed();
    }
  };
  return h(
    "div",
    {
      class: `drop${form.over ? " over" : ""}`,
      "data-key": "drop",
      on: {
        dragover: drag(true),
        dragleave: drag(false),
        drop(event) {
          event.preventDefault();
          form.over = false;
          add(event.dataTransfer.files);
        },
      },
    },
    h("p", { class: "hint" }, t("Drop files here, or")),
    h(
      "div",
      { class: "pair" },
      chooser("files", "file", t("Choose files"), { multiple: true }),
      chooser("camera", "camera", t("Take a photo"), { accept: "image/*", capture: "environment" }),
    ),
  );
}

function chooser(id, picture, text, more) {
  const change = (event) => {
    add(event.target.files);
    event.target.value = "";
  };
  return h(
    "div",
    { class: "chooser" },
    h("input", { id, type: "file", ...more, on: { change } }),
    h("label", { for: id, class: "second" }, icon(picture, 20), h("span", {}, text)),
  );
}

function chosen() {
  if (!form.files.length) return h("p", { class: "quiet", "data-key": "none" }, t("No file is chosen yet."));
  const all = form.files.reduce((sum, { file }) => sum + file.size, 0);
  return h(
    "div",
    { "data-key": "chosen" },
    h("p", { class: "quiet" }, `${tn("{n} file", "{n} files", form.files.length)} · ${size(all)}`),
    h(
      "ul",
      { class: "files" },
      ...form.files.map((item) =>
        h(
          "li",
          { "data-key": item.name },
          icon("file", 20),
          h("span", { class: "name" }, item.name),
          h("span", { class: "quiet" }, size(item.file.size)),
          h(
            "button",
            { type: "button", class: "bare", "aria-label": t("Leave out {name}", { name: item.name }), on: { click: () => drop(item) } },
            icon("close", 20),
          ),
        ),
      ),
    ),
  );
}

function add(list) {
  for (const file of list) form.files.push({ name: free(file.name), file });
  form.done = null;
  form.refusal = "";
  announce(tn("{n} file", "{n} files", form.files.length));
  changed();
}

/** A camera calls all its pictures alike; within a message names differ. */
function free(wanted) {
  const taken = new Set(form.files.map((item) => item.name.toLowerCase()));
  const dot = wanted.lastIndexOf(".") > 0 ? wanted.lastIndexOf(".") : wanted.length;
  let found = wanted;
  for (let n = 2; taken.has(found.toLowerCase()); n += 1) found = `${wanted.slice(0, dot)}-${n}${wanted.slice(dot)}`;
  return found;
}

function drop(item) {
  form.files = form.files.filter((other) => other !== item);
  changed();
  document.getElementById("files")?.focus();
}

function outcome() {
  if (form.sending) {
    const text = t("{percent} % is stored", { percent: Math.round(100 * form.progress) });
    return h(
      "div",
      { class: "progress", "data-key": "outcome" },
      h("label", { for: "progress" }, text),
      h("progress", { id: "progress", max: 1, value: form.progress }),
    );
  }
  if (form.refusal) {
    return h("div", { class: "alarm", role: "alert", "data-key": "outcome" }, icon("alarm"), h("p", {}, form.refusal));
  }
  if (form.done) {
    return h(
      "div",
      { class: "done", role: "status", "data-key": "outcome" },
      icon("here"),
      h(
        "p",
        {},
        `${t("Sealed and safe on this device.")} `,
        h("a", { href: `#/messages/${encodeURIComponent(form.done)}` }, t("See where it is")),
      ),
    );
  }
  return null;
}

async function send(event) {
  event.preventDefault();
  const fields = event.target.elements;
  const note = fields.note.value.trim();
  const described = {
    kind: fields.kind.value.trim(),
    reference: fields.reference.value.trim(),
    meta: note ? { note } : {},
    priority: fields.urgent.checked ? "urgent" : "routine",
  };
  form.done = null;
  form.refusal = form.files.length ? "" : t("Choose at least one file, or take a photo.");
  if (form.refusal) {
    changed();
    document.getElementById("files").focus();
    return;
  }
  // What is added while this is on its way belongs to the next message.
  const sent = form.files;
  form.files = [];
  for (const field of ["reference", "note"]) fields[field].value = "";
  fields.urgent.checked = false;
  form.progress = 0;
  form.sending = true;
  changed();
  try {
    const taken = await submit(described, sent, (share) => {
      form.progress = share;
      changed();
    });
    form.done = taken.key;
  } catch (error) {
    form.files = [...sent, ...form.files];
    const empty = ["reference", "note"].every((field) => !fields[field].value);
    if (empty) {
      fields.reference.value = described.reference;
      fields.note.value = note;
      fields.urgent.checked = described.priority === "urgent";
    }
    form.refusal =
      error instanceof Refused
        ? error.message
        : t("The node does not answer, or a file has changed. Look under Messages whether it was taken, before you send it again.");
  }
  form.sending = null;
  changed();
}
