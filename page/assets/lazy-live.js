// @ts-check
/**
 * Brings newer aggregates while somebody watches: by the server's stream, or by polling where there is none.
 *
 * Owns the connection. Decides nothing about what is shown: `take` does. One connection a visible tab; none while
 * hidden for a minute, paused or final.
 */

/** Pause between polls: from 10 to 20 s, so that watchers do not come together. */
const POLL_MS = 15_000;
/** After a refused stream, the next attempt follows in 60 to 180 s. */
const STREAM_AGAIN_MS = 120_000;
/** Without an event or a beat for this long, the stream is called delayed. */
const SILENCE_MS = 45_000;
/** Tabs that lose the stream together ask for the aggregate at a moment of this span. */
const LOST_SPREAD_MS = 4_000;
/** A tab that is hidden for longer needs no connection. */
const HIDDEN_MS = 60_000;
/** An answer that is older is called delayed. */
const DELAYED_AFTER_S = 15;
/** Everybody who waits for the closing asks at a moment of this span. */
const CLOSING_SPREAD_MS = 10_000;
/** Longest delay that a browser's timer holds. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Proportional jitter. @param {number} base @param {number} part */
const around = (base, part) => base * (1 - part + 2 * part * Math.random());

/**
 * @typedef {"fresh" | "delayed" | "recounting" | "offline"} Freshness
 * @param {{urls: Record<string, string>, isWanted: () => boolean, closesAt: () => number, take: (aggregate: any) => void,
 *   show: (freshness: Freshness) => void, clockCorrection: (header: string | null) => void}} options
 *   `closesAt`: when withheld results appear, in milliseconds; 0 if they do not wait for that.
 */
export function makeLive({ urls, isWanted, closesAt, take, show, clockCorrection }) {
  /** @type {EventSource | null} */
  let source = null;
  /** @type {string | null} */
  let etag = null;
  let streamAgainAt = 0;
  let heardAt = 0;
  /** Whether the stream broke and nothing was heard since. */
  let lost = false;
  let polling = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let hiddenTimer;

  function stop() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  /** Begins, or begins anew, if somebody watches. */
  function start() {
    clearTimeout(hiddenTimer);
    if (!isWanted() || document.hidden) {
      if (!isWanted()) stop();
      return;
    }
    const waitMs = closesAt() - Date.now();
    if (waitMs > 0) {
      stop();
      timer = setTimeout(start, Math.min(MAX_TIMER_MS, waitMs + Math.random() * CLOSING_SPREAD_MS));
    } else if (urls.stream && "EventSource" in globalThis && Date.now() >= streamAgainAt) openStream();
    else if (!source) void poll();
  }

  function openStream() {
    if (source) return;
    clearTimeout(timer);
    const opened = new EventSource(urls.stream);
    source = opened;
    lost = false;
    heardAt = Date.now();
    const heard = () => {
      heardAt = Date.now();
      lost = false;
      show("fresh");
    };
    opened.addEventListener("aggregate", (event) => {
      heard();
      take(JSON.parse(event.data));
    });
    opened.addEventListener("beat", heard);
    opened.addEventListener("error", () => {
      if (source !== opened) return;
      if (opened.readyState !== EventSource.CLOSED) {
        if (lost) return;
        lost = true;
        // The browser connects again by itself, and for ever: without polls nobody would learn that it cannot.
        clearTimeout(timer);
        timer = setTimeout(watch, Math.random() * LOST_SPREAD_MS);
        return;
      }
      source = null;
      streamAgainAt = Date.now() + around(STREAM_AGAIN_MS, 0.5);
      start();
    });
    timer = setTimeout(watch, SILENCE_MS);
  }

  function watch() {
    if (!source) return;
    if (source.readyState === EventSource.CONNECTING) {
      void poll();
      return;
    }
    if (Date.now() - heardAt >= SILENCE_MS) show("delayed");
    timer = setTimeout(watch, SILENCE_MS / 3);
  }

  async function poll() {
    clearTimeout(timer);
    if (polling) return;
    polling = true;
    try {
      const response = await fetch(urls.aggregate, {
        headers: { Accept: "application/json", ...(etag ? { "If-None-Match": etag } : {}) },
        cache: "no-store",
      });
      clockCorrection(response.headers.get("Date"));
      if (response.status === 200) {
        const next = await response.json();
        // Pause may have been pressed while the answer was under way.
        if (isWanted()) {
          etag = response.headers.get("ETag");
          take(next);
        }
      } else if (response.status !== 304) throw new Error(String(response.status));
      show(freshnessOf(response.headers));
    } catch {
      show("offline");
    } finally {
      polling = false;
      if (isWanted() && !document.hidden) timer = setTimeout(source ? watch : start, around(POLL_MS, 1 / 3));
    }
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(stop, HIDDEN_MS);
    else start();
  });
  globalThis.addEventListener("pagehide", stop);
  globalThis.addEventListener("pageshow", (event) => event.persisted && start());
  globalThis.addEventListener("offline", () => isWanted() && show("offline"));
  globalThis.addEventListener("online", () => {
    start();
    // An open stream says nothing until its next event.
    if (source) void poll();
  });

  return { start, stop };
}

/** @param {Headers} headers @returns {Freshness} */
export function freshnessOf(headers) {
  const status = headers.get("Cache-Status") ?? "";
  if (Number(headers.get("Age") ?? 0) > DELAYED_AFTER_S || status.includes("detail=stale")) return "delayed";
  return /allocator-recount;\s*hit/.test(status) ? "recounting" : "fresh";
}
