import { ApiError, call, pause } from "./api.js";
import { h, notify, setTitle } from "./dom.js";
import { text } from "./text.js";

const PAGES = {
  "/app/console": text.queue,
  "/app/console/jobs": text.jobs,
  "/app/console/workers": text.workers,
  "/app/console/users": text.users,
  "/app/console/audit": text.audit,
};

/**
 * A page of the console, with links to the others.
 * @param {HTMLElement} main
 * @param {string} title
 */
export function frame(main, title) {
  setTitle(title);
  main.classList.add("wide");
  const links = Object.entries(PAGES).map(([href, label]) =>
    h("a", { href, "aria-current": label === title && "page" }, label),
  );
  const body = h("div");
  main.append(
    h("nav", { class: "row tabs", "aria-label": text.console }, ...links),
    h("h1", {}, title),
    body,
  );
  return body;
}

/** @param {string | null} value */
export const time = (value) => (value ? new Date(value).toLocaleString() : "–");

/** @param {number | null | undefined} ms */
export function duration(ms) {
  if (ms == null) return "–";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}

/** @param {Node | string} cell */
export const td = (cell) => h("td", {}, cell);

/**
 * @param {string[]} heads
 * @param {Node} body its rows, as a `tbody`
 */
export const table = (heads, body) =>
  h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": heads.join(", ") },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
      body,
    ),
  );

/**
 * @param {string[]} heads
 * @param {(Node | string)[][]} rows
 */
export const tableOf = (heads, rows) =>
  table(heads, h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(td)))));

/**
 * A list that is read page by page, as a table.
 * @param {string[]} heads
 * @param {(item: any) => (Node | string)[]} row
 * @param {AbortSignal} signal
 */
export function pagedTable(heads, row, signal) {
  const rows = h("tbody");
  const more = h("button", { hidden: true, onclick: () => load(next).catch(tell) }, text.more);
  const tell = (/** @type {Error} */ error) => signal.aborted || notify(error.message);
  let path = "";
  /** @type {string | null} */
  let next = null;
  let round = 0;

  /** @param {string | null} [cursor] */
  async function load(cursor) {
    const mine = ++round;
    const page = await call("GET", path + (cursor ? `&cursor=${cursor}` : ""), { signal });
    if (mine !== round) return;
    if (!cursor) rows.replaceChildren();
    rows.append(...page.items.map((/** @type {any} */ item) => h("tr", {}, ...row(item).map(td))));
    next = page.next_cursor;
    more.hidden = !next;
  }

  return {
    nodes: [table(heads, rows), h("p", {}, more)],
    /** @param {string} from the list's address, with its limit */
    show(from) {
      path = from;
      return load();
    },
  };
}

/**
 * Replaces what is shown, but not the reader's place in it: a table that was scrolled to the side stays
 * so, and what has the focus keeps it.
 * @param {HTMLElement} body
 * @param {(Node | false)[]} nodes
 */
export function redraw(body, nodes) {
  const places = [...body.querySelectorAll(".scroll")].map((table) => table.scrollLeft);
  const name = (/** @type {Element} */ it) => it.getAttribute("aria-label") ?? it.textContent;
  const had = body.contains(document.activeElement) && document.activeElement;
  body.replaceChildren(...nodes.filter((node) => node !== false));
  body.querySelectorAll(".scroll").forEach((table, at) => {
    table.scrollLeft = places[at] ?? 0;
  });
  if (!had) return;
  /** @type {NodeListOf<HTMLElement>} */
  const controls = body.querySelectorAll("a, button, .scroll");
  [...controls].find((control) => name(control) === name(had))?.focus();
}

/**
 * Does something each second, but not while nobody looks.
 * @param {AbortSignal} signal
 * @param {() => Promise<void>} act
 */
export async function eachSecond(signal, act) {
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        await act();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && [401, 403, 404].includes(error.status)) throw error;
        notify(/** @type {Error} */ (error).message);
        await pause(9000);
      }
    }
    await pause(1000);
  }
}
