import { text } from "./text.js";

/**
 * What the API answered instead of what was asked for.
 */
export class ApiError extends Error {
  /**
   * @param {number} status 0 if there was no answer
   * @param {any} problem
   */
  constructor(status, problem) {
    super(problem?.detail ?? text.offline);
    this.status = status;
    this.code = problem?.code ?? "offline";
    /** @type {{ field: string, message: string }[]} */
    this.errors = problem?.errors ?? [];
  }
}

const BASE = "/api/v1";
const OWN_PAGE = { "x-requested-with": "blog" };

/** @type {string | null} in memory alone: the refresh token is a cookie that no script can read */
let token = null;
/** @type {any} */
let user = null;
/** @type {Promise<boolean> | null} */
let refreshing = null;
/** @type {() => void} */
let onChange = () => {};
let isStarted = false;

// Tabs share a session: they hand each other the access token, so that few of them refresh it.
const tabs = new BroadcastChannel("blog");
tabs.onmessage = (/** @type {MessageEvent} */ { data }) => {
  if (data.kind === "ask" && token) tabs.postMessage({ kind: "token", token, user });
  if (data.kind === "token") {
    // Somebody else has signed in: what is shown here is not theirs.
    if (user && user.id !== data.user.id) return location.reload();
    const isNew = !user;
    ({ token, user } = data);
    if (isNew && isStarted) onChange();
  }
  if (data.kind === "signed-out" && user?.id === data.user) {
    token = user = null;
    onChange();
  }
};

/** The session is over, for all tabs. */
export function forget() {
  if (user) tabs.postMessage({ kind: "signed-out", user: user.id });
  token = user = null;
  onChange();
}

export const currentUser = () => user;

/** @param {() => void} act when somebody has signed in or out */
export const whenSessionChanges = (act) => (onChange = act);

/** @param {any} pair */
function take(pair) {
  token = pair.access_token;
  user = pair.user;
  tabs.postMessage({ kind: "token", token, user });
}

/**
 * Goes on with the session that the browser has, if it has one.
 * @returns {Promise<boolean>}
 */
export async function resume() {
  try {
    tabs.postMessage({ kind: "ask" });
    await pause(60);
    return token ? true : await refresh();
  } finally {
    isStarted = true;
  }
}

/** @returns {Promise<boolean>} whether there is a session */
function refresh() {
  refreshing ??= refreshOnce().finally(() => (refreshing = null));
  return refreshing;
}

async function refreshOnce() {
  const spent = token;
  /** @returns {Promise<boolean>} */
  const act = async () => {
    // Another tab may have done it meanwhile.
    if (token !== spent) return true;
    const answer = await fetchApi("/users/refresh", { method: "POST", headers: OWN_PAGE });
    if (answer.status === 401 || answer.status === 403) return false;
    if (!answer.ok) throw new ApiError(answer.status, await problem(answer));
    take(await answer.json());
    return true;
  };
  if (navigator.locks) return navigator.locks.request("blog-refresh", act);
  // Where the page is not served over https there are no locks, and the API lets two tabs through.
  await pause(Math.random() * 500);
  tabs.postMessage({ kind: "ask" });
  await pause(60);
  return act();
}

/**
 * @param {"login" | "register"} how
 * @param {string} username
 * @param {string} password
 */
export async function signIn(how, username, password) {
  const body = JSON.stringify({ username, password, client: "browser" });
  const headers = { "content-type": "application/json" };
  const answer = await fetchApi(`/users/${how}`, { method: "POST", headers, body });
  if (!answer.ok) throw new ApiError(answer.status, await problem(answer));
  take(await answer.json());
}

export async function signOut() {
  const headers = { ...OWN_PAGE, ...bearer() };
  const answer = await fetchApi("/users/logout", { method: "POST", headers });
  if (!answer.ok && answer.status !== 401) throw new ApiError(answer.status, await problem(answer));
  forget();
}

/** @returns {Record<string, string>} */
const bearer = () => (token ? { authorization: `Bearer ${token}` } : {});

/**
 * @param {string} path
 * @param {RequestInit} options
 */
async function fetchApi(path, options) {
  try {
    return await fetch(BASE + path, { ...options, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, null);
  }
}

/** @param {Response} answer */
async function problem(answer) {
  try {
    return await answer.json();
  } catch {
    return null;
  }
}

const EXPIRED = ["unauthenticated", "token_expired", "session_revoked"];

/**
 * @typedef {{ body?: any, headers?: Record<string, string>, signal?: AbortSignal, keepalive?: boolean }} More
 */

/**
 * Sends a request of the signed-in user.
 * @param {string} method
 * @param {string} path
 * @param {More} [more]
 * @returns {Promise<Response>}
 */
export async function send(method, path, { body, headers = {}, signal, keepalive } = {}) {
  /** @type {Record<string, string>} */
  const json = body === undefined ? {} : { "content-type": "application/json" };
  const attempt = async () => {
    const answer = await fetchApi(path, {
      method,
      headers: { ...json, ...headers, ...bearer() },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      keepalive,
    });
    return answer.ok ? answer : new ApiError(answer.status, await problem(answer));
  };
  let answer = await attempt();
  if (answer instanceof ApiError && EXPIRED.includes(answer.code)) {
    if (!(await refresh())) {
      forget();
      throw new ApiError(401, { detail: text.sessionOver, code: "session_over" });
    }
    answer = await attempt();
  }
  if (answer instanceof ApiError) throw answer;
  return answer;
}

/**
 * The JSON that a request brings.
 * @param {string} method
 * @param {string} path
 * @param {More} [more]
 */
export async function call(method, path, more) {
  const answer = await send(method, path, more);
  return answer.status === 204 ? null : answer.json();
}

/** @param {number} ms */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
