// @ts-check
/**
 * What the sections of the administrators' page have in common: tables, questions, failures, repeated reads.
 *
 * Owns no data.
 */
import { button, find, findAll, focusOn, make, makeAnnouncer } from "./dom.js";

const announcer = makeAnnouncer(find("#announce"));

/** Tells assistive technology. @param {string} sentence */
export const say = (sentence) => announcer.now(sentence);

/** @param {string | null | undefined} at RFC 3339 */
export function time(at) {
  if (!at) return "–";
  const shown = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" }).format(new Date(at));
  return make("time", { datetime: at }, shown);
}

/** A failure in words. @param {any} error */
export function failure(error) {
  const wait = error.retryAfterSeconds ? ` Try again in ${error.retryAfterSeconds} s.` : "";
  return make("p", { class: "notice", role: "alert" }, `${error.message}${wait}`);
}

/**
 * A table with a name for assistive technology, in a region that scrolls by itself.
 *
 * @param {string} caption @param {string[]} head @param {any[][]} rows cells; the first one names the row
 */
export function table(caption, head, rows) {
  const cells = (/** @type {any[]} */ row) =>
    row.map((cell, index) => (index === 0 ? make("th", { scope: "row" }, cell) : make("td", {}, ...[cell].flat())));
  return make(
    "div",
    { class: "wide", tabindex: 0, role: "region", "aria-label": caption, "data-key": caption },
    make(
      "table",
      { class: "admin-table" },
      make("caption", { class: "visually-hidden" }, caption),
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))),
    ),
  );
}

/**
 * A button that asks before it acts. The question takes focus and gives it back.
 *
 * @param {string} label @param {string} question @param {string} yes @param {() => Promise<any>} action
 * @param {string} [key] for `refresh`
 */
export function asking(label, question, yes, action, key) {
  const place = make("span", { class: "asking" });
  const close = () => {
    place.replaceChildren(opener);
    opener.focus();
  };
  const opener = button(
    label,
    () => {
      const box = make(
        "span",
        {
          class: "question",
          role: "group",
          "aria-label": question,
          keydown: (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && close(),
        },
        make("span", {}, question),
        " ",
        confirm,
        " ",
        button("No", close),
      );
      place.replaceChildren(box);
      focusOn(box);
    },
    { "data-key": key },
  );
  const confirm = button(
    yes,
    async () => {
      confirm.disabled = true;
      try {
        await action();
        if (place.isConnected) close();
      } catch (error) {
        place.replaceChildren(failure(error), opener);
        opener.focus();
      } finally {
        confirm.disabled = false;
      }
    },
    { class: "danger" },
  );
  place.append(opener);
  return place;
}

/**
 * Reads again and again while the page is visible and `root` is on it.
 *
 * @param {HTMLElement} root @param {number} intervalMs @param {() => Promise<void>} read
 */
export function repeat(root, intervalMs, read) {
  let pauseMs = intervalMs;
  const next = async () => {
    if (!root.isConnected) return;
    if (!document.hidden) {
      try {
        await read();
        pauseMs = intervalMs;
      } catch (error) {
        // After 429 as long as the service says; otherwise ever more slowly.
        pauseMs = Math.max(Math.min(pauseMs * 2, 60_000), /** @type {any} */ ((error).retryAfterSeconds ?? 0) * 1_000);
      }
    }
    setTimeout(next, pauseMs);
  };
  setTimeout(next, intervalMs);
}

/**
 * Replaces the content of `root`, unless it would be the same. What has a `data-key` keeps focus and stays unfolded, and
 * a question that is open stays open.
 *
 * @param {HTMLElement} root @param {any} data what the content is made of @param {() => (Node | string)[]} build
 */
export function refresh(root, data, build) {
  const seen = JSON.stringify(data);
  if (root.dataset.seen === seen || find(".question", root)) return;
  const key = root.contains(document.activeElement)
    ? document.activeElement?.closest("[data-key]")?.getAttribute("data-key")
    : null;
  const unfolded = new Set(findAll("details[data-key][open]", root).map((details) => details.dataset.key));
  root.replaceChildren(...build());
  for (const details of findAll("details[data-key]", root)) details.open = unfolded.has(details.dataset.key);
  root.dataset.seen = seen;
  if (key) find(`[data-key="${CSS.escape(key)}"]`, root)?.focus();
}

/** Runs a control's action, and shows a failure beside it. @param {any} control @param {() => Promise<any>} action */
export async function attempt(control, action) {
  control.parentElement?.querySelector(":scope > .notice")?.remove();
  control.disabled = true;
  try {
    await action();
  } catch (error) {
    control.after(failure(error));
  } finally {
    control.disabled = false;
  }
}
