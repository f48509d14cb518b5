import { call } from "./api.js";
import { eachSecond, frame, redraw, tableOf, time } from "./console.js";
import { h } from "./dom.js";
import { text } from "./text.js";

/** Of a worker with more jobs, only the first are listed. */
const MAX_JOBS = 5;

/**
 * The workers, and what they are at.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function workersView(main, signal) {
  const body = frame(main, text.workers);
  await eachSecond(signal, async () => {
    const { items } = await call("GET", "/admin/workers", { signal });
    items.sort((/** @type {any} */ a, /** @type {any} */ b) => (a.name < b.name ? -1 : 1));
    const rows = items.map((/** @type {any} */ it) => [
      it.name,
      it.alive ? text.alive : text.gone,
      `${it.running_jobs.length} / ${it.concurrency}`,
      jobs(it.running_jobs),
      `${it.agent}, ${it.model}`,
      it.version,
      time(it.last_seen_at),
    ]);
    const heads = [
      text.worker,
      text.status,
      text.running,
      text.jobs,
      text.agent,
      text.version,
      text.lastSeen,
    ];
    redraw(body, [tableOf(heads, rows)]);
  });
}

/** @param {string[]} ids */
function jobs(ids) {
  if (ids.length === 0) return "–";
  const links = ids
    .slice(0, MAX_JOBS)
    .map((id) =>
      h("a", { href: `/app/console/jobs/${id}`, "aria-label": `${text.job} ${id}` }, id.slice(-6)),
    );
  return h("span", { class: "row" }, ...links, ids.length > MAX_JOBS && "…");
}
