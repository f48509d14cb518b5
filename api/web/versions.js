import { call } from "./api.js";
import { date, h, notify, setTitle } from "./dom.js";
import { go } from "./navigate.js";
import { text } from "./text.js";

/**
 * The versions of a post, to compare and to restore.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} id
 */
export async function versionsView(main, signal, id) {
  setTitle(text.versions);
  const { items } = await call("GET", `/blogs/${id}/revisions?limit=100`, { signal });
  const current = items.find((/** @type {any} */ item) => item.current);
  main.replaceChildren(
    h("h1", {}, text.versions),
    h("p", {}, h("a", { href: `/app/posts/${id}` }, text.back)),
    h("ul", { class: "posts" }, ...items.map(entry)),
  );

  /** @param {any} revision */
  function entry(revision) {
    const { author } = revision;
    const who = author.kind === "user" ? text.you : (author.model ?? text.aModel);
    const shown = h("div");
    const compare = async () => {
      try {
        shown.replaceChildren(await difference(id, revision.version, current.version, signal));
      } catch (error) {
        if (!signal.aborted) notify(/** @type {Error} */ (error).message);
      }
    };
    const restore = async () => {
      try {
        await call("POST", `/blogs/${id}/revisions/${revision.version}/restore`);
        notify(text.restored);
        go(`/app/posts/${id}`);
      } catch (error) {
        notify(/** @type {Error} */ (error).message);
      }
    };
    const about = `${date(revision.created_at)} · ${who} · ${text.words_(revision.word_count)}`;
    const name = `${revision.title}, ${date(revision.created_at)}`;
    return h(
      "li",
      {},
      h("strong", { dir: "auto" }, revision.title),
      h("p", { class: "soft" }, revision.current ? `${about} · ${text.current}` : about),
      !revision.current &&
        h(
          "p",
          { class: "row" },
          h("button", { onclick: compare, "aria-label": `${text.compare}: ${name}` }, text.compare),
          h("button", { onclick: restore, "aria-label": `${text.restore}: ${name}` }, text.restore),
        ),
      shown,
    );
  }
}

/**
 * What differs between two versions of a post.
 * @param {string} post
 * @param {number} from
 * @param {number} to
 * @param {AbortSignal} signal
 * @returns {Promise<HTMLElement>}
 */
export async function difference(post, from, to, signal) {
  const headers = { accept: "application/json" };
  const { hunks } = await call("GET", `/blogs/${post}/revisions/${from}/diff/${to}`, { headers, signal });
  const names = /** @type {Record<string, string>} */ ({ deleted: "del", inserted: "ins", context: "span" });
  const hunk = (/** @type {any} */ { lines }) =>
    h(
      "div",
      { class: "diff", dir: "auto" },
      ...lines.map((/** @type {any} */ line) => h(names[line.kind], {}, line.text)),
    );
  return h("div", {}, ...(hunks.length ? hunks.map(hunk) : [h("p", { class: "soft" }, text.same)]));
}
