import { ApiError, call, send } from "./api.js";
import { field, h, notify } from "./dom.js";
import { text } from "./text.js";

/**
 * Lets the outline of a post be changed and approved.
 * @param {HTMLElement} place
 * @param {string} post
 * @param {AbortSignal} signal
 */
export async function reviewOutline(place, post, signal) {
  const path = `/blogs/${post}/outline`;
  let outline = await call("GET", path, { signal });
  const title = h("input", { value: outline.title, maxlength: 200, required: true, dir: "auto" });
  const list = h("ol", { class: "outline" });
  list.append(...outline.sections.map(item));
  const submit = h("button", { class: "main" }, text.approve);
  place.replaceChildren(
    h("h1", {}, text.outline),
    h("p", { class: "soft" }, text.outlineHint),
    h(
      "form",
      { onsubmit: approve },
      field(text.postTitle, title),
      list,
      h("p", {}, h("button", { type: "button", onclick: add }, text.addSection)),
      h("p", { class: "row" }, submit),
    ),
  );

  /** @param {{ heading: string, about: string }} section */
  function item({ heading, about }) {
    const name = h("input", { value: heading, maxlength: 200, required: true, dir: "auto" });
    name.setAttribute("aria-label", text.heading);
    const notes = h("textarea", { value: about, maxlength: 1000, dir: "auto" });
    notes.setAttribute("aria-label", text.about);
    notes.placeholder = text.about;
    const button = (/** @type {string} */ label, /** @type {() => void} */ act) =>
      h("button", { type: "button", class: "plain", onclick: act }, label);
    const entry = h(
      "li",
      {},
      name,
      notes,
      h(
        "div",
        { class: "row" },
        button(text.up, () => entry.previousElementSibling?.before(entry)),
        button(text.down, () => entry.nextElementSibling?.after(entry)),
        button(text.remove, () => list.children.length > 1 && entry.remove()),
      ),
    );
    return entry;
  }

  function add() {
    if (list.children.length >= 20) return;
    const entry = item({ heading: "", about: "" });
    list.append(entry);
    entry.querySelector("input")?.focus();
  }

  /** @param {SubmitEvent} event */
  async function approve(event) {
    event.preventDefault();
    submit.disabled = true;
    const entries = [...list.children].map((entry) => ({
      heading: /** @type {HTMLInputElement} */ (entry.querySelector("input")).value,
      about: /** @type {HTMLTextAreaElement} */ (entry.querySelector("textarea")).value,
    }));
    try {
      const body = { title: title.value, sections: entries };
      const headers = { "if-match": `"${outline.version}"` };
      outline = await call("PUT", path, { body, headers });
      await send("POST", `${path}/approve`, { headers: { "if-match": `"${outline.version}"` } });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notify(error.errors.map((fault) => `${fault.field} ${fault.message}`).join(". ") || error.message);
      if (error.code === "version_conflict") return reviewOutline(place, post, signal);
      submit.disabled = false;
    }
  }
}
