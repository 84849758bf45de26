// What is known of the node, kept up to date by its events. Views read it; `onChange` is called when it is new.

import { Refused, get, listen } from "./api.js";
import { announce } from "./dom.js";
import { t, tn } from "./words.js";

export const state = {
  status: null,
  messages: new Map(), // by key, in the order of submission
  received: [],
  officers: null,
  live: false, // whether the node is listening to
  shut: false, // whether the session is over
};

const AGAIN_MS = [500, 1000, 2000, 5000];
let tell = () => {};
let listening = null;

/** Be told, at most once for each picture that the browser draws, that something is new. */
export function onChange(callback) {
  let due = false;
  tell = () => {
    if (due) return;
    due = true;
    setTimeout(() => {
      due = false;
      callback();
    }, 30);
  };
}

export const changed = () => tell();

/** Follow the node from now on, and for as long as the page is open. */
export async function follow() {
  for (let failed = 0; !state.shut; failed += 1) {
    listening = new AbortController();
    try {
      await listen((name, data) => {
        failed = 0;
        heard(name, data);
      }, listening.signal);
    } catch (error) {
      if (error instanceof Refused && error.status === 401) state.shut = true;
    }
    state.live = false;
    tell();
    if (listening.signal.aborted) failed = 0;
    else await new Promise((resolve) => setTimeout(resolve, AGAIN_MS[Math.min(failed, AGAIN_MS.length - 1)]));
  }
}

/** Begin anew, as when sentences of the node are wanted in another language. */
export function refollow() {
  listening?.abort();
}

function heard(name, data) {
  if (name === "messages") takeMessages(data);
  else if (name === "status") takeStatus(data);
  else if (name === "peers") state.status.contacts = data;
  else if (name === "officers") state.officers = data;
  else if (name === "ready") state.live = true;
  tell();
}

function takeMessages(rows) {
  const before = state.live ? counts() : null;
  for (const row of rows) state.messages.set(row.key, row);
  if (before === null) return;
  const now = counts();
  if (now.delivered > before.delivered) {
    const n = now.delivered - before.delivered;
    announce(tn("One more message is safe at the office.", "{n} more messages are safe at the office.", n));
  } else if (now.refused > before.refused) {
    announce(t("The registry has refused a message."));
  } else if (now.carried > before.carried) {
    announce(t("A colleague carries a message of yours now."));
  }
}

async function takeStatus(status) {
  const before = state.status;
  state.status = status;
  if (!before || before.received !== status.received) {
    try {
      state.received = (await get("/v1/received")).reverse();
      tell();
    } catch {
      // the stream says what has become of the node
    }
  }
}

/** How many messages are in which state. */
export function counts() {
  const found = { all: 0, delivered: 0, carried: 0, here: 0, refused: 0 };
  for (const row of state.messages.values()) {
    found.all += 1;
    if (row.state === "delivered" || row.state === "accepted") found.delivered += 1;
    else if (row.state === "carried") found.carried += 1;
    else if (row.state === "refused") found.refused += 1;
    else found.here += 1;
  }
  return found;
}

export const isDesk = () => state.status?.device.roles.some((role) => role === "office" || role === "gateway") || false;
