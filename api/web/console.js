import { ApiError, call, currentUser, pause } from "./api.js";
import { date, field, h, notify, setTitle } from "./dom.js";
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
function frame(main, title) {
  setTitle(title);
  main.classList.add("wide");
  const links = Object.entries(PAGES).map(([href, label]) =>
    h("a", { href, "aria-current": label === title && "page" }, label),
  );
  const body = h("div");
  main.append(h("nav", { class: "row tabs", "aria-label": text.console }, ...links), h("h1", {}, title), body);
  return body;
}

/** @param {string | null} value */
const time = (value) => (value ? new Date(value).toLocaleString() : "–");

/** @param {number | null | undefined} ms */
const duration = (ms) =>
  ms == null ? "–" : ms < 1000 ? `${ms} ms` : ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;

/**
 * @param {string[]} heads
 * @param {(Node | string)[][]} rows
 */
const table = (heads, rows) =>
  h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": heads.join(", ") },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, cell))))),
    ),
  );

/**
 * Replaces what is shown, but not the reader's place in it: a table that was scrolled to the side stays
 * so, and what has the focus keeps it.
 * @param {HTMLElement} body
 * @param {(Node | false)[]} nodes
 */
function redraw(body, nodes) {
  const places = [...body.querySelectorAll(".scroll")].map((table) => table.scrollLeft);
  const controls = () => [...body.querySelectorAll("button, .scroll")];
  const focused = controls().indexOf(/** @type {Element} */ (document.activeElement));
  body.replaceChildren(...nodes.filter((node) => node !== false));
  body.querySelectorAll(".scroll").forEach((table, at) => (table.scrollLeft = places[at] ?? 0));
  if (focused >= 0) /** @type {HTMLElement | undefined} */ (controls()[focused])?.focus();
}

/**
 * Does something each second, but not while nobody looks.
 * @param {AbortSignal} signal
 * @param {() => Promise<void>} act
 */
async function eachSecond(signal, act) {
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

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function queueView(main, signal) {
  const body = frame(main, text.queue);
  const numbers = h("dl", { class: "numbers" });
  const state = h("p", { role: "status" });
  const button = h("button", { onclick: turn });
  body.append(numbers, h("div", { class: "row" }, state, button));
  let isPaused = false;
  await eachSecond(signal, async () => show(await call("GET", "/admin/queue", { signal })));

  /** @param {any} queue */
  function show(queue) {
    isPaused = queue.paused;
    const said = isPaused ? text.pausedSince(time(queue.paused_at)) : text.atWork;
    if (state.textContent !== said) state.textContent = said;
    button.textContent = isPaused ? text.resume : text.pause;
    const counts = Object.entries(queue.counts).filter(([, count]) => typeof count === "number");
    const oldest = queue.oldest_queued_seconds;
    const entries = [
      ...counts.map(([status, count]) => [status, count >= 10_000 ? "10,000+" : count.toLocaleString()]),
      [text.oldest, oldest == null ? "–" : duration(oldest * 1000)],
      [text.perMinute, queue.jobs_per_minute.toFixed(1)],
      [text.pickup, percentiles(queue.pickup_ms)],
      [text.lasted, percentiles(queue.duration_ms)],
    ];
    numbers.replaceChildren(
      ...entries.map(([name, value]) => h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, value))),
    );
  }

  /** @param {any} of */
  function percentiles(of) {
    return of ? `${duration(of.p50)} / ${duration(of.p95)} / ${duration(of.p99)}` : "–";
  }

  async function turn() {
    try {
      show(await call("POST", `/admin/queue/${isPaused ? "resume" : "pause"}`));
    } catch (error) {
      notify(/** @type {Error} */ (error).message);
    }
  }
}

const FILTERS = ["q", "status", "error_code", "model", "user_id"];
const STATUSES = ["queued", "running", "awaiting_review", "canceling", "succeeded", "failed", "canceled"];

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function jobsView(main, signal) {
  const body = frame(main, text.jobs);
  const asked = new URLSearchParams(location.search);
  /** @type {Record<string, any>} */
  const inputs = Object.fromEntries(
    FILTERS.map((name) => [
      name,
      name === "status"
        ? h("select", {}, h("option", { value: "" }, text.anyStatus), ...STATUSES.map((it) => h("option", { value: it }, it)))
        : h("input", { type: "search", autocapitalize: "none" }),
    ]),
  );
  for (const name of FILTERS) inputs[name].value = asked.get(name) ?? "";
  /** @type {Record<string, string>} */
  const labels = text.filters;
  const rows = h("tbody");
  const more = h("button", { hidden: true, onclick: () => load(next) }, text.more);
  const heads = [text.topicOf, text.username, text.status, text.model, text.worker, text.attempts, text.created];
  const list = table(heads, []);
  list.querySelector("tbody").replaceWith(rows);
  const bulk = (/** @type {string} */ action) =>
    h("button", { onclick: () => change(action) }, text.all(action));
  body.append(
    h(
      "form",
      { class: "grid", role: "search", onsubmit: submit },
      ...FILTERS.map((name) => field(labels[name], inputs[name])),
      h("div", { class: "field row end" }, h("button", { class: "main" }, text.search)),
    ),
    list,
    h("p", { class: "row" }, more, bulk("cancel"), bulk("retry")),
  );
  /** @type {string | null} */
  let next = null;
  let round = 0;
  /** What the list shows. */
  let applied = filter();
  await load(null);

  function filter() {
    const given = FILTERS.map((name) => [name, inputs[name].value.trim()]);
    return Object.fromEntries(given.filter(([, value]) => value));
  }

  /** @param {SubmitEvent} event */
  function submit(event) {
    event.preventDefault();
    applied = filter();
    const query = new URLSearchParams(applied);
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    load(null);
  }

  /** @param {string | null} cursor */
  async function load(cursor) {
    const mine = ++round;
    const query = new URLSearchParams({ ...applied, limit: "50", ...(cursor && { cursor }) });
    try {
      const page = await call("GET", `/admin/jobs?${query}`, { signal });
      if (mine !== round) return;
      if (!cursor) rows.replaceChildren();
      rows.append(...page.items.map(row));
      next = page.next_cursor;
      more.hidden = !next;
    } catch (error) {
      if (!signal.aborted) notify(/** @type {Error} */ (error).message);
    }
  }

  /** @param {any} job */
  function row(job) {
    const cells = [
      h("a", { href: `/app/console/jobs/${job.id}`, dir: "auto", class: "topic" }, job.topic),
      job.user.username,
      job.status,
      job.model,
      job.worker ?? "–",
      `${job.attempt} / ${job.max_attempts}`,
      time(job.created_at),
    ];
    return h("tr", {}, ...cells.map((cell) => h("td", {}, cell)));
  }

  /** @param {string} action */
  async function change(action) {
    if (!confirm(text.confirmAll(action, new URLSearchParams(applied).toString() || text.everyJob))) return;
    try {
      const done = await call("POST", "/admin/jobs/bulk", { body: { action, filter: applied } });
      notify(text.changedOf(done.changed, done.matched, done.more));
      await load(null);
    } catch (error) {
      notify(/** @type {Error} */ (error).message);
    }
  }
}

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} id
 */
export async function jobView(main, signal, id) {
  const body = frame(main, text.job);
  await eachSecond(signal, async () => show(await call("GET", `/admin/jobs/${id}`, { signal })));

  /** @param {any} job */
  function show(job) {
    const act = (/** @type {string} */ action) => async () => {
      try {
        show(await call("POST", `/admin/jobs/${id}/${action}`));
      } catch (error) {
        notify(/** @type {Error} */ (error).message);
      }
    };
    const isOver = Boolean(job.finished_at);
    /** @type {[string, any][]} */
    const facts = [
      [text.status, `${job.status}${job.phase ? `, ${job.phase}` : ""}, ${job.progress.percent} %`],
      [text.model, job.model],
      [text.created, time(job.created_at)],
      [text.started, time(job.started_at)],
      [text.finished, time(job.finished_at)],
      [text.tokens, `${job.usage.input_tokens} / ${job.usage.output_tokens}`],
      [text.error, job.error ? `${job.error.code}: ${job.error.message}` : "–"],
    ];
    const attempts = job.attempts.map((/** @type {any} */ it) => [
      String(it.attempt),
      it.worker,
      time(it.started_at),
      it.finished_at ? duration(Date.parse(it.finished_at) - Date.parse(it.started_at)) : "–",
      it.outcome ?? "–",
      it.error?.code ?? "–",
    ]);
    redraw(body, [
      h("p", { dir: "auto" }, job.topic),
      h("p", { class: "soft" }, `${job.user.username} · ${id}`),
      h("dl", { class: "numbers" }, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      table([text.attempt, text.worker, text.started, text.took, text.outcome, text.error], attempts),
      h(
        "p",
        { class: "row" },
        !isOver && h("button", { onclick: act("cancel") }, text.cancel),
        ["failed", "canceled"].includes(job.status) && h("button", { onclick: act("retry") }, text.retry),
      ),
    ]);
  }
}

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function workersView(main, signal) {
  const body = frame(main, text.workers);
  await eachSecond(signal, async () => {
    const { items } = await call("GET", "/admin/workers", { signal });
    const rows = items.map((/** @type {any} */ it) => [
      it.name,
      it.alive ? text.alive : text.gone,
      `${it.running_jobs.length} / ${it.concurrency}`,
      `${it.agent}, ${it.model}`,
      it.version,
      time(it.last_seen_at),
    ]);
    const heads = [text.worker, text.status, text.running, text.agent, text.version, text.lastSeen];
    redraw(body, [table(heads, rows)]);
  });
}

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function usersView(main, signal) {
  const body = frame(main, text.users);
  const search = h("input", { type: "search", autocapitalize: "none" });
  const found = h("div");
  body.append(
    h("form", { role: "search", onsubmit: (/** @type {Event} */ event) => (event.preventDefault(), load()) }, field(text.search, search)),
    found,
  );
  await load();

  async function load() {
    const query = new URLSearchParams({ limit: "100", ...(search.value.trim() && { q: search.value.trim() }) });
    const { items } = await call("GET", `/admin/users?${query}`, { signal });
    found.replaceChildren(table([text.username, text.role, text.status, text.created, text.change], items.map(row)));
  }

  /** @param {any} user */
  function row(user) {
    const change = (/** @type {any} */ body) => async () => {
      try {
        await call("PATCH", `/admin/users/${user.id}`, { body });
        await load();
      } catch (error) {
        notify(/** @type {Error} */ (error).message);
      }
    };
    const isAdmin = user.role === "admin";
    const button = (/** @type {string} */ label, /** @type {any} */ body) =>
      h("button", { class: "plain", "aria-label": `${label}: ${user.username}`, onclick: change(body) }, label);
    const buttons = h(
      "span",
      { class: "row" },
      button(isAdmin ? text.makeUser : text.makeAdmin, { role: isAdmin ? "user" : "admin" }),
      button(user.disabled ? text.enable : text.disable, { disabled: !user.disabled }),
    );
    const isOwn = user.id === currentUser().id;
    return [user.username, user.role, user.disabled ? text.disabled : text.enabled, date(user.created_at), isOwn ? "" : buttons];
  }
}

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function auditView(main, signal) {
  const body = frame(main, text.audit);
  const { items } = await call("GET", "/admin/audit?limit=100", { signal });
  const rows = items.map((/** @type {any} */ it) => [
    time(it.at),
    it.action.replaceAll("_", " "),
    it.actor?.username ?? "–",
    it.subject?.username ?? "–",
    it.address ?? "–",
  ]);
  body.append(table([text.when, text.action, text.who, text.whom, text.address], rows));
}
