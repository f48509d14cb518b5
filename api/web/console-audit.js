import { frame, pagedTable, time } from "./console.js";
import { text } from "./text.js";

/**
 * Who did what, the latest first.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function auditView(main, signal) {
  const body = frame(main, text.audit);
  const list = pagedTable([text.when, text.action, text.who, text.whom, text.address], row, signal);
  body.append(...list.nodes);
  await list.show("/admin/audit?limit=50");
}

/** @param {any} event */
const row = (event) => [
  time(event.at),
  event.action.replaceAll("_", " "),
  event.actor?.username ?? "–",
  event.subject?.username ?? "–",
  event.address ?? "–",
];
