// Talking to the node. A session has two halves: the cookie, which this script cannot see, and the key, which is kept
// here and sent in a header; see `session.py`.

import { spoken } from "./words.js";

const STORED = "meshnode-key";

/** The node said no: `message` is its sentence, `code` what a program may look at. */
export class Refused extends Error {
  constructor(status, answer) {
    super(answer?.error || `HTTP ${status}`);
    this.status = status;
    this.code = answer?.code || "";
  }
}

function headers(more = {}) {
  return {
    "Meshnode-Key": localStorage.getItem(STORED) || "",
    "Meshnode-Language": spoken(),
    ...more,
  };
}

/** A request to the node. Throws Refused, or TypeError when there is no answer. */
export async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(options.headers), cache: "no-store" });
  if (answer.ok) return answer;
  throw new Refused(answer.status, await answer.json().catch(() => null));
}

export const get = async (path) => (await ask(path)).json();

export const post = async (path, value) =>
  (await ask(path, { method: "POST", body: JSON.stringify(value) })).json().catch(() => ({}));

/** Whether this browser may ask for anything; a new session's key is fetched first. */
export async function enter() {
  try {
    if (localStorage.getItem(STORED)) {
      await ask("/v1/status");
      return true;
    }
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) throw error;
  }
  try {
    localStorage.setItem(STORED, (await post("/web/key", {})).key);
    return true;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return false;
    throw error;
  }
}

export async function leave() {
  await ask("/web/leave", { method: "POST" });
  localStorage.removeItem(STORED);
}

/** Save what the node answers as a file. */
export async function save(path, name) {
  const address = URL.createObjectURL(await (await ask(path)).blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Hand over one message: 4 bytes of length, its description, its files. `progress` is told 0 to 1. */
export function submit(described, files, progress) {
  const description = new TextEncoder().encode(
    JSON.stringify({
      ...described,
      files: files.map(({ name, file }) => ({ name, size_bytes: file.size, type: file.type })),
    }),
  );
  const length = new DataView(new ArrayBuffer(4));
  length.setUint32(0, description.length);
  const body = new Blob([length, description, ...files.map(({ file }) => file)]);
  // fetch does not say how much has gone out
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => progress(event.total ? event.loaded / event.total : 1);
    request.onerror = () => reject(new TypeError());
    request.onload = () => {
      let answer = null;
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        // what is no JSON has no sentence either
      }
      if (request.status === 201) resolve(answer);
      else reject(new Refused(request.status, answer));
    };
    request.open("POST", "/v1/messages");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.send(body);
  });
}

/** Server-sent events, with the key in a header, which EventSource cannot send. Ends when the node ends them. */
export async function listen(heard, signal) {
  const answer = await ask("/v1/events", { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const text of events) {
      const lines = text.split("\n");
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
      if (name && data) heard(name, JSON.parse(data));
    }
  }
}
