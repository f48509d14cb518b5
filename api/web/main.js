import { accountView } from "./account.js";
import { currentUser, pause, resume, signOut, whenSessionChanges } from "./api.js";
import { auditView } from "./console-audit.js";
import { jobView } from "./console-job.js";
import { jobsView } from "./console-jobs.js";
import { queueView } from "./console-queue.js";
import { usersView } from "./console-users.js";
import { workersView } from "./console-workers.js";
import { h, notify, setTitle } from "./dom.js";
import { go, whenNavigated } from "./navigate.js";
import { postView } from "./post.js";
import { postsView } from "./posts.js";
import { signInView } from "./sign-in.js";
import { text } from "./text.js";
import { versionsView } from "./versions.js";
import { writeView } from "./write.js";

/**
 * @typedef {(main: HTMLElement, signal: AbortSignal, ...parts: string[]) => void | Promise<void>} View
 */

/** @type {[RegExp, View][]} */
const VIEWS = [
  [/^\/(?:app\/)?$/, writeView],
  [/^\/app\/posts$/, postsView],
  [/^\/app\/posts\/([0-9a-f-]+)$/, postView],
  [/^\/app\/posts\/([0-9a-f-]+)\/versions$/, versionsView],
  [/^\/app\/account$/, accountView],
  [/^\/app\/console$/, queueView],
  [/^\/app\/console\/jobs$/, jobsView],
  [/^\/app\/console\/jobs\/([0-9a-f-]+)$/, jobView],
  [/^\/app\/console\/workers$/, workersView],
  [/^\/app\/console\/users$/, usersView],
  [/^\/app\/console\/audit$/, auditView],
];

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const top_ = /** @type {HTMLElement} */ (document.getElementById("top"));
let leaving = new AbortController();
/** The address of what is shown. */
let shown = "";

/** Shows what the address says. */
function show() {
  shown = location.pathname + location.search;
  leaving.abort();
  leaving = new AbortController();
  main.replaceChildren();
  main.classList.remove("wide");
  drawTop();
  if (!currentUser()) return signInView(main, show);
  const found = VIEWS.map(([path, view]) => ({ view, match: path.exec(location.pathname) }));
  const { view, match } = found.find(({ match }) => match) ?? {};
  if (!view || !match) {
    setTitle();
    return main.append(h("h1", {}, text.notFound));
  }
  const { signal } = leaving;
  Promise.resolve(view(main, signal, ...match.slice(1))).catch((error) => {
    // What was left has no place any more.
    if (signal.aborted) return;
    main.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
  });
}

function drawTop() {
  const user = currentUser();
  if (!user) return top_.replaceChildren();
  const link = (/** @type {string} */ href, /** @type {string} */ label) =>
    h("a", { href, "aria-current": isAt(href) && "page" }, label);
  top_.replaceChildren(
    h(
      "nav",
      { "aria-label": text.title },
      link("/app/", text.write),
      link("/app/posts", text.posts),
      user.role === "admin" && link("/app/console", text.console),
    ),
    link("/app/account", user.username),
    h("button", { class: "plain", onclick: leave }, text.signOut),
  );
}

/** @param {string} href */
const isAt = (href) =>
  href === "/app/" ? /^\/(app\/)?$/.test(location.pathname) : location.pathname.startsWith(href);

async function leave() {
  try {
    await signOut();
  } catch (error) {
    notify(/** @type {Error} */ (error).message);
  }
}

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest("a");
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
  if (!link || !plain || link.origin !== location.origin || link.target) return;
  if (link.hash && link.pathname === location.pathname) return;
  if (!/^\/(app\/.*)?$/.test(link.pathname)) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
// A link within the page is none of ours.
addEventListener("popstate", () => location.pathname + location.search !== shown && show());
whenNavigated(show);
whenSessionChanges(show);

while (
  !(await resume().then(
    () => true,
    (error) => void main.replaceChildren(h("p", { role: "alert" }, error.message)),
  ))
) {
  await pause(2000);
}
show();
