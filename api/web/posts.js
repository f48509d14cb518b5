import { call } from "./api.js";
import { date, field, h, notify, setTitle } from "./dom.js";
import { text } from "./text.js";

/** What is about to be deleted. */
const deleting = new Set();

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function postsView(main, signal) {
  setTitle(text.posts);
  const asked = new URLSearchParams(location.search);
  const option = (/** @type {string} */ value, /** @type {string} */ label) => h("option", { value }, label);
  const search = h("input", { type: "search", value: asked.get("q") ?? "", dir: "auto" });
  const statuses = Object.entries(text.statuses).map(([value, label]) => option(value, label));
  const status = h("select", {}, option("", text.anyStatus), ...statuses);
  status.value = asked.get("status") ?? "";
  const sort = h("select", {}, ...Object.entries(text.sorts).map(([value, label]) => option(value, label)));
  sort.value = asked.get("sort") ?? "-created_at";
  const list = h("ul", { class: "posts" });
  const more = h("button", { hidden: true, onclick: () => load(next) }, text.more);
  const note = h("p", { class: "soft" });
  main.append(
    h("h1", {}, text.posts),
    h(
      "form",
      {
        class: "grid filters",
        role: "search",
        onsubmit: (/** @type {Event} */ event) => event.preventDefault(),
      },
      field(text.search, search),
      field(text.status, status),
      field(text.sort, sort),
    ),
    list,
    note,
    more,
  );
  /** @type {string | null} */
  let next = null;
  let timer = 0;
  let round = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(again, 300);
  });
  status.addEventListener("change", again);
  sort.addEventListener("change", again);
  await load(null);

  function again() {
    const query = new URLSearchParams();
    if (search.value.trim()) query.set("q", search.value.trim());
    if (status.value) query.set("status", status.value);
    if (sort.value !== "-created_at") query.set("sort", sort.value);
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    return load(null);
  }

  /** @param {string | null} cursor */
  async function load(cursor) {
    const mine = ++round;
    const query = new URLSearchParams({ sort: sort.value });
    if (search.value.trim()) query.set("q", search.value.trim());
    if (status.value) query.set("status", status.value);
    if (cursor) query.set("cursor", cursor);
    try {
      const page = await call("GET", `/blogs?${query}`, { signal });
      if (mine !== round) return;
      if (!cursor) list.replaceChildren();
      const items = page.items.filter((/** @type {any} */ post) => !deleting.has(post.id));
      list.append(...items.map(item));
      next = page.next_cursor;
      more.hidden = !next;
      const isFiltered = search.value.trim() || status.value;
      const isEmpty = !list.children.length && !next;
      note.replaceChildren(isEmpty ? (isFiltered ? text.noMatch : text.noPosts) : "");
      if (isEmpty && !isFiltered) note.append(" ", h("a", { href: "/app/" }, text.firstPost));
    } catch (error) {
      if (signal.aborted) return;
      note.replaceChildren(/** @type {Error} */ (error).message);
    }
  }

  /** @param {any} post */
  function item(post) {
    /** @type {Record<string, string>} */
    const states = { ...text.statuses, ready: text.words_(post.word_count) };
    const state = states[post.status];
    const entry = h(
      "li",
      {},
      h("a", { href: `/app/posts/${post.id}`, dir: "auto" }, post.title ?? post.topic),
      post.excerpt && h("p", { dir: "auto" }, post.excerpt),
      h(
        "p",
        { class: "soft row" },
        `${date(post.created_at)} · ${state}`,
        h(
          "button",
          {
            class: "plain",
            onclick: () => remove(post, entry),
            "aria-label": `${text.delete}: ${post.title ?? post.topic}`,
          },
          text.delete,
        ),
      ),
    );
    return entry;
  }

  /**
   * Deletes after some seconds, in which it can be undone.
   * @param {any} post
   * @param {HTMLElement} entry
   */
  function remove(post, entry) {
    entry.hidden = true;
    deleting.add(post.id);
    search.focus();
    const timer = setTimeout(act, 8000);
    addEventListener("pagehide", act, { once: true });
    notify(text.deleted, { label: text.undo, act: undo });

    function undo() {
      deleting.delete(post.id);
      clearTimeout(timer);
      removeEventListener("pagehide", act);
      entry.hidden = false;
    }

    async function act() {
      undo();
      entry.remove();
      try {
        await call("DELETE", `/blogs/${post.id}`, { keepalive: true });
      } catch (error) {
        notify(/** @type {Error} */ (error).message);
      }
    }
  }
}
