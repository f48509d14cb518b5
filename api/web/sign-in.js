import { ApiError, signIn } from "./api.js";
import { field, h, setTitle } from "./dom.js";
import { text } from "./text.js";

/**
 * @param {HTMLElement} main
 * @param {() => void} onSignedIn
 * @param {"login" | "register"} [how]
 */
export function signInView(main, onSignedIn, how = "login") {
  const isNew = how === "register";
  setTitle(isNew ? text.signUp : text.signIn);
  const username = h("input", { autocomplete: "username", required: true, autocapitalize: "none" });
  const password = h("input", {
    type: "password",
    required: true,
    autocomplete: isNew ? "new-password" : "current-password",
  });
  const errors = h("div", { class: "error", role: "alert" });
  const submit = h("button", { class: "main" }, isNew ? text.signUp : text.signIn);
  const form = h(
    "form",
    { onsubmit: send },
    field(text.username, username),
    field(text.password, password, isNew ? text.passwordHint : undefined),
    errors,
    h("p", { class: "row" }, submit),
  );
  const other = isNew ? "login" : "register";
  const turn = () => signInView(main, onSignedIn, other);
  main.replaceChildren(
    h("h1", {}, isNew ? text.signUp : text.signIn),
    form,
    h(
      "p",
      { class: "soft" },
      isNew ? text.haveAccount : text.noAccount,
      " ",
      h("button", { class: "plain", onclick: turn }, isNew ? text.signIn : text.signUp),
    ),
  );
  username.focus();

  /** @param {SubmitEvent} event */
  async function send(event) {
    event.preventDefault();
    submit.disabled = true;
    errors.replaceChildren();
    try {
      await signIn(how, username.value, password.value);
      onSignedIn();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const faults = error.errors.map((fault) => h("p", {}, `${fault.field} ${fault.message}.`));
      errors.append(...(faults.length ? faults : [h("p", {}, error.message)]));
      submit.disabled = false;
    }
  }
}
