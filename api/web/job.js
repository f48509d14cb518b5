import { ApiError, call } from "./api.js";
import { h, notify } from "./dom.js";
import { watch } from "./events.js";
import { LiveText } from "./live.js";
import { reviewOutline } from "./outline.js";
import { sourceList } from "./sources.js";
import { text } from "./text.js";

/**
 * Shows a post while its job is at work, until it has ended.
 * @param {HTMLElement} place
 * @param {any} post
 * @param {AbortSignal} signal
 * @returns {Promise<any>} the end of the job
 */
export async function watchJob(place, post, signal) {
  const { job } = post;
  const live = new LiveText(post.topic);
  const line = h("span", { role: "status" }, text.queued);
  const count = h("span", { class: "soft" });
  const bar = h("progress", { max: 100, value: 0, "aria-label": text.writing });
  const stop = (/** @type {boolean} */ keep) => async () => {
    try {
      await call("POST", `/jobs/${job.id}/cancel?keep=${keep}`);
    } catch (error) {
      if (!(error instanceof ApiError && error.code === "job_finished")) {
        notify(/** @type {Error} */ (error).message);
      }
    }
  };
  const keep = h("button", { hidden: true, onclick: stop(true) }, text.stopKeep);
  const discard = h("button", { onclick: stop(false) }, text.stopDiscard);
  const follow = () => live.follow();
  const newest = h("button", { class: "plain", hidden: true, onclick: follow }, text.newest);
  const controls = h("div", { class: "row" }, keep, discard, newest);
  const review = h("div");
  const found = h("div");
  /** @type {Map<number, any>} */
  const sources = new Map();
  place.replaceChildren(
    h("div", { class: "status" }, h("div", { class: "row" }, line, count), bar, controls),
    review,
    found,
    live.element,
  );
  if (job.queue_position > 1) line.textContent = text.position(job.queue_position);
  const begun = Date.now();
  let first = 0;
  let end = null;

  /**
   * @param {string} event
   * @param {any} data
   */
  const on = (event, data) => {
    live.apply(event, data);
    if (keep.hidden && live.hasText()) keep.hidden = newest.hidden = false;
    if (event === "snapshot") {
      sources.clear();
      for (const source of data.sources ?? []) sources.set(source.number, source);
      showSources();
      setStatus(data.status);
      setPhase(data.phase);
      setProgress(data.progress);
    } else if (event === "status") setStatus(data.status);
    else if (event === "phase") setPhase(data.phase);
    else if (event === "progress") setProgress(data);
    else if (event === "end") end = data;
    else if (event === "source") {
      sources.set(data.number, data);
      showSources();
    }
  };

  /** @param {string} status */
  function setStatus(status) {
    if (status === "queued") line.textContent = text.queued;
    if (status === "canceling") line.textContent = text.canceling;
    const isReview = status === "awaiting_review";
    bar.hidden = live.element.hidden = isReview;
    if (!isReview) return review.replaceChildren();
    line.textContent = text.awaitingReview;
    reviewOutline(review, post.id, signal).catch((error) => signal.aborted || notify(error.message));
  }

  /** @param {string | null} phase */
  function setPhase(phase) {
    if (phase === "researching") line.textContent = text.researching;
    if (phase === "reading") line.textContent = text.reading;
    if (phase === "checking") line.textContent = text.checking;
    if (phase === "outline") line.textContent = text.outlinePhase;
    if (phase === "writing") line.textContent = text.writing;
    if (phase === "assembling") line.textContent = text.assembling;
  }

  /** What became of the sources so far. */
  function showSources() {
    const inOrder = [...sources.values()].sort((a, b) => a.number - b.number);
    found.replaceChildren(sourceList({ sources: inOrder }) || "");
  }

  /** @param {{ percent: number, words: number }} progress */
  function setProgress({ percent, words }) {
    bar.value = percent;
    first ||= percent;
    const seconds = (Date.now() - begun) / 1000;
    const speed = (percent - first) / seconds;
    const left = speed > 0 && seconds > 5 ? ` · ${text.minutesLeft((100 - percent) / speed)}` : "";
    count.textContent = words ? text.words_(words) + left : "";
  }

  await watch(job.id, on, signal);
  return end;
}
