import { ApiError, call } from "./api.js";
import { field, h } from "./dom.js";
import { text } from "./text.js";

/**
 * An editor of a post, which saves by itself.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {any} post
 * @param {(post: any) => void} onDone
 */
export function editPost(main, signal, post, onDone) {
  const path = `/blogs/${post.id}`;
  const title = h("input", { value: post.title ?? "", maxlength: 200, dir: "auto" });
  const content = h("textarea", { value: post.content, class: "content", dir: "auto" });
  const state = h("span", { class: "soft", role: "status" }, text.saved);
  const conflict = h("div");
  const done = h("button", { class: "main", onclick: finish }, text.done);
  main.replaceChildren(
    h("h1", { class: "unseen" }, text.edit),
    h("div", { class: "status row" }, done, state),
    conflict,
    field(text.postTitle, title),
    field(text.content, content),
  );
  content.focus();
  let timer = 0;
  /** @type {Promise<void> | null} */
  let saving = null;
  let isChanged = false;
  for (const input of [title, content]) {
    input.addEventListener("input", () => {
      isChanged = true;
      clearTimeout(timer);
      timer = setTimeout(save, 1000);
    });
  }
  const warn = (/** @type {BeforeUnloadEvent} */ event) => isChanged && event.preventDefault();
  addEventListener("beforeunload", warn, { signal });

  /** Saves what there is, and again if that has changed meanwhile: never two at once. */
  function save() {
    saving ??= saveOnce().finally(() => (saving = null));
    return saving;
  }

  async function saveOnce() {
    while (isChanged && !signal.aborted) {
      isChanged = false;
      state.textContent = text.saving;
      const body = { content: content.value, ...(title.value.trim() && { title: title.value }) };
      try {
        post = await call("PUT", path, { body, headers: { "if-match": `"${post.version}"` } });
        state.textContent = text.saved;
      } catch (error) {
        isChanged = true;
        if (error instanceof ApiError && error.code === "version_conflict") return showConflict();
        const isLasting = error instanceof ApiError && error.status >= 400 && error.status < 500;
        state.textContent = isLasting ? error.message : text.notSaved;
        if (isLasting) return;
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    }
  }

  async function showConflict() {
    const other = await call("GET", path);
    state.textContent = "";
    const settle = (/** @type {boolean} */ takeOther) => () => {
      post = other;
      conflict.replaceChildren();
      if (takeOther) [title.value, content.value] = [other.title ?? "", other.content];
      isChanged = !takeOther;
      state.textContent = text.saved;
      save();
    };
    conflict.replaceChildren(
      h("p", { role: "alert" }, text.conflict),
      h("h2", { dir: "auto" }, other.title),
      h("div", { class: "live", dir: "auto" }, other.content),
      h(
        "p",
        { class: "row" },
        h("button", { onclick: settle(false) }, text.keepMine),
        h("button", { onclick: settle(true) }, text.takeOther),
      ),
    );
  }

  async function finish() {
    clearTimeout(timer);
    await save();
    if (!isChanged) onDone(post);
  }
}
