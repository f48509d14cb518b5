import { call, currentUser } from "./api.js";
import { frame, pagedTable } from "./console.js";
import { date, field, h, notify } from "./dom.js";
import { text } from "./text.js";

/**
 * The users: their roles, and whether they may sign in.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function usersView(main, signal) {
  const body = frame(main, text.users);
  const search = h("input", { type: "search", autocapitalize: "none" });
  const list = pagedTable([text.username, text.role, text.status, text.created, text.change], row, signal);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    load().catch((error) => signal.aborted || notify(error.message));
  };
  body.append(h("form", { role: "search", onsubmit: submit }, field(text.search, search)), ...list.nodes);
  await load();

  function load() {
    const q = search.value.trim();
    return list.show(`/admin/users?${new URLSearchParams({ limit: "50", ...(q && { q }) })}`);
  }

  /** @param {any} user */
  function row(user) {
    const isOwn = user.id === currentUser().id;
    return [user.username, user.role, stateOf(user), date(user.created_at), isOwn ? "" : buttons(user)];
  }

  /** @param {any} user */
  function buttons(user) {
    const place = h("span", { class: "row" });
    const change = (/** @type {any} */ body) => async () => {
      try {
        draw(await call("PATCH", `/admin/users/${user.id}`, { body }));
      } catch (error) {
        notify(/** @type {Error} */ (error).message);
      }
    };
    const button = (/** @type {string} */ label, /** @type {any} */ body) =>
      h(
        "button",
        { class: "plain", "aria-label": `${label}: ${user.username}`, onclick: change(body) },
        label,
      );
    draw(user);
    return place;

    /** @param {any} now */
    function draw(now) {
      const isAdmin = now.role === "admin";
      const cells = place.closest("tr")?.cells;
      if (cells) [cells[1].textContent, cells[2].textContent] = [now.role, stateOf(now)];
      const at = [...place.children].indexOf(document.activeElement);
      place.replaceChildren(
        button(isAdmin ? text.makeUser : text.makeAdmin, { role: isAdmin ? "user" : "admin" }),
        button(now.disabled ? text.enable : text.disable, { disabled: !now.disabled }),
      );
      place.children[at]?.focus();
    }
  }
}

/** @param {any} user */
const stateOf = (user) => (user.disabled ? text.disabled : text.enabled);
