// @ts-check
/**
 * The personal token of a link, `#t=JWT`: taken out of the address, kept for this tab, and sent with the person's requests.
 *
 * It is never in a query, which servers and proxies write into their logs.
 */

const FRAGMENT = "#t=";

/**
 * Takes the token of the address, or the one that this tab has kept for the budget.
 *
 * @param {string} budget
 * @param {{location: Location, history: History, storage: () => Storage}} [surroundings]
 * @returns {string | null}
 */
export function takeToken(budget, surroundings) {
  const { location, history, storage } = surroundings ?? {
    location: globalThis.location,
    history: globalThis.history,
    storage: () => globalThis.sessionStorage,
  };
  const key = `allocator:token:${budget}`;
  const given = location.hash.startsWith(FRAGMENT) ? location.hash.slice(FRAGMENT.length) : "";
  if (given) history.replaceState(history.state, "", location.pathname + location.search);
  try {
    // Storage may throw: then the token lasts as long as the page.
    if (given) storage().setItem(key, given);
    return given || storage().getItem(key);
  } catch {
    return given || null;
  }
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
