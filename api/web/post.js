import { call } from "./api.js";
import { date, field, h, notify, setTitle } from "./dom.js";
import { editPost, rendered } from "./edit.js";
import { watchJob } from "./job.js";
import { go } from "./navigate.js";
import { linkCitations, sourceList } from "./sources.js";
import { text } from "./text.js";
import { difference } from "./versions.js";

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
  const tell = (/** @type {Error} */ error) => signal.aborted || notify(error.message);
  const markdown = () => `# ${post.title ?? post.topic}\n\n${post.content}`;
  const markdownUrl = () => URL.createObjectURL(new Blob([markdown()], { type: "text/markdown" }));
  if (!signal.aborted) await read();

  async function read() {
    setTitle(post.title ?? post.topic);
    if (post.content === null) return sayWhy();
    const { html, nodes } = await rendered(id, signal);
    const article = h("article", { class: "post", dir: "auto" }, h("h1", {}, post.title ?? post.topic));
    const copyable = article.innerHTML + html;
    article.append(...nodes);
    linkCitations(article, post, signal);
    main.replaceChildren(
      article,
      sourceList(post) || "",
      await rewriting(),
      h("p", { class: "soft" }, `${date(post.updated_at)} · ${text.words_(post.word_count)}`),
      ...(post.job?.warnings ?? []).map((/** @type {any} */ warning) =>
        h("p", { class: "soft" }, `${warning.code}: ${warning.text}`),
      ),
      h(
        "p",
        { class: "row" },
        h("button", { class: "main", onclick: edit }, text.edit),
        h("button", { onclick: () => copy(markdown()) }, text.copyMarkdown),
        h("button", { onclick: () => copy(copyable) }, text.copyHtml),
        h("button", { onclick: again }, text.writeAnew),
        h("a", { href: `/app/posts/${id}/versions` }, text.versions),
        h("a", { download: `${slug(post.title ?? post.topic)}.md`, href: markdownUrl() }, text.download),
      ),
    );
  }

  /** @param {string} value */
  async function copy(value) {
    try {
      await navigator.clipboard.writeText(value);
    } catch {
      // Not over plain http from another machine.
      const area = h("textarea", { value, "aria-label": text.copied });
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
      why ? h("p", { class: "soft" }, why) : "",
      sourceList(post) || "",
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
    editPost(main, signal, post, (saved) => {
      post = saved;
      read().catch(tell);
    });
  }

  /** A form that has one section written again. */
  async function rewriting() {
    const { items } = await call("GET", `${path}/sections`, { signal });
    const options = items.map((/** @type {any} */ it) =>
      h("option", { value: it.number }, it.heading ?? text.introduction),
    );
    const section = h("select", {}, ...options);
    const wish = h("textarea", { maxlength: 2000, dir: "auto" });
    const submit = h("button", {}, text.rewrite);
    return h(
      "details",
      {},
      h("summary", {}, text.rewriteSection),
      h(
        "form",
        { onsubmit: send },
        field(text.section, section),
        field(text.wish, wish),
        h("p", { class: "row" }, submit),
      ),
    );

    /** @param {SubmitEvent} event */
    async function send(event) {
      event.preventDefault();
      submit.disabled = true;
      const body = wish.value.trim() ? { instructions: wish.value } : {};
      const headers = { "if-match": `"${post.version}"` };
      try {
        const { items } = await call("GET", `${path}/revisions?limit=1`);
        const asked = `${path}/sections/${section.value}/regenerate`;
        post = await call("POST", asked, { body, headers });
        const end = await watchJob(main, post, signal);
        if (signal.aborted) return;
        post = await call("GET", path, { signal });
        if (end?.status === "succeeded") return await offer(items[0].version, end.version);
        if (end?.error) notify(end.error.message);
        await read();
      } catch (error) {
        submit.disabled = false;
        if (!signal.aborted) notify(/** @type {Error} */ (error).message);
      }
    }
  }

  /**
   * Shows what has changed, to be taken or refused.
   * @param {number} before
   * @param {number} after
   */
  async function offer(before, after) {
    const restore = (/** @type {number} */ version) => async () => {
      const headers = { "if-match": `"${post.version}"` };
      try {
        post = await call("POST", `${path}/revisions/${version}/restore`, { headers });
      } catch (error) {
        notify(/** @type {Error} */ (error).message);
      }
      await read().catch(tell);
    };
    // Edited meanwhile, the post keeps the edit until this is taken.
    const isPresent = !post.job?.superseded;
    const keep = () => read().catch(tell);
    const take = isPresent ? keep : restore(after);
    const refuse = isPresent ? restore(before) : keep;
    main.replaceChildren(
      h("h1", { dir: "auto" }, post.title),
      await difference(id, before, after, signal),
      h(
        "p",
        { class: "row" },
        h("button", { class: "main", onclick: take }, text.takeIt),
        h("button", { onclick: refuse }, text.refuseIt),
      ),
    );
  }
}

/** @param {string} title */
const slug = (title) =>
  title
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-+|-+$/g, "") || "post";
