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
  /**
   * What was sent since the last answer: one of these may have been stored.
   * @type {{ content: string, title: string }[]}
   */
  let unanswered = [];
  restoreDraft();
  for (const input of [title, content]) {
    input.addEventListener("input", () => {
      isChanged = true;
      keepDraft();
      timer ||= setTimeout(save, 1000);
    });
  }
  const warn = (/** @type {Event} */ event) => (isChanged || saving) && event.preventDefault();
  addEventListener("beforeunload", warn, { signal });
  signal.addEventListener("abort", () => {
    if (isChanged) save();
  });

  /** What is not saved yet survives a reload of this tab. */
  function keepDraft() {
    try {
      sessionStorage.setItem(draft, JSON.stringify([title.value, content.value, post.version]));
    } catch {
      // There may be no room; the text is in the editor still.
    }
  }

  function restoreDraft() {
    const kept = sessionStorage.getItem(draft);
    if (!kept) return;
    const [keptTitle, keptContent, version] = JSON.parse(kept);
    [title.value, content.value] = [keptTitle, keptContent];
    // What was saved elsewhere since is a conflict.
    post = { ...post, version };
    isChanged = true;
    save();
  }

  /**
   * Saves what there is, and again if that has changed meanwhile: never two at once, and not before a
   * conflict is settled.
   */
  async function save() {
    clearTimeout(timer);
    timer = 0;
    if (conflict.hasChildNodes()) return;
    saving ??= saveOnce().finally(() => (saving = null));
    await saving;
  }

  async function saveOnce() {
    while (isChanged) {
      isChanged = false;
      state.textContent = text.saving;
      const sent = { content: content.value, title: title.value.trim() };
      unanswered.push(sent);
      const body = { content: sent.content, ...(sent.title && { title: sent.title }) };
      try {
        post = await call("PUT", path, { body, headers: { "if-match": `"${post.version}"` } });
        unanswered = [];
        if (!isChanged) sessionStorage.removeItem(draft);
        state.textContent = title.value.trim() ? text.saved : text.titleNeeded;
      } catch (error) {
        isChanged = true;
        if (error instanceof ApiError && error.code === "version_conflict") {
          // If that fails, the next save comes here again.
          return await showConflict().catch(() => {
            state.textContent = text.notSaved;
            timer ||= setTimeout(save, 2000);
          });
        }
        const isLasting =
          error instanceof ApiError &&
          error.status >= 400 &&
          error.status < 500 &&
          !RETRYABLE.has(error.status);
        state.textContent = isLasting ? (error.errors[0]?.message ?? error.message) : text.notSaved;
        // Who has left finds the draft when they come back.
        if (isLasting || signal.aborted) return;
        await pause(2000);
      }
    }
  }

  async function showConflict() {
    if (signal.aborted) return;
    const other = await call("GET", path);
    // The answer to an earlier save was lost; what was typed since is not saved yet.
    const isStored = (/** @type {{ content: string, title: string }} */ sent) =>
      other.content === sent.content && (!sent.title || other.title === sent.title);
    const stored = unanswered.find(isStored);
    if (stored) {
      post = other;
      unanswered = [];
      isChanged = content.value !== stored.content || title.value.trim() !== stored.title;
      if (!isChanged) sessionStorage.removeItem(draft);
      state.textContent = isChanged ? text.saving : text.saved;
      timer ||= isChanged ? setTimeout(save, 0) : 0;
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
      await save();
      try {
        shown.replaceChildren(...(await rendered(post.id, signal)).nodes);
      } catch (error) {
        return notify(/** @type {Error} */ (error).message);
      }
    }
    preview.setAttribute("aria-pressed", String(!isShown));
    shown.hidden = isShown;
    fields.hidden = !isShown;
  }

  async function finish() {
    await save();
    if (!isChanged && !signal.aborted) onDone(post);
  }
}

/**
 * A post's content as the API renders it, and as elements.
 * @param {string} post
 * @param {AbortSignal} signal
 */
export async function rendered(post, signal) {
  const answer = await send("GET", `/blogs/${post}`, { headers: { accept: "text/html" }, signal });
  const html = await answer.text();
  // The page's policy lets no style stand in an element. In text there is no `<`.
  const aligned = html.replace(
    /(<t[dh]\b[^>]*) style="text-align: ?(left|center|right);?"/g,
    '$1 class="$2"',
  );
  const page = new DOMParser().parseFromString(aligned, "text/html");
  // What is wider than the page scrolls, for the keyboard, too.
  for (const wide of page.querySelectorAll("pre, table")) wide.setAttribute("tabindex", "0");
  return { html, nodes: [...page.body.childNodes] };
}
