import { call } from "./api.js";
import { duration, eachSecond, frame, redraw, tableOf, time } from "./console.js";
import { h, notify } from "./dom.js";
import { text } from "./text.js";

/**
 * One job, with its attempts.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} id
 */
export async function jobView(main, signal, id) {
  const body = frame(main, text.job);
  let shown = "";
  await eachSecond(signal, async () => show(await call("GET", `/admin/jobs/${id}`, { signal })));

  /** @param {any} job */
  function show(job) {
    const state = JSON.stringify(job);
    if (state === shown) return;
    shown = state;
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
      [
        text.tokens,
        `${job.usage.input_tokens.toLocaleString()} / ${job.usage.output_tokens.toLocaleString()}`,
      ],
      [text.error, job.error ? `${job.error.code}: ${job.error.message}` : "–"],
      [text.request, job.request_id ?? "–"],
    ];
    const attempts = job.attempts.map((/** @type {any} */ it) => [
      String(it.attempt),
      it.worker,
      time(it.started_at),
      it.finished_at ? duration(Date.parse(it.finished_at) - Date.parse(it.started_at)) : "–",
      it.outcome ?? "–",
      it.error ? `${it.error.code}: ${it.error.message}` : "–",
    ]);
    const ofUser = new URLSearchParams({ user_id: job.user.id });
    redraw(body, [
      h("p", { dir: "auto" }, job.topic),
      h(
        "p",
        { class: "soft" },
        h("a", { href: `/app/console/jobs?${ofUser}` }, job.user.username),
        ` · ${id}`,
      ),
      h(
        "dl",
        { class: "numbers" },
        ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
      ),
      tableOf([text.attempt, text.worker, text.started, text.took, text.outcome, text.error], attempts),
      h(
        "p",
        { class: "row" },
        !isOver && h("button", { onclick: act("cancel") }, text.cancel),
        ["failed", "canceled"].includes(job.status) && h("button", { onclick: act("retry") }, text.retry),
      ),
    ]);
  }
}
