// Elements from functions, and a page that changes in place: a view makes a new tree each time, and `morph` carries
// over what differs. So what has the focus keeps it, and what a person has typed stays.

const SVG = "http://www.w3.org/2000/svg";
const WITH_OWN_STATE = new Set(["DETAILS:open", "INPUT:value", "INPUT:checked"]);

function make(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") element.handlers = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const type of Object.keys(element.handlers || {})) element.addEventListener(type, handle);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function handle(event) {
  this.handlers?.[event.type]?.call(this, event);
}

/** An element: h("a", {href, class, on: {click}}, children...). */
export function h(tag, props, ...children) {
  return make(document.createElement(tag), props, children);
}

/** The same in SVG. */
export function s(tag, props, ...children) {
  return make(document.createElementNS(SVG, tag), props, children);
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
const isAlike = (one, other) => one.nodeName === other.nodeName && keyOf(one) === keyOf(other);

/** Make `target` look like `source`, which is used up. */
export function morph(target, source) {
  if (target.nodeType !== Node.ELEMENT_NODE) {
    if (target.nodeValue !== source.nodeValue) target.nodeValue = source.nodeValue;
    return;
  }
  for (const { name } of [...target.attributes]) {
    if (!source.hasAttribute(name) && !WITH_OWN_STATE.has(`${target.nodeName}:${name}`)) target.removeAttribute(name);
  }
  for (const { name, value } of [...source.attributes]) {
    if (target.getAttribute(name) !== value) target.setAttribute(name, value);
  }
  for (const type of Object.keys(source.handlers || {})) {
    if (!target.handlers?.[type]) target.addEventListener(type, handle);
  }
  target.handlers = source.handlers;
  morphChildren(target, source);
}

function morphChildren(target, source) {
  const keyed = new Map();
  for (const child of target.childNodes) if (keyOf(child) !== null) keyed.set(keyOf(child), child);
  let at = target.firstChild;
  for (const wanted of [...source.childNodes]) {
    let found = keyOf(wanted) === null ? at : keyed.get(keyOf(wanted));
    if (!found || !isAlike(found, wanted)) found = null;
    if (found === null) {
      target.insertBefore(wanted, at);
    } else {
      if (found === at) at = at.nextSibling;
      else target.insertBefore(found, at);
      morph(found, wanted);
    }
  }
  while (at !== null) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** Say something to those who do not see the page. */
export function announce(text) {
  const place = document.getElementById("said");
  place.textContent = "";
  requestAnimationFrame(() => (place.textContent = text));
}
