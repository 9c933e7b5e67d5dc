// @ts-check
/**
 * Follows what became of the person's answer: sent, safely stored, counted; and asks before it is withdrawn.
 *
 * Owns the receipt section, and the wait for "counted". Does not send: it calls the actions it is given.
 */
import { button, focusOn, make } from "./dom.js";
import { browserSurroundings, pauseMs, retryAfterMs } from "./submit.js";

/** How long "counted" is waited for. */
const COUNT_TIMEOUT_MS = 60_000;

/**
 * @typedef {"sending" | "waiting" | "asks" | "stored" | "counting" | "counted" | "differs" | "later" | "refused"} Step
 * @typedef {{step: Step, kind: "submit" | "withdraw", values?: Record<string, number>, receipt?: string, storedAt?: number,
 *   beganAt?: number, nextAt?: number, offline?: boolean, refusal?: import("./submit.js").Refusal, earlier?: string[],
 *   closed?: boolean, showShares?: boolean}} Shown
 * @typedef {{change: () => void, withdraw: () => void, check: () => void, tryNow: () => void, resume: () => void,
 *   discard: () => void}} Actions
 */

/** Which of the three lines are done, in progress, or failed. */
const LINES = /** @type {Record<Step, [string, string, string]>} */ ({
  sending: ["now", "open", "open"],
  waiting: ["wait", "open", "open"],
  asks: ["wait", "open", "open"],
  refused: ["failed", "open", "open"],
  stored: ["done", "done", "now"],
  counting: ["done", "done", "now"],
  later: ["done", "done", "wait"],
  differs: ["done", "done", "failed"],
  counted: ["done", "done", "done"],
});

/**
 * @param {HTMLElement} section
 * @param {{data: any, words: import("./dom.js").Words, announce: ReturnType<typeof import("./dom.js").makeAnnouncer>,
 *   actions: Actions}} options
 */
export function makeReceipt(section, { data, words, announce, actions }) {
  const { text } = words;
  /** @type {Shown | null} */
  let shown = null;

  /** @param {string} state @param {string} sentence */
  const line = (state, sentence) => make("li", { class: state, "aria-current": state === "now" ? "step" : null }, sentence);

  /** @param {Shown} state */
  function lines(state) {
    const [sent, stored, counted] = LINES[state.step];
    const isStored = stored === "done";
    const countedText = state.step === "counted" ? text(state.kind === "withdraw" ? "removed" : "counted")
      : state.step === "later" ? text("counted_later")
      : state.step === "differs" || !isStored ? text("not_counted")
      : text("counting");
    return make("ol", { class: "progress" },
      line(sent, sent === "done" ? text("sent") : sent === "now" ? text("sending") : text("not_sent")),
      line(stored, !isStored ? text("storing")
        : state.storedAt ? text("stored", { time: words.time(state.storedAt) }) : text("stored_untimed")),
      line(counted, countedText));
  }

  /** What the person should know or decide now. @param {Shown} state */
  function notice(state) {
    switch (state.step) {
      case "waiting":
        return state.offline ? text("aside_offline") : text("aside_retry", { time: words.time(state.nextAt ?? Date.now()) });
      case "asks":
        return text(state.kind === "withdraw" ? "old_withdrawal" : "old_question", { time: words.time(state.beganAt ?? Date.now()) });
      case "differs":
        return text("differs");
      case "refused":
        return refusalText(state.refusal);
      default:
        return "";
    }
  }

  /** @param {import("./submit.js").Refusal | undefined} refusal */
  function refusalText(refusal) {
    switch (refusal?.slug) {
      case "budget-closed": return text("final_closed");
      case "budget-full": return text("final_full");
      case "forbidden": return text("final_cookies");
      case "invalid-allocation": return text("final_invalid");
      default: return text("final_unknown");
    }
  }

  /** The server's own English words, where the page has none. @param {Shown} state */
  function serverWords(state) {
    const known = ["budget-closed", "budget-full", "forbidden", "invalid-allocation"];
    if (state.step !== "refused" || !state.refusal?.detail || known.includes(state.refusal.slug)) return null;
    return make("p", { lang: "en", dir: "ltr", class: "server-words" }, state.refusal.detail);
  }

  /** @param {Shown} state */
  function receiptText(state) {
    if (!state.receipt) return null;
    const code = make("code", { dir: "ltr" }, state.receipt);
    const copy = button(text("copy"), async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        announce.now(text("copied"));
        copy.textContent = text("copied");
      } catch {
        // Without permission the receipt is selected, to be copied by hand.
        getSelection()?.selectAllChildren(code);
      }
    }, { class: "quiet" });
    const earlier = (state.earlier ?? []).filter((receipt) => receipt !== state.receipt);
    return make("div", { class: "receipt-text" },
      make("p", {}, `${text("receipt")}: `, code, " ", copy),
      earlier.length > 0 && make("p", { class: "earlier" }, `${text("earlier_receipts")}: `,
        make("span", { dir: "ltr" }, earlier.join(", "))),
      state.closed && data.state === "closed" && make("p", { class: "note" }, text("no_more_changes")),
      // A printed receipt says where it is from.
      make("p", { class: "print-only", dir: "ltr" }, `${location.origin}${location.pathname}`));
  }

  /** @param {Shown} state */
  function shares(state) {
    if (!state.values || state.kind === "withdraw") return null;
    const rows = data.budget.categories.map((/** @type {any} */ category) =>
      make("tr", {}, make("th", { scope: "row" }, make("bdi", { lang: category.lang }, category.name)),
        make("td", {}, words.percent(state.values?.[category.id] ?? 0))));
    return make("details", { class: "own-shares", open: Boolean(state.showShares) }, make("summary", {}, text("own_shares")),
      make("table", { class: "own" },
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, text("column_area")), make("th", { scope: "col" }, text("own_share")))),
        make("tbody", {}, ...rows)));
  }

  /** @param {Shown} state */
  function buttons(state) {
    const made = [];
    const isStored = Boolean(state.receipt);
    const isOwn = state.kind === "submit";
    if (state.step === "waiting") made.push(button(text("try_now"), actions.tryNow));
    if (state.step === "asks") made.push(button(text("old_send"), actions.resume, { class: "primary" }));
    if (state.step === "asks" || state.step === "waiting") made.push(button(text("old_discard"), actions.discard));
    if (!state.closed && (isStored || !["sending", "asks", "waiting"].includes(state.step))) {
      made.push(button(text(isOwn ? "change" : "answer_again"), actions.change, { class: isOwn ? "" : "primary" }));
      if (isOwn && isStored) made.push(button(text("withdraw"), ask, { class: "withdraw" }));
    }
    if (["later", "differs", "counted"].includes(state.step)) made.push(button(text("check_again"), actions.check, { class: "quiet" }));
    if (isStored) made.push(button(text("print"), () => globalThis.print(), { class: "quiet" }));
    return make("div", { class: "actions" }, ...made);
  }

  /** The inline question before withdrawing; it takes focus and gives it back. */
  function ask() {
    const opener = section.querySelector(".withdraw");
    const close = () => {
      question.remove();
      /** @type {any} */ (section.querySelector(".withdraw") ?? opener)?.focus();
    };
    section.querySelector(".question")?.remove();
    const question = make("div", { class: "question", role: "group", "aria-labelledby": "withdraw-question",
      keydown: (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && close() },
      make("p", { id: "withdraw-question" }, text("withdraw_question")),
      make("div", { class: "actions" },
        button(text("withdraw_yes"), () => {
          question.remove();
          actions.withdraw();
        }, { class: "danger" }),
        button(text("withdraw_no"), close)));
    section.append(question);
    focusOn(question);
  }

  return {
    get shown() {
      return shown;
    },
    hide() {
      shown = null;
      section.hidden = true;
      section.replaceChildren();
    },
    /** @param {Shown} state @param {{focus?: boolean, say?: boolean}} [options] */
    show(state, { focus = false, say = true } = {}) {
      const hadFocus = section.contains(document.activeElement);
      const wasOpen = section.querySelector("details")?.open;
      shown = state;
      const heading = make("h2", { id: "receipt-title", tabindex: -1 },
        text(state.kind === "withdraw" ? "withdrawal_title" : "receipt_title"));
      const sentence = notice(state);
      const own = shares(state);
      if (own && wasOpen) own.open = true;
      section.replaceChildren(...[
        heading, lines(state), sentence && make("p", { class: "notice" }, sentence), serverWords(state),
        receiptText(state), buttons(state), own,
      ].filter((part) => part instanceof Node));
      section.dataset.step = state.step;
      section.setAttribute("aria-labelledby", "receipt-title");
      section.hidden = false;
      // The buttons were built anew: whoever was in the section stays in it.
      if (focus || hadFocus) heading.focus({ preventScroll: !focus });
      if (focus) section.scrollIntoView({ block: "start" });
      if (say) announce.now(sentence || lines(state).children[state.step === "counted" || state.step === "later" ? 2 : state.step === "stored" ? 1 : 0].textContent);
    },
  };
}

/**
 * Waits until the accepted request is in the numbers that everyone sees, and in the person's own row.
 *
 * @param {import("./submit.js").Sent} sent
 * @param {{urls: Record<string, string>, surroundings?: import("./submit.js").Surroundings}} options
 * @returns {Promise<{state: "counted" | "differs" | "later", aggregate?: any}>}
 */
export async function waitUntilCounted(sent, { urls, surroundings = browserSurroundings() }) {
  const { fetch, now, random, sleep } = surroundings;
  const deadline = now() + COUNT_TIMEOUT_MS;
  const headers = { Accept: "application/json", "Consistency-Token": sent.receipt, Prefer: "wait=10" };
  /** @type {any} */
  let aggregate;
  for (let tries = 1; ; tries += 1) {
    let afterMs = 0;
    try {
      if (!aggregate) {
        const response = await fetch(urls.aggregate, { headers, cache: "no-store", credentials: "same-origin" });
        if (response.ok) aggregate = await response.json();
        else afterMs = retryAfterMs(response.headers.get("Retry-After"), now());
      }
      if (aggregate) {
        const response = await fetch(urls.mine, { headers, cache: "no-store", credentials: "same-origin" });
        if (response.status === 404) return { state: sent.kind === "withdraw" ? "counted" : "differs", aggregate };
        if (response.status === 200) {
          const own = await response.json();
          return { state: isSame(sent, own.allocation) ? "counted" : "differs", aggregate };
        }
        afterMs = retryAfterMs(response.headers.get("Retry-After"), now());
      }
    } catch {
      // Offline: the next try may reach the server.
    }
    const pause = pauseMs(Math.min(tries, 4), afterMs, random);
    if (now() + pause > deadline) return { state: "later", aggregate };
    await sleep(pause, {});
  }
}

/** Compares basis point by basis point. @param {import("./submit.js").Sent} sent @param {Record<string, number>} allocation */
function isSame(sent, allocation) {
  if (sent.kind === "withdraw") return false;
  const counted = toBasisPoints(allocation);
  const categories = new Set([...Object.keys(sent.values), ...Object.keys(counted)]);
  return [...categories].every((category) => (sent.values[category] ?? 0) === (counted[category] ?? 0));
}

/** @param {Record<string, number>} allocation percentages, as the API has them @returns {Record<string, number>} */
export function toBasisPoints(allocation) {
  return Object.fromEntries(Object.entries(allocation ?? {}).map(([id, percent]) => [id, Math.round(percent * 100)]));
}
