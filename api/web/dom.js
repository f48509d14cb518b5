import { text } from "./text.js";

/**
 * Makes an element. Attributes whose names begin with `on` are listeners; false, null and undefined
 * are left out.
 * @param {string} name
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value") /** @type {any} */ (element).value = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== false && child != null).map(asNode));
  return element;
}

/** @param {any} child */
const asNode = (child) => (child instanceof Node ? child : document.createTextNode(child));

let fields = 0;

/**
 * A control with its label, and a hint below it.
 * @param {string} label
 * @param {HTMLElement} control
 * @param {string} [hint]
 */
export function field(label, control, hint) {
  control.id = `field-${fields++}`;
  const note = hint && h("div", { class: "soft", id: `${control.id}-hint` }, hint);
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, note);
}

/**
 * Shows a message for some seconds, perhaps with a button.
 * @param {string} message
 * @param {{ label: string, act: () => void }} [action]
 * @returns {() => void} takes it away
 */
export function notify(message, action) {
  const close = () => shown.remove();
  const act = () => {
    close();
    action?.act();
  };
  const button = action && h("button", { class: "plain", onclick: act }, action.label);
  const shown = h("div", {}, message, button);
  document.getElementById("messages")?.append(shown);
  setTimeout(close, action ? 8000 : 4000);
  return close;
}

/** @param {string} value an RFC 3339 time */
export const date = (value) => new Date(value).toLocaleDateString(undefined, { dateStyle: "medium" });

/** @param {string} [title] */
export function setTitle(title) {
  document.title = title ? `${title} – ${text.title}` : text.title;
}
