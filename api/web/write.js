import { ApiError, call } from "./api.js";
import { field, h, setTitle } from "./dom.js";
import { go } from "./navigate.js";
import { sourceFields } from "./sources.js";
import { text } from "./text.js";

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function writeView(main, signal) {
  setTitle(text.write);
  const topic = h("textarea", { required: true, minlength: 3, maxlength: 500, dir: "auto" });
  const option = (/** @type {string} */ value, /** @type {string} */ label) => h("option", { value }, label);
  const tone = h("select", {}, option("", text.toneAny), ...text.tones.map((it) => option(it, it)));
  const model = h("select");
  const audience = h("input", { maxlength: 200, dir: "auto" });
  const language = h("input", { maxlength: 35, autocapitalize: "none" });
  const words = h("input", { type: "number", min: 100, max: 3000, inputmode: "numeric" });
  const keywords = h("input", { dir: "auto" });
  const instructions = h("textarea", { maxlength: 2000, dir: "auto" });
  const review = h("input", { type: "checkbox", id: "review" });
  const sources = sourceFields();
  const errors = h("div", { class: "error", role: "alert" });
  const submit = h("button", { class: "main" }, text.writePost);
  const models = field(text.model, model);
  models.hidden = true;
  main.append(
    h("h1", {}, text.topic),
    h(
      "form",
      { onsubmit: ask },
      field(text.topicHint, topic),
      h(
        "details",
        {},
        h("summary", {}, text.options),
        h(
          "div",
          { class: "grid" },
          field(text.tone, tone),
          field(text.words, words),
          field(text.language, language, text.languageHint),
          models,
        ),
        field(text.audience, audience),
        field(text.keywords, keywords),
        field(text.instructions, instructions),
      ),
      sources.element,
      h("p", {}, h("label", { for: "review" }, review, text.review)),
      errors,
      h("p", { class: "row" }, submit),
    ),
  );
  // What is folded away can't be pointed at.
  const unfold = (/** @type {Event} */ event) => {
    if (event.target instanceof Element) event.target.closest("details")?.setAttribute("open", "");
  };
  main.addEventListener("invalid", unfold, { capture: true, signal });
  topic.focus();
  /** @type {any[]} */
  let items = [];
  let key = newKey();
  try {
    const offer = await call("GET", "/models", { signal });
    items = offer.items;
    if (offer.web_search) sources.offerWeb();
    models.hidden = items.length < 2;
    model.append(...items.map((it) => option(it.id, it.id)));
  } catch {
    // The first model will do.
  }

  /** @param {SubmitEvent} event */
  async function ask(event) {
    event.preventDefault();
    submit.disabled = true;
    errors.replaceChildren();
    const list = keywords.value.split(",").map((/** @type {string} */ word) => word.trim());
    const given = {
      tone: tone.value,
      audience: audience.value.trim(),
      language: language.value.trim(),
      words: words.value && Number(words.value),
      keywords: list.some(Boolean) && list.filter(Boolean),
      instructions: instructions.value.trim(),
      model: items.length > 1 && model.value,
      research: sources.searchesWeb() && "web",
    };
    const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value));
    const from = sources.read();
    const body = {
      topic: topic.value,
      options,
      ...(review.checked && { outline: "review" }),
      ...(from.length > 0 && { sources: from }),
    };
    // The same request again has the same key, should its answer have been lost.
    const headers = { "idempotency-key": key };
    try {
      const post = await call("POST", "/blogs", { body, headers });
      go(`/app/posts/${post.id}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const faults = error.errors.map((fault) => h("p", {}, `${fault.field}: ${fault.message}.`));
      errors.append(...(faults.length ? faults : [h("p", {}, error.message)]));
      submit.disabled = false;
      if (error.status >= 400 && error.status < 500) key = newKey();
    }
  }
}

const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16)).join("");
