import { ApiError, call } from "./api.js";
import { eachSecond, frame, table, td, time } from "./console.js";
import { field, h, notify } from "./dom.js";
import { go } from "./navigate.js";
import { text } from "./text.js";

/** What may stand before a colon in the search box, and the parameter of the API that it gives. */
const KEYS = { status: "status", error: "error_code", model: "model", user: "user_id" };
const PARAMETERS = [...Object.values(KEYS), "q"];
const STATUSES = ["queued", "running", "awaiting_review", "canceling", "succeeded", "failed", "canceled"];
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const LIMIT = 50;
/** What the API gives at once. */
const MAX_LIMIT = 100;
/** So many of the listed jobs are kept up to date. */
const MAX_REFRESHED = 300;

/**
 * All users' jobs, the newest first. What is listed is kept up to date where it stands; what has come
 * since is shown when the reader asks for it.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function jobsView(main, signal) {
  const body = frame(main, text.jobs);
  const completions = h("datalist", { id: "completions" });
  const box = h("input", { type: "search", autocapitalize: "none", list: "completions", oninput: complete });
  const fresh = h("button", { class: "plain", onclick: () => load(null) });
  const refreshes = h("input", { type: "checkbox", id: "refreshes", checked: true });
  const rows = h("tbody");
  const more = h("button", { hidden: true, onclick: () => load(next) }, text.more);
  const empty = h("p", { hidden: true }, text.noJobs);
  const heads = [
    text.topicOf,
    text.username,
    text.status,
    text.model,
    text.worker,
    text.attempts,
    text.created,
  ];
  const bulks = ["cancel", "retry"].map((action) =>
    h("button", { onclick: () => change(action) }, text.all(action)),
  );
  body.append(
    h(
      "form",
      { role: "search", onsubmit: submit },
      field(text.searchJobs, box, text.searchJobsHint),
      completions,
    ),
    h("div", { class: "row apart" }, h("label", { for: "refreshes" }, refreshes, text.refreshes), fresh),
    table(heads, rows),
    empty,
    h("p", { class: "row" }, more, ...bulks),
  );
  /** Values that have been seen, to complete what is typed. */
  const known = { status: new Set(STATUSES), error: new Set(), model: new Set(), user: new Set() };
  /** @type {Map<string, HTMLElement>} */
  const listed = new Map();
  /** @type {string | null} */
  let next = null;
  let round = 0;
  /** Whether the list could not be loaded, and is to be asked for again. */
  let isRetried = false;
  /** Whether the API refuses this filter. */
  let isRefused = false;
  /** @type {Record<string, string>} what the list shows */
  let applied = filterOf(new URLSearchParams(location.search));
  box.value = typed(applied);
  await load(null);
  await eachSecond(signal, async () => {
    if (!refreshes.checked) return;
    if (listed.size === 0 && isRetried) await load(null);
    else if (listed.size > 0 || !isRefused) await refresh();
  });

  /** @param {SubmitEvent} event */
  function submit(event) {
    event.preventDefault();
    if (UUID.test(box.value.trim())) return go(`/app/console/jobs/${box.value.trim().toLowerCase()}`);
    applied = parsed(box.value);
    const query = new URLSearchParams(applied);
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    load(null);
  }

  /** Offers what the last word may become. */
  function complete() {
    const [, before, last] = /^(.*?)(\S*)$/s.exec(box.value) ?? ["", "", ""];
    const [key] = last.split(":");
    const words = Object.entries(known).flatMap(([name, values]) =>
      last.includes(":") && name !== key ? [] : [...values].map((value) => `${name}:${quoted(value)}`),
    );
    const fitting = words.filter((word) => last && word.startsWith(last) && word !== last);
    completions.replaceChildren(...fitting.map((word) => h("option", { value: before + word })));
  }

  /**
   * @param {string | null} cursor
   * @param {number} [limit]
   * @returns {Promise<{ items: any[], next_cursor: string | null }>}
   */
  function page(cursor, limit = LIMIT) {
    const query = new URLSearchParams({ ...applied, limit: String(limit), ...(cursor && { cursor }) });
    return call("GET", `/admin/jobs?${query}`, { signal });
  }

  /** @param {string | null} cursor */
  async function load(cursor) {
    const mine = ++round;
    try {
      const { items, next_cursor } = await page(cursor);
      if (mine !== round) return;
      if (!cursor) clear();
      for (const job of items) {
        const row = h("tr");
        listed.set(job.id, row);
        fill(row, job);
        rows.append(row);
      }
      next = next_cursor;
      more.hidden = !next;
      empty.hidden = listed.size > 0 || next !== null;
      isRetried = isRefused = false;
    } catch (error) {
      if (signal.aborted || mine !== round) return;
      // What is listed must not be taken for what was asked for.
      if (!cursor) clear();
      isRefused = error instanceof ApiError && [400, 422].includes(error.status);
      isRetried = !isRefused;
      notify(/** @type {Error} */ (error).message);
    }
  }

  function clear() {
    rows.replaceChildren();
    listed.clear();
    tellNew(0);
    next = null;
    more.hidden = empty.hidden = true;
  }

  /** The newest jobs once more, as many as are listed, up to some. */
  async function refresh() {
    const mine = round;
    /** @type {any[]} */
    const items = [];
    /** @type {string | null} */
    let cursor = null;
    do {
      const { items: some, next_cursor } = await page(cursor, MAX_LIMIT);
      if (mine !== round) return;
      items.push(...some);
      cursor = next_cursor;
    } while (cursor && items.length < Math.min(listed.size, MAX_REFRESHED));
    // Ids fall along the list. Beyond the last one nothing is known.
    const last = cursor ? items.at(-1)?.id : "";
    const oldest = next ? [...listed.keys()].at(-1) : "";
    tellNew(items.filter((job) => !listed.has(job.id) && job.id > (oldest ?? "")).length);
    for (const job of items) {
      const row = listed.get(job.id);
      if (row) fill(row, job);
    }
    const current = new Set(items.map((job) => job.id));
    for (const [id, row] of listed) {
      if (last !== undefined && id >= last && !current.has(id)) outdate(row);
    }
  }

  /**
   * A row that does not match any more stays where it is, and says so.
   * @param {any} row
   */
  function outdate(row) {
    if (row.dataset.state === "outdated") return;
    row.dataset.state = "outdated";
    row.className = "outdated";
    row.cells[2].append(` · ${text.matchesNoMore}`);
  }

  /** @param {number} count */
  function tellNew(count) {
    const label = count ? text.newJobs(count, count >= MAX_LIMIT) : "";
    if (fresh.textContent !== label) fresh.textContent = label;
    // It keeps its place, or the list would move.
    fresh.classList.toggle("vacant", count === 0);
  }

  /**
   * @param {HTMLElement} row
   * @param {any} job
   */
  function fill(row, job) {
    const state = [job.status, job.attempt, job.worker, job.error?.code].join();
    if (row.dataset.state === state) return;
    row.dataset.state = state;
    row.className = "";
    known.model.add(job.model);
    known.user.add(job.user.id);
    if (job.error) known.error.add(job.error.code);
    const ofUser = new URLSearchParams({ user_id: job.user.id });
    const cells = [
      h("a", { href: `/app/console/jobs/${job.id}`, dir: "auto", class: "topic" }, job.topic),
      h("a", { href: `/app/console/jobs?${ofUser}` }, job.user.username),
      job.status + (job.error ? `, ${job.error.code}` : ""),
      job.model,
      job.worker ?? "–",
      `${job.attempt} / ${job.max_attempts}`,
      time(job.created_at),
    ];
    const focused = [...row.querySelectorAll("a")].indexOf(/** @type {any} */ (document.activeElement));
    row.replaceChildren(...cells.map(td));
    row.querySelectorAll("a")[focused]?.focus();
  }

  /**
   * Does something with all jobs that match, once the reader has seen how many these are.
   * @param {string} action
   */
  async function change(action) {
    const filter = applied;
    const body = { action, filter };
    for (const button of bulks) button.disabled = true;
    try {
      const would = await call("POST", "/admin/jobs/bulk", { body: { ...body, dry_run: true }, signal });
      // The reader has asked for other jobs meanwhile.
      if (filter !== applied) return;
      if (!would.changed) return notify(text.noneToChange(action));
      if (!confirm(text.confirmAll(action, would, typed(filter) || text.everyJob))) return;
      const done = await call("POST", "/admin/jobs/bulk", { body, signal });
      notify(text.changedOf(done));
      await load(null);
    } catch (error) {
      if (!signal.aborted) notify(/** @type {Error} */ (error).message);
    } finally {
      for (const button of bulks) button.disabled = false;
    }
  }
}

/** @param {URLSearchParams} query */
const filterOf = (query) => Object.fromEntries([...query].filter(([name]) => PARAMETERS.includes(name)));

/**
 * What is typed, as a filter of the API: `status:failed two words` fits failed jobs with these words.
 * @param {string} value
 */
function parsed(value) {
  /** @type {Record<string, string>} */
  const filter = {};
  const rest = value.replace(/(\w+):("[^"]*"|\S+)/g, (whole, key, given) => {
    if (!Object.hasOwn(KEYS, key)) return whole;
    filter[KEYS[/** @type {keyof KEYS} */ (key)]] = given.replaceAll('"', "");
    return "";
  });
  const words = rest.trim().replace(/\s+/g, " ");
  if (words) filter.q = words;
  return filter;
}

/**
 * A filter, as it is typed.
 * @param {Record<string, string>} filter
 */
const typed = (filter) =>
  [
    ...Object.entries(KEYS).flatMap(([key, name]) =>
      filter[name] ? [`${key}:${quoted(filter[name])}`] : [],
    ),
    ...(filter.q ? [filter.q] : []),
  ].join(" ");

/** @param {string} value */
const quoted = (value) => (/\s/.test(value) ? `"${value}"` : value);
