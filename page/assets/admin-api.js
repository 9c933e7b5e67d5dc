// @ts-check
/**
 * Requests to the service with the administrator's token.
 *
 * Owns the token: it is kept for this tab alone, and sent in no other way than as `Authorization`.
 */

const TOKEN_KEY = "allocator:admin-token";
const FRAGMENT = "#token=";

/** A refusal, or a failure to reach the service. */
export class ApiError extends Error {
  /** @param {number} status 0 if the service was not reached @param {any} [problem] @param {Headers} [headers] */
  constructor(status, problem = {}, headers = new Headers()) {
    super(
      problem.detail ||
        problem.title ||
        (status ? `The service answered ${status}.` : "The service cannot be reached."),
    );
    this.status = status;
    this.slug =
      String(problem.type ?? "")
        .split("/")
        .pop() ?? "";
    /** @type {{pointer: string, detail: string}[]} */
    this.errors = Array.isArray(problem.errors) ? problem.errors : [];
    this.retryAfterSeconds = Number(headers.get("Retry-After")) || 0;
  }
}

/** Moves a token from the address to where it is kept, and returns the kept one. @returns {string | null} */
export function takeToken() {
  const { hash, pathname, search } = location;
  if (hash.startsWith(FRAGMENT)) {
    keepToken(hash.slice(FRAGMENT.length));
    // Neither the address bar nor the history keeps it.
    history.replaceState(null, "", pathname + search);
  }
  return memory ?? stored();
}

/** Where storage is forbidden, the token is kept until the page is left. @type {string | null} */
let memory = null;

function stored() {
  try {
    return sessionStorage.getItem(TOKEN_KEY);
  } catch {
    return null;
  }
}

/** @param {string | null} token null forgets it */
export function keepToken(token) {
  memory = token;
  try {
    if (token === null) sessionStorage.removeItem(TOKEN_KEY);
    else sessionStorage.setItem(TOKEN_KEY, token);
  } catch {
    // Kept in memory alone.
  }
}

/** A random key for `Idempotency-Key`: a request that is repeated with it is done once. */
export function idempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Sends a request. The answer's body is parsed if it is JSON.
 *
 * @param {string} method @param {string} path
 * @param {{body?: any, headers?: Record<string, string>, token?: string | null}} [options]
 * @returns {Promise<{body: any, headers: Headers, status: number}>}
 */
export async function request(method, path, { body, headers = {}, token = takeToken() } = {}) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: {
        Accept: "application/json",
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
    });
  } catch {
    throw new ApiError(0);
  }
  const isJson = /json/.test(response.headers.get("Content-Type") ?? "");
  const content = isJson ? await response.json().catch(() => null) : null;
  if (!response.ok) throw new ApiError(response.status, content ?? {}, response.headers);
  return { body: content, headers: response.headers, status: response.status };
}

/** Reads a JSON body. @param {string} path */
export const get = async (path) => (await request("GET", path)).body;

/** Submits a job-like request once. @param {string} path @param {any} [body] @param {string} [key] */
export const post = async (path, body, key = idempotencyKey()) =>
  (await request("POST", path, { body, headers: { "Idempotency-Key": key } })).body;
