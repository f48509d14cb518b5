import { ApiError, call, pause, send } from "./api.js";
import { field, h, notify } from "./dom.js";
import { text } from "./text.js";
import { difference } from "./versions.js";

/** Timeouts and limits pass. */
const RETRYABLE = new Set([408, 425, 429]);

/**
 * An editor of a post, which saves by itself.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {any} post
 * @param {(post: any) => void} onDone
 */
export function editPost(main, signal, post, onDone) {
  const path = `/blogs/${post.id}`;
  const draft = `draft-${post.id}`;
  const title = h("input", { value: post.title ?? "", maxlength: 200, dir: "auto" });
  const content = h("textarea", { value: post.content, class: "content", dir: "auto" });
  const state = h("span", { class: "soft", role: "status" }, text.saved);
  const conflict = h("div");
  const done = h("button", { class: "main", onclick: finish }, text.done);
  const preview = h("button", { "aria-pressed": "false", onclick: turn }, text.preview);
  const shown = h("article", { class: "post", dir: "auto", hidden: true });
  const fields = h("div", {}, field(text.postTitle, title), field(text.content, content));
  main.replaceChildren(
    h("h1", { class: "unseen" }, text.edit),
    h("div", { class: "status row" }, done, preview, state),
    conflict,
    shown,
    fields,
  );
  content.focus();
  let timer = 0;
  /** @type {Promise<void> | null} */
  let saving = null;
  let isChanged = false;
  restoreDraft();
  for (const input of [title, content]) {
    input.addEventListener("input", () => {
      isChanged = true;
      keepDraft();
      clearTimeout(timer);
      timer = setTimeout(save, 1000);
    });
  }
  const warn = (/** @type {Event} */ event) => (isChanged || saving) && event.preventDefault();
  addEventListener("beforeunload", warn, { signal });
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    if (isChanged) save();
  });

  /** What is not saved yet survives a reload of this tab. */
  function keepDraft() {
    try {
      sessionStorage.setItem(draft, JSON.stringify([title.value, content.value]));
    } catch {
      // There may be no room; the text is in the editor still.
    }
  }

  function restoreDraft() {
    const kept = sessionStorage.getItem(draft);
    if (!kept) return;
    [title.value, content.value] = JSON.parse(kept);
    isChanged = true;
    save();
  }

  /**
   * Saves what there is, and again if that has changed meanwhile: never two at once, and not before a
   * conflict is settled.
   */
  async function save() {
    if (conflict.hasChildNodes()) return;
    saving ??= saveOnce().finally(() => (saving = null));
    await saving;
  }

  async function saveOnce() {
    while (isChanged) {
      isChanged = false;
      state.textContent = text.saving;
      const body = { content: content.value, ...(title.value.trim() && { title: title.value }) };
      try {
        post = await call("PUT", path, { body, headers: { "if-match": `"${post.version}"` } });
        if (!isChanged) sessionStorage.removeItem(draft);
        state.textContent = text.saved;
      } catch (error) {
        isChanged = true;
        if (error instanceof ApiError && error.code === "version_conflict") {
          // If that fails, the next save comes here again.
          return await showConflict().catch(() => void (state.textContent = text.notSaved));
        }
        const isLasting =
          error instanceof ApiError && error.status >= 400 && error.status < 500 && !RETRYABLE.has(error.status);
        state.textContent = isLasting ? error.errors[0]?.message ?? error.message : text.notSaved;
        // Who has left finds the draft when they come back.
        if (isLasting || signal.aborted) return;
        await pause(2000);
      }
    }
  }

  async function showConflict() {
    if (signal.aborted) return;
    const other = await call("GET", path);
    // The answer to an earlier save was lost.
    if (other.content === content.value && other.title === title.value.trim()) {
      post = other;
      isChanged = false;
      sessionStorage.removeItem(draft);
      state.textContent = text.saved;
      return;
    }
    const changes = difference(post.id, post.version, other.version, signal);
    state.textContent = "";
    const settle = (/** @type {boolean} */ takeOther) => () => {
      post = other;
      conflict.replaceChildren();
      if (takeOther) [title.value, content.value] = [other.title ?? "", other.content];
      isChanged = !takeOther;
      if (takeOther) sessionStorage.removeItem(draft);
      state.textContent = text.saved;
      save();
    };
    conflict.replaceChildren(
      h("p", { role: "alert" }, text.conflict),
      // The version from which this text started may be kept no more.
      await changes.catch(() => h("div", { class: "live", dir: "auto" }, other.content)),
      h(
        "p",
        { class: "row" },
        h("button", { onclick: settle(false) }, text.keepMine),
        h("button", { onclick: settle(true) }, text.takeOther),
      ),
    );
  }

  /** Turns from the text to what it will look like, and back. */
  async function turn() {
    const isShown = preview.getAttribute("aria-pressed") === "true";
    if (!isShown) {
      clearTimeout(timer);
      await save();
      try {
        shown.replaceChildren(...(await rendered(post.id, signal)));
      } catch (error) {
        return notify(/** @type {Error} */ (error).message);
      }
    }
    preview.setAttribute("aria-pressed", String(!isShown));
    shown.hidden = isShown;
    fields.hidden = !isShown;
  }

  async function finish() {
    clearTimeout(timer);
    await save();
    if (!isChanged && !signal.aborted) onDone(post);
  }
}

/**
 * A post's content as the API renders it.
 * @param {string} post
 * @param {AbortSignal} signal
 */
export async function rendered(post, signal) {
  const answer = await send("GET", `/blogs/${post}`, { headers: { accept: "text/html" }, signal });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return [...page.body.childNodes];
}
