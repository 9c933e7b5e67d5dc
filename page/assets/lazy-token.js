// @ts-check
/**
 * The personal token of a link, `#t=JWT`: taken out of the address, kept for this tab, and sent with the person's requests.
 *
 * It is never in a query, which servers and proxies write into their logs. Another person's link replaces the token of
 * the tab only after a question, so that nobody answers under a name that somebody else has chosen.
 */
import { button, find, make } from "./dom.js";

const FRAGMENT = "#t=";

/**
 * Takes the token of the address, or the one that this tab has kept for the budget.
 *
 * @param {string} budget
 * @param {() => Promise<boolean>} askToReplace asks whether another person's token takes the place of the kept one
 * @param {{location: Location, history: History, storage: () => Storage}} [surroundings]
 * @returns {Promise<string | null>}
 */
export async function takeToken(budget, askToReplace, surroundings) {
  const { location, history, storage } = surroundings ?? {
    location: globalThis.location,
    history: globalThis.history,
    storage: () => globalThis.sessionStorage,
  };
  const key = `allocator:token:${budget}`;
  const given = location.hash.startsWith(FRAGMENT) ? location.hash.slice(FRAGMENT.length) : "";
  if (given) history.replaceState(history.state, "", location.pathname + location.search);
  /** @type {string | null} */
  let kept = null;
  try {
    // Storage may throw: then the token lasts as long as the page.
    kept = storage().getItem(key);
  } catch {
    return given || null;
  }
  if (!given) return kept;
  if (kept && personOf(kept) !== personOf(given) && !(await askToReplace())) return kept;
  try {
    storage().setItem(key, given);
  } catch {
    // As above.
  }
  return given;
}

/**
 * Whose token it is: a renewed token is the same person's. Nothing is verified, which the server does.
 *
 * @param {string} token
 */
function personOf(token) {
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const { iss, sub } = JSON.parse(atob(payload));
    return JSON.stringify([iss, sub]);
  } catch {
    return token;
  }
}

/**
 * Asks on the page whether to go on as the person of the link.
 *
 * @param {import("./dom.js").Words} words
 * @returns {Promise<boolean>}
 */
export function askToReplace({ text }) {
  return new Promise((resolve) => {
    const answer = (/** @type {boolean} */ replaces) => {
      question.remove();
      resolve(replaces);
    };
    const question = make("div", { class: "notice", id: "token-question", role: "alertdialog", "aria-labelledby": "token-question-text" },
      make("p", { id: "token-question-text" }, text("token_question")),
      make("div", { class: "actions" }, button(text("token_keep"), () => answer(false)), button(text("token_replace"), () => answer(true))));
    (find("#allocation") ?? find("#receipt"))?.before(question);
    find("button", question)?.focus();
  });
}

/** Opens the page anew for a link that changes the fragment alone. */
export function followLinks() {
  globalThis.addEventListener("hashchange", () => {
    if (globalThis.location.hash.startsWith(FRAGMENT)) globalThis.location.reload();
  });
}

/**
 * A `fetch` that sends the token. With none, the cookies say who asks.
 *
 * @param {typeof fetch} fetch @param {string | null} token @returns {typeof fetch}
 */
export function withToken(fetch, token) {
  if (!token) return fetch;
  return (url, options = {}) => {
    const headers = new Headers(options.headers);
    headers.set("Authorization", `Bearer ${token}`);
    return fetch(url, { ...options, headers });
  };
}
