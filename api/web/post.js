import { ApiError, call, send } from "./api.js";
import { date, field, h, notify, setTitle } from "./dom.js";
import { watchJob } from "./job.js";
import { go } from "./navigate.js";
import { text } from "./text.js";

/**
 * A post: as it is written, to read, and to edit.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} id
 */
export async function postView(main, signal, id) {
  const path = `/blogs/${id}`;
  let post = await call("GET", path, { signal });
  while (post.status === "generating" && !signal.aborted) {
    setTitle(post.title ?? post.topic);
    await watchJob(main, post, signal);
    if (signal.aborted) return;
    post = await call("GET", path, { signal });
  }
  const markdown = () => `# ${post.title ?? post.topic}\n\n${post.content}`;
  const markdownUrl = () => URL.createObjectURL(new Blob([markdown()], { type: "text/markdown" }));
  if (!signal.aborted) await read();

  async function read() {
    setTitle(post.title ?? post.topic);
    if (post.content === null) return sayWhy();
    const html = await send("GET", path, { headers: { accept: "text/html" }, signal });
    const page = new DOMParser().parseFromString(await html.text(), "text/html");
    const article = h("article", { class: "post", dir: "auto" }, h("h1", {}, post.title ?? post.topic));
    article.append(...page.body.childNodes);
    main.replaceChildren(
      article,
      h("p", { class: "soft" }, `${date(post.updated_at)} · ${text.words_(post.word_count)}`),
      ...(post.job?.warnings ?? []).map((/** @type {any} */ warning) =>
        h("p", { class: "soft" }, `${warning.code}: ${warning.text}`),
      ),
      h(
        "p",
        { class: "row" },
        h("button", { class: "main", onclick: edit }, text.edit),
        h("button", { onclick: copy }, text.copyMarkdown),
        h("a", { download: `${slug(post.title ?? post.topic)}.md`, href: markdownUrl() }, text.download),
      ),
    );
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(markdown());
    } catch {
      // Not over plain http from another machine.
      const area = h("textarea", { value: markdown() });
      main.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    notify(text.copied);
  }

  function sayWhy() {
    const why = post.job?.error?.message;
    main.replaceChildren(
      h("h1", { dir: "auto" }, post.topic),
      h("p", {}, post.status === "failed" ? text.failed : text.canceled),
      why && h("p", { class: "soft" }, why),
      h("p", { class: "row" }, h("button", { class: "main", onclick: again }, text.tryAgain)),
    );
  }

  async function again() {
    try {
      await call("POST", `${path}/regenerate`, { body: {} });
      go(location.pathname);
    } catch (error) {
      notify(/** @type {Error} */ (error).message);
    }
  }

  function edit() {
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
      if (!isChanged) await read();
    }
  }
}

/** @param {string} title */
const slug = (title) =>
  title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "") || "post";
