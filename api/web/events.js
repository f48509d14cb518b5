import { ApiError, pause, send } from "./api.js";

// Browsers have six connections to a host over HTTP/1.1, for all tabs. So of all tabs only the one that
// was looked at last holds a stream; the others ask each second, and hidden ones not at all.
const tabs = new BroadcastChannel("blog-stream");
let holdsStream = false;
let watching = 0;
/** Aborted when this tab is to watch in another way. */
let turn = new AbortController();

/** @param {boolean} holds */
function change(holds) {
  holdsStream = holds;
  turn.abort();
  turn = new AbortController();
}

function claimStream() {
  if (!watching || holdsStream || document.hidden) return;
  change(true);
  tabs.postMessage("claimed");
}

tabs.onmessage = () => holdsStream && change(false);
addEventListener("focus", claimStream);
document.addEventListener("visibilitychange", () => (document.hidden ? change(false) : claimStream()));

/**
 * Watches a job to its end, over any break.
 * @param {string} job
 * @param {(event: string, data: any) => void} on
 * @param {AbortSignal} signal
 */
export async function watch(job, on, signal) {
  watching += 1;
  if (document.hasFocus()) claimStream();
  try {
    await watchToEnd(job, on, signal);
  } finally {
    watching -= 1;
  }
}

/** @type {typeof watch} */
async function watchToEnd(job, on, signal) {
  /** @type {number | undefined} */
  let after;
  while (!signal.aborted) {
    if (document.hidden) {
      await becomesVisible(signal);
      continue;
    }
    const now = turn.signal;
    const until = AbortSignal.any([signal, now]);
    try {
      for await (const { id, event, data } of await open(job, after, until)) {
        after = id;
        on(event, data);
        if (event === "end") return;
      }
    } catch (error) {
      if (signal.aborted || error === OVER) return;
      const isLasting = error instanceof ApiError && [401, 403, 404].includes(error.status);
      if (isLasting) throw error;
    }
    if (!now.aborted) await pause(1000);
  }
}

const OVER = Symbol("the job has ended, and all of its events are known");

/**
 * @typedef {{ id: number, event: string, data: any }} JobEvent
 */

/**
 * The events that follow: as they come, or those that there are.
 * @param {string} job
 * @param {number | undefined} after
 * @param {AbortSignal} signal
 * @returns {Promise<AsyncIterable<JobEvent> | JobEvent[]>}
 */
async function open(job, after, signal) {
  const accept = holdsStream ? "text/event-stream" : "application/json";
  const query = after === undefined ? "" : `?after=${after}`;
  const answer = await send("GET", `/jobs/${job}/events${query}`, { headers: { accept }, signal });
  if (answer.status === 204 || !answer.body) throw OVER;
  const isStream = answer.headers.get("content-type")?.startsWith("text/event-stream");
  return isStream ? streamed(answer.body) : (await answer.json()).events;
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
const becomesVisible = (signal) =>
  new Promise((resolve) => {
    const seen = new AbortController();
    const act = () => {
      seen.abort();
      resolve();
    };
    document.addEventListener("visibilitychange", act, { signal: seen.signal });
    signal.addEventListener("abort", act, { signal: seen.signal });
  });

/**
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @returns {AsyncGenerator<JobEvent>}
 */
async function* streamed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      for (let end = buffer.indexOf("\n\n"); end >= 0; end = buffer.indexOf("\n\n")) {
        /** @type {Record<string, string>} */
        const fields = {};
        for (const line of buffer.slice(0, end).split("\n")) {
          const at = line.indexOf(": ");
          if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
        }
        buffer = buffer.slice(end + 2);
        if (!fields.data) continue;
        yield { id: Number(fields.id), event: fields.event, data: JSON.parse(fields.data) };
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
