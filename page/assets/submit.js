// @ts-check
/**
 * Sends a submission or withdrawal until the server gives a final answer, and keeps what is not sent yet.
 *
 * Owns retries, backoff, the idempotency key, and what a budget keeps in localStorage: draft, pending request, last
 * receipt. The pending request is stored before its first try, so that a reload or a lost answer repeats the same key.
 * Shows nothing: it reports states. Never holds the person's identity: that is a cookie which scripts cannot read.
 */

/** First and longest pause between tries. */
const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 30_000;
/** A try without an answer is given up after this. */
const TRY_TIMEOUT_MS = 30_000;
/** An older pending request is only sent after asking. */
export const ASK_AFTER_MS = 10 * 60_000;

const RETRIED = new Set([408, 429, 500, 502, 503, 504]);

/**
 * @typedef {{status: number, slug: string, detail: string, errors: {pointer: string, detail: string}[]}} Refusal
 * @typedef {{fetch: typeof fetch, now: () => number, random: () => number,
 *   sleep: (ms: number, wake: {now?: () => void}) => Promise<void>}} Surroundings
 */

/** @returns {Surroundings} */
export function browserSurroundings() {
  return {
    fetch: (...args) => globalThis.fetch(...args),
    now: () => Date.now(),
    random: () => Math.random(),
    sleep: (ms, wake) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        wake.now = () => {
          clearTimeout(timer);
          resolve();
        };
      }),
  };
}

/** A random UUID (version 4); `crypto.randomUUID` exists only on HTTPS. */
export function makeId() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** The urlencoded form of a request, as the server's own form sends it. @param {Pending} pending */
export function makeBody(pending) {
  const body = new URLSearchParams();
  for (const [category, value] of Object.entries(pending.values)) {
    if (value > 0) body.append(`c.${category}`, plain(value));
  }
  body.append("submission_id", pending.id);
  return body.toString();
}

/** Basis points as the API's number. @param {number} value */
function plain(value) {
  return `${Math.floor(value / 100)}.${String(value % 100).padStart(2, "0")}`.replace(/\.?0+$/, "") || "0";
}

/** Seconds or a date, as milliseconds from now. @param {string | null} header @param {number} now */
export function retryAfterMs(header, now) {
  const value = header?.trim() ?? "";
  // A date begins with the name of its day; `Date.parse` alone would also read numbers.
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : /^[A-Z]/i.test(value) ? Date.parse(value) - now : 0;
  return Number.isFinite(ms) && ms > 0 ? ms : 0;
}

/**
 * The pause before the next try: exponential, ± 25 %; never before `Retry-After`, and up to half of it later.
 *
 * @param {number} tries failed so far, at least 1
 * @param {number} afterMs from `Retry-After`, or 0
 * @param {() => number} random
 */
export function pauseMs(tries, afterMs, random) {
  const backoff = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(tries - 1, 10)) * (0.75 + random() / 2);
  return Math.round(Math.max(backoff, afterMs * (1 + random() / 2)));
}

/** Whether a pending request is too old to be sent without asking. @param {Pending} pending @param {number} now */
export function mustAsk(pending, now) {
  return now - pending.began_at > ASK_AFTER_MS;
}

/**
 * @param {{urls: Record<string, string>, store: Store,
 *   show: (state: {step: "sending" | "waiting" | "asks" | "stored" | "refused", pending: Pending, nextAt?: number,
 *   refusal?: Refusal}) => void, surroundings?: Surroundings}} options
 */
export function makeSender({ urls, store, show, surroundings = browserSurroundings() }) {
  const { fetch, now, random, sleep } = surroundings;
  let personReady = false;
  /** @type {Promise<Response> | null} */
  let preparing = null;
  /** @type {{now?: () => void}} */
  let wake = {};
  let earliestAt = 0;
  let runs = 0;

  /** @param {string} url @param {string} [body] */
  async function post(url, body) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), TRY_TIMEOUT_MS);
    try {
      return await fetch(url, {
        method: "POST",
        body: body ?? "",
        headers: { Accept: "application/json", "Content-Type": "application/x-www-form-urlencoded" },
        credentials: "same-origin",
        redirect: "error",
        cache: "no-store",
        signal: abort.signal,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Has the server set the person's cookie; once a page. Two requests at once would be two persons, and the answer of the
   * first would become nobody's.
   */
  async function preparePerson() {
    if (personReady) return null;
    preparing ??= post(urls.person).finally(() => (preparing = null));
    const response = await preparing;
    if (!response.ok) return response;
    personReady = true;
    return null;
  }

  /** One try. @param {Pending} pending @returns {Promise<{sent?: {receipt: string}, refusal?: Refusal, afterMs?: number}>} */
  async function attempt(pending) {
    const url = pending.kind === "withdraw" ? urls.withdraw : urls.submit;
    let response = (await preparePerson()) ?? (await post(url, makeBody(pending)));
    if (response.status === 403 && personReady) {
      // The cookie may have been deleted since; if it comes back, it was.
      personReady = false;
      response = (await preparePerson()) ?? (await post(url, makeBody(pending)));
    }
    const afterMs = retryAfterMs(response.headers.get("Retry-After"), now());
    if (response.status === 202) {
      const body = await response.json();
      return { sent: { receipt: String(body.receipt ?? response.headers.get("Consistency-Token") ?? "") } };
    }
    const refusal = await readRefusal(response);
    const again = RETRIED.has(refusal.status) || refusal.slug === "in-flight";
    return again ? { afterMs } : { refusal };
  }

  /** Sends the pending request until it is final, or too old to be sent without asking. */
  async function run() {
    const mine = ++runs;
    wake.now?.();
    let tries = 0;
    for (;;) {
      const pending = store.kept.pending;
      if (!pending || mine !== runs) return;
      if (mustAsk(pending, now())) {
        show({ step: "asks", pending });
        return;
      }
      show({ step: "sending", pending });
      let result;
      try {
        result = await attempt(pending);
      } catch {
        result = { afterMs: 0 };
      }
      // A newer answer replaced this one while it was under way.
      if (mine !== runs || store.kept.pending?.id !== pending.id) return;
      if (result.sent) {
        const { id, kind, values } = pending;
        store.accept({ id, kind, values, receipt: result.sent.receipt, stored_at: now(), counted: false });
        show({ step: "stored", pending });
        return;
      }
      if (result.refusal) {
        store.update({ pending: undefined });
        show({ step: "refused", pending, refusal: result.refusal });
        return;
      }
      tries += 1;
      const pause = pauseMs(tries, result.afterMs ?? 0, random);
      earliestAt = now() + (result.afterMs ?? 0);
      show({ step: "waiting", pending, nextAt: now() + pause });
      wake = {};
      await sleep(pause, wake);
    }
  }

  return {
    /** Sends a pending request of an earlier page, after the person agreed. */
    resume() {
      const pending = store.kept.pending;
      if (pending) store.update({ pending: { ...pending, began_at: now() } });
      return run();
    },
    /** Best effort at the first edit; the send itself repeats it. */
    prepare: () => preparePerson().then(() => undefined, () => undefined),
    /** Stores a request, then sends it. The same content keeps its key. @param {"submit" | "withdraw"} kind @param {Record<string, number>} values */
    send(kind, values) {
      const before = store.kept.pending;
      const same = before && before.kind === kind && JSON.stringify(before.values) === JSON.stringify(values);
      store.update({ pending: { id: same ? before.id : makeId(), kind, values, began_at: now() } });
      return run();
    },
    /** Tries at once, but not before the server's `Retry-After`. */
    hurry() {
      if (now() >= earliestAt) wake.now?.();
    },
    discard() {
      runs += 1;
      wake.now?.();
      store.update({ pending: undefined });
    },
  };
}

/** @param {Response} response @returns {Promise<Refusal>} */
async function readRefusal(response) {
  /** @type {any} */
  let body = null;
  try {
    body = await response.json();
  } catch {
    // Not a problem document: a proxy's own page.
  }
  return {
    status: response.status,
    slug: String(body?.type ?? "").split("/").pop() ?? "",
    detail: String(body?.detail ?? body?.title ?? response.statusText ?? ""),
    errors: Array.isArray(body?.errors) ? body.errors : [],
  };
}

/**
 * @typedef {{id: string, kind: "submit" | "withdraw", values: Record<string, number>, began_at: number}} Pending
 * @typedef {{id: string, kind: "submit" | "withdraw", values: Record<string, number>, receipt: string, stored_at: number,
 *   counted: boolean}} Sent
 * @typedef {{values: Record<string, string>, fixed: string[], at: number}} Draft
 * @typedef {{draft?: Draft, pending?: Pending, sent?: Sent, earlier?: string[]}} Kept
 */

/** Receipts of earlier answers that are listed. */
const MAX_EARLIER = 5;

/** Opens what a budget keeps; in memory where storage throws. @param {string} budget @param {() => Storage} [open] */
export function makeStore(budget, open = () => globalThis.localStorage) {
  const key = `allocator:${budget}`;
  /** @type {Kept} */
  let kept = {};
  let persistent = true;

  const attempt = (/** @type {(storage: Storage) => void} */ action) => {
    try {
      action(open());
    } catch {
      persistent = false;
    }
  };

  // Read anew each time: another tab of the same budget may have changed it.
  const load = () => attempt((storage) => {
    const text = storage.getItem(key);
    try {
      const value = text === null ? {} : JSON.parse(text);
      kept = value && typeof value === "object" ? value : {};
    } catch {
      // Damaged content counts as nothing.
      kept = {};
    }
  });
  load();

  return {
    key,
    get kept() {
      if (persistent) load();
      return kept;
    },
    /** Whether what is kept outlives the page. */
    get persistent() {
      return persistent;
    },
    /** Changes fields; `undefined` removes one. @param {Partial<Kept>} fields */
    update(fields) {
      kept = JSON.parse(JSON.stringify({ ...this.kept, ...fields }));
      attempt((storage) => {
        if (Object.keys(kept).length === 0) storage.removeItem(key);
        else storage.setItem(key, JSON.stringify(kept));
      });
    },
    /** Records an accepted request in place of the pending one. @param {Sent} sent */
    accept(sent) {
      const { sent: old, earlier: older = [] } = this.kept;
      const earlier = [...(old?.receipt ? [old.receipt] : []), ...older].slice(0, MAX_EARLIER);
      this.update({ sent, earlier: earlier.length > 0 ? earlier : undefined, pending: undefined, draft: undefined });
    },
  };
}

/** @typedef {ReturnType<typeof makeStore>} Store */
