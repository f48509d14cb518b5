import { call, forget } from "./api.js";
import { date, field, h, notify, setTitle } from "./dom.js";
import { text } from "./text.js";

/**
 * Password, sessions, keys, and the end of the account.
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function accountView(main, signal) {
  setTitle(text.account);
  const sessions = h("ul", { class: "posts" });
  const keys = h("ul", { class: "posts" });
  main.append(
    h("h1", {}, text.account),
    passwordForm(),
    h("h2", {}, text.sessions),
    sessions,
    h(
      "p",
      {},
      h("button", { onclick: () => act("DELETE", "/users/me/sessions", listSessions) }, text.endOthers),
    ),
    h("h2", {}, text.keys),
    h("p", { class: "soft" }, text.keysHint),
    keys,
    keyForm(),
    h("h2", {}, text.deleteAccount),
    deleteForm(),
  );
  await Promise.all([listSessions(), listKeys()]);

  /**
   * @param {string} method
   * @param {string} path
   * @param {() => Promise<void>} then
   */
  async function act(method, path, then) {
    try {
      await call(method, path);
      await then();
    } catch (error) {
      notify(/** @type {Error} */ (error).message);
    }
  }

  async function listSessions() {
    const { items } = await call("GET", "/users/me/sessions", { signal });
    sessions.replaceChildren(
      ...items.map((/** @type {any} */ it) =>
        h(
          "li",
          {},
          it.user_agent ?? it.ip,
          h(
            "p",
            { class: "soft row" },
            it.current ? text.thisSession : text.lastUsed(date(it.last_used_at)),
            !it.current &&
              h(
                "button",
                { class: "plain", onclick: () => act("DELETE", `/users/me/sessions/${it.id}`, listSessions) },
                text.end,
              ),
          ),
        ),
      ),
    );
  }

  async function listKeys() {
    const { items } = await call("GET", "/users/me/keys", { signal });
    keys.replaceChildren(
      ...items.map((/** @type {any} */ it) =>
        h(
          "li",
          {},
          it.name,
          h(
            "p",
            { class: "soft row" },
            `${it.prefix}… · ${it.scopes.join(", ")} · `,
            it.last_used_at ? text.lastUsed(date(it.last_used_at)) : text.neverUsed,
            h(
              "button",
              {
                class: "plain",
                "aria-label": `${text.revoke}: ${it.name}`,
                onclick: () => act("DELETE", `/users/me/keys/${it.id}`, listKeys),
              },
              text.revoke,
            ),
          ),
        ),
      ),
    );
  }

  /**
   * A form that tells what is wrong.
   * @param {Node[]} controls
   * @param {string} label
   * @param {() => Promise<void>} send
   */
  function form(controls, label, send) {
    const errors = h("div", { class: "error", role: "alert" });
    const submit = h("button", {}, label);
    return h(
      "form",
      {
        onsubmit: async (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          submit.disabled = true;
          errors.replaceChildren();
          try {
            await send();
          } catch (error) {
            const { errors: faults, message } = /** @type {import("./api.js").ApiError} */ (error);
            const told = faults?.map((fault) => `${fault.field} ${fault.message}.`) ?? [];
            errors.append(...(told.length ? told : [message]));
          } finally {
            submit.disabled = false;
          }
        },
      },
      ...controls,
      errors,
      h("p", { class: "row" }, submit),
    );
  }

  function passwordForm() {
    const now = h("input", { type: "password", autocomplete: "current-password", required: true });
    const next = h("input", { type: "password", autocomplete: "new-password", required: true });
    const controls = [
      h("h2", {}, text.changePassword),
      field(text.currentPassword, now),
      field(text.newPassword, next, text.passwordHint),
    ];
    return form(controls, text.change, async () => {
      const body = { current_password: now.value, new_password: next.value };
      await call("PUT", "/users/me/password", { body });
      now.value = next.value = "";
      notify(text.changed);
      await listSessions();
    });
  }

  function keyForm() {
    const name = h("input", { maxlength: 100, required: true, dir: "auto" });
    const write = h("input", { type: "checkbox", id: "key-write" });
    const shown = h("div", { role: "status" });
    const controls = [
      field(text.keyName, name),
      h("p", {}, h("label", { for: "key-write" }, write, text.mayWrite)),
      shown,
    ];
    return form(controls, text.makeKey, async () => {
      const scopes = write.checked ? ["read", "write"] : ["read"];
      const made = await call("POST", "/users/me/keys", { body: { name: name.value, scopes } });
      name.value = "";
      shown.replaceChildren(h("p", {}, text.newKey), h("code", { class: "key" }, made.key));
      await listKeys();
    });
  }

  function deleteForm() {
    const password = h("input", { type: "password", autocomplete: "current-password", required: true });
    const controls = [h("p", { class: "soft" }, text.deleteHint), field(text.currentPassword, password)];
    return form(controls, text.deleteAccount, async () => {
      await call("DELETE", "/users/me", { body: { password: password.value } });
      forget();
    });
  }
}
