import { call } from "./api.js";
import { duration, eachSecond, frame, time } from "./console.js";
import { h, notify } from "./dom.js";
import { text } from "./text.js";

/** Larger counts are not counted. */
const MAX_COUNTED = 10_000;

/** How often the last hour is asked for, in milliseconds. */
const CHART_AGE = 5000;

/**
 * The queue at a glance.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function queueView(main, signal) {
  const body = frame(main, text.queue);
  const numbers = h("dl", { class: "numbers" });
  const state = h("p", { role: "status" });
  const button = h("button", { hidden: true, onclick: turn });
  const chart = h("div");
  body.append(h("div", { class: "row" }, state, button), numbers, chart);
  let isPaused = false;
  let charted = 0;
  await eachSecond(signal, async () => {
    show(await call("GET", "/admin/queue", { signal }));
    if (Date.now() - charted < CHART_AGE) return;
    const { items } = await call("GET", "/admin/queue/history", { signal });
    chart.replaceChildren(...hour(items));
    charted = Date.now();
  });

  /** @param {any} queue */
  function show(queue) {
    isPaused = queue.paused;
    const said = isPaused ? text.pausedSince(time(queue.paused_at)) : text.atWork;
    if (state.textContent !== said) state.textContent = said;
    button.textContent = isPaused ? text.resume : text.pause;
    button.hidden = false;
    const counts = Object.entries(queue.counts);
    const oldest = queue.oldest_queued_seconds;
    const entries = [
      ...counts.map(([status, count]) => [status.replaceAll("_", " "), upTo(count)]),
      [text.oldest, oldest == null ? "–" : duration(oldest * 1000)],
      [text.perMinute, queue.jobs_per_minute.toLocaleString()],
      [text.pickup, percentiles(queue.pickup_ms)],
      [text.lasted, percentiles(queue.duration_ms)],
    ];
    numbers.replaceChildren(
      ...entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
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

/** @param {number} count */
const upTo = (count) => count.toLocaleString() + (count >= MAX_COUNTED ? "+" : "");

const HEIGHT = 80;
const BAR = 10;

/**
 * A bar for each minute: the jobs that finished in it, and how many of them failed.
 * @param {{ start: string, finished: number, failed: number }[]} minutes
 */
function hour(minutes) {
  const sum = (/** @type {"finished" | "failed"} */ what) => minutes.reduce((all, it) => all + it[what], 0);
  const most = Math.max(...minutes.map((it) => it.finished));
  const height = (/** @type {number} */ count) => count && Math.max((count / most) * HEIGHT, 1.5);
  const bars = minutes.flatMap(({ start, finished, failed }, at) => {
    const bar = (/** @type {string} */ name, /** @type {number} */ count) =>
      count > 0 &&
      svg("rect", {
        class: name,
        x: at * BAR + 1,
        width: BAR - 2,
        y: HEIGHT - height(count),
        height: height(count),
      });
    const title = svg("title", {});
    title.textContent = text.minute(new Date(start).toLocaleTimeString(), upTo(finished), failed);
    // A bar that fills the height, so that the mouse finds small ones.
    const whole = svg("rect", { class: "whole", x: at * BAR, width: BAR, y: 0, height: HEIGHT });
    const group = svg("g", {});
    group.append(
      title,
      ...[whole, bar("finished", finished), bar("failed", failed)].filter((it) => it !== false),
    );
    return group;
  });
  const label = text.hour(sum("finished"), sum("failed"), upTo(most));
  const drawing = svg("svg", {
    class: "chart",
    role: "img",
    "aria-label": label,
    viewBox: `0 0 ${minutes.length * BAR} ${HEIGHT}`,
    preserveAspectRatio: "none",
  });
  drawing.append(...bars);
  return [
    h("h2", {}, text.lastHour),
    drawing,
    h(
      "p",
      { class: "row apart soft" },
      h("span", {}, text.hourAgo),
      h("span", {}, label),
      h("span", {}, text.now),
    ),
  ];
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}
