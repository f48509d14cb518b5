/** @type {() => void} */
let show = () => {};

/** @param {() => void} act what shows the page of the present address */
export const whenNavigated = (act) => (show = act);

/**
 * Goes to another address of the page.
 * @param {string} path
 */
export function go(path) {
  history.pushState(null, "", path);
  scrollTo(0, 0);
  show();
  document.getElementById("main")?.focus();
}
