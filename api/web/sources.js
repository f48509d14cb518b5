import { call } from "./api.js";
import { field, h } from "./dom.js";
import { text } from "./text.js";

/**
 * Fields for what a post is to be written from.
 * @returns {{ element: HTMLElement, read: () => any[], searchesWeb: () => boolean, offerWeb: () => void }}
 */
export function sourceFields() {
  const addresses = h("textarea", { autocapitalize: "none", spellcheck: "false" });
  const texts = h("div");
  const add = h("button", { type: "button", onclick: addText }, text.addText);
  const web = h("input", { type: "checkbox", id: "search-web" });
  const webField = h("p", { hidden: true }, h("label", { for: "search-web" }, web, text.searchWeb));
  const element = h(
    "details",
    {},
    h("summary", {}, text.sources),
    field(text.addresses, addresses, text.addressesHint),
    texts,
    h("p", {}, add),
    webField,
  );
  return { element, read, searchesWeb: () => web.checked, offerWeb };

  /** Where the service has a search. */
  function offerWeb() {
    webField.hidden = false;
  }

  function addText() {
    const title = h("input", { required: true, maxlength: 200, dir: "auto" });
    const content = h("textarea", { required: true, dir: "auto" });
    const remove = h(
      "button",
      { type: "button", class: "plain", onclick: () => place.remove() },
      text.remove,
    );
    const place = h("div", {}, field(text.sourceTitle, title), field(text.sourceText, content), remove);
    texts.append(place);
    title.focus();
  }

  function read() {
    const lines = addresses.value.split("\n").map((/** @type {string} */ line) => line.trim());
    const pages = lines.filter(Boolean).map((/** @type {string} */ url) => ({ url }));
    const given = [...texts.children].map((place) => ({
      title: place.querySelector("input")?.value,
      text: place.querySelector("textarea")?.value,
    }));
    return [...pages, ...given];
  }
}

/**
 * The sources of a post, and what became of them.
 * @param {any} post
 */
export function sourceList(post) {
  if (post.sources.length === 0) return false;
  /** @type {Record<string, string>} */
  const statuses = text.sourceStatuses;
  const item = (/** @type {any} */ source) => {
    const name = source.title ?? source.url;
    const shown = source.url ? h("a", { href: source.url, rel: "noreferrer" }, name) : name;
    const state = [
      statuses[source.status ?? "unread"],
      source.used && text.cited,
      source.found_by && text.foundBy(source.found_by),
    ];
    return h(
      "li",
      { value: source.number },
      h("span", { dir: "auto" }, shown),
      " ",
      h("span", { class: "soft" }, state.filter(Boolean).join(", ")),
    );
  };
  const counts = post.grounding;
  return h(
    "section",
    {},
    h("h2", {}, text.writtenFrom),
    counts && h("p", { class: "soft" }, text.grounding(counts)),
    h("ol", { class: "sources" }, ...post.sources.map(item)),
  );
}

/**
 * Makes the citations of an article open what they cite, and marks the sentences that no source bears.
 * @param {HTMLElement} article
 * @param {any} post
 * @param {AbortSignal} signal
 */
export function linkCitations(article, post, signal) {
  if (post.citations.length === 0) return;
  /** @type {Map<string, any[]>} */
  const bySentence = new Map();
  for (const it of post.citations) bySentence.set(it.sentence, [...(bySentence.get(it.sentence) ?? []), it]);
  const blocks = [...article.querySelectorAll("p, li, td, th")].filter(
    (it) => !it.querySelector("p, ul, ol"),
  );
  for (const [sentence, citations] of bySentence) {
    const wanted = letters(withoutLinks(sentence))
      .map((it) => it.letter)
      .join("");
    for (const block of blocks) {
      const found = letters(block.textContent ?? "");
      const at = found
        .map((it) => it.letter)
        .join("")
        .indexOf(wanted);
      if (!wanted || at < 0) continue;
      const from = found[at].at;
      const to = found[at + wanted.length - 1].at + 1;
      const bearing = citations.filter((it) => it.verdict !== "unsupported");
      if (bearing.length < citations.length) markUnsupported(block, from, to);
      for (const citation of bearing) linkCitation(block, from, to, post, citation, signal);
      break;
    }
  }
}

/** @param {string} markdown */
const withoutLinks = (markdown) => markdown.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");

/**
 * The characters of a text, without those that are marks in Markdown, and where they stand.
 * @param {string} value
 */
const letters = (value) =>
  [...value.split("").entries()]
    .filter(([, letter]) => !/[*_`\\~\s]/.test(letter))
    .map(([at, letter]) => ({ at, letter }));

/**
 * The parts of text nodes that stand between two positions of a block's text.
 * @param {Element} block
 * @param {number} from
 * @param {number} to
 */
function parts(block, from, to) {
  const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let at = 0; walker.nextNode(); ) {
    const node = /** @type {Text} */ (walker.currentNode);
    const [start, end] = [Math.max(from - at, 0), Math.min(to - at, node.length)];
    if (start < end) found.push({ node, start, end });
    at += node.length;
  }
  return found;
}

/**
 * @param {Element} block
 * @param {number} from
 * @param {number} to
 */
function markUnsupported(block, from, to) {
  const all = parts(block, from, to);
  for (const { node, start, end } of all) {
    const range = document.createRange();
    range.setStart(node, start);
    range.setEnd(node, end);
    range.surroundContents(h("mark", { class: "unsupported" }));
  }
  const last = [...block.querySelectorAll("mark.unsupported")].at(-1);
  last?.append(h("span", { class: "unseen" }, ` (${text.unsupported})`));
}

/**
 * Makes a button of the citation `[n]` in a sentence.
 * @param {Element} block
 * @param {number} from
 * @param {number} to
 * @param {any} post
 * @param {any} citation
 * @param {AbortSignal} signal
 */
function linkCitation(block, from, to, post, citation, signal) {
  const mark = `[${citation.number}]`;
  for (const { node, start, end } of parts(block, from, to)) {
    const at = node.data.indexOf(mark, start);
    if (at < 0 || at + mark.length > end || node.parentElement?.closest("a, code, button")) continue;
    const rest = node.splitText(at);
    rest.data = rest.data.slice(mark.length);
    const label = text.openSource(citation.number);
    const open = () => openPassage(post, citation, signal);
    rest.before(h("button", { class: "citation", "aria-label": label, onclick: open }, mark));
    return;
  }
}

/** So many characters around a passage are shown with it. */
const AROUND = 400;

/**
 * Shows the words of a source that bear a sentence, in what stands around them.
 * @param {any} post
 * @param {any} citation
 * @param {AbortSignal} signal
 */
async function openPassage(post, citation, signal) {
  const close = h("button", { class: "main", onclick: () => dialog.close() }, text.close);
  const body = h("div", { "aria-live": "polite" }, "…");
  const dialog = h(
    "dialog",
    { "aria-label": text.openSource(citation.number), onclose: () => dialog.remove() },
    body,
    h("p", {}, close),
  );
  document.body.append(dialog);
  signal.addEventListener("abort", () => dialog.remove());
  dialog.showModal();
  try {
    const source = await call("GET", `/blogs/${post.id}/sources/${citation.number}`, { signal });
    // Positions count code points.
    const letters = [...source.text];
    const part = (/** @type {number} */ from, /** @type {number} */ to) =>
      letters.slice(Math.max(from, 0), to).join("");
    body.replaceChildren(
      h("h2", { dir: "auto" }, source.title ?? source.url),
      h(
        "p",
        { class: "soft" },
        [source.site, source.author, source.published_at].filter(Boolean).join(" · "),
      ),
      h(
        "p",
        { class: "live", dir: "auto" },
        part(citation.start - AROUND, citation.start),
        h("mark", {}, part(citation.start, citation.end)),
        part(citation.end, citation.end + AROUND),
      ),
      citation.verdict === "judged" ? h("p", { class: "soft" }, text.judged) : "",
    );
  } catch (error) {
    body.replaceChildren(/** @type {Error} */ (error).message);
  }
}
