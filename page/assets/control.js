// @ts-check
/**
 * The allocation control: the rows together, their sum, and the tools that move several shares at once.
 *
 * Owns what stands in the form. Does not send: it hands a complete allocation to `send`. No share moves that the person
 * did not touch, except by a tool whose label says so.
 */
import { left as leftOf, scale, share, sum } from "./allocation.js";
import { button, find, findAll, make, setText } from "./dom.js";
import { WHOLE, write } from "./number.js";
import { makeRow } from "./row.js";

/** @typedef {{id: string | null, text: string}} Fault `id` is the field's. */

/**
 * @param {HTMLFormElement} form
 * @param {{data: any, words: import("./dom.js").Words, announce: ReturnType<typeof import("./dom.js").makeAnnouncer>,
 *   changed: (texts: Record<string, string>, fixed: string[]) => void, send: (values: Record<string, number>) => void,
 *   lastAnswer: () => Record<string, number> | null}} options
 */
export function makeControl(form, { data, words, announce, changed, send, lastAnswer }) {
  const { text, percent, format } = words;
  const output = find("#left");
  const summary = find("#fault-summary");
  const fill = make("span", { class: "fill" });
  find(".meter", form)?.replaceChildren(fill);
  // An output is a live region by itself; the page's only one is the announcer.
  output?.setAttribute("aria-live", "off");
  setText(find(".unsent", form), text("not_sent"));

  /** @type {{texts: Record<string, string>, fixed: string[]} | null} */
  let before = null;
  // The server's own check may have found faults already.
  let summaryShown = Boolean(summary && !summary.hidden);
  const title = summaryShown ? data.budget.name : document.title;

  /** @type {import("./row.js").Row[]} */
  const rows = findAll("li.row", form).map((element, index) => makeRow(element, {
    name: data.budget.categories.find((/** @type {any} */ category) => category.id === element.dataset.category)?.name ?? "",
    words,
    changed: () => {
      for (const row of rows) row.unmark();
      touched();
    },
    next: () => (rows[index + 1]?.input ?? find("#send", form))?.focus(),
  }));

  // ---- reading ----

  const values = () => rows.map((row) => row.value);
  const texts = () => Object.fromEntries(rows.map(({ id, input }) => [id, input.value]));
  const fixed = () => rows.filter((row) => row.kept).map(({ id }) => id);
  const isReadable = () => rows.every((row) => !row.fault);

  /** All faults of the form, in the order of the page. @returns {Fault[]} */
  function faults() {
    const found = rows.filter((row) => row.fault).map((row) => ({ id: row.input.id, text: row.fault }));
    const total = sum(values());
    if (found.length > 0 || total === WHOLE) return found;
    if (total < WHOLE) {
      const blank = rows.find((row) => row.isBlank) ?? rows[0];
      return [{ id: blank.input.id, text: text("fault_under", { left: percent(WHOLE - total) }) }];
    }
    const largest = rows.reduce((a, b) => (b.value > a.value ? b : a));
    return [{ id: largest.input.id, text: text("fault_over", { sum: percent(total), over: percent(total - WHOLE) }) }];
  }

  function sentence() {
    if (!isReadable()) return text("unreadable");
    const rest = leftOf(values());
    if (rest > 0) return text("left_to_give", { left: percent(rest) });
    return rest < 0 ? text("too_much", { over: percent(-rest) }) : text("ready");
  }

  // ---- showing ----

  function show() {
    const rest = leftOf(values());
    setText(output, sentence());
    form.dataset.sum = !isReadable() ? "unreadable" : rest > 0 ? "under" : rest < 0 ? "over" : "ready";
    fill.style.inlineSize = `${Math.min(100, (WHOLE - rest) / 100)}%`;
    for (const row of rows) row.show(rest);
    const { indexes, key } = targets();
    // The label of Share says exactly what the press will do.
    setText(shareButton, rest > 0 && indexes.length > 0 ? text(key, { left: percent(rest), count: indexes.length }) : text("share"));
    undo.hidden = before === null;
    last.hidden = lastAnswer() === null;
  }

  /** @param {Fault[]} found */
  function showSummary(found) {
    for (const row of rows) row.showFault();
    if (!summary) return;
    const links = found.map((fault) =>
      make("li", {}, fault.id ? make("a", { href: `#${fault.id}`, click: jump(fault.id) }, fault.text) : fault.text));
    summary.replaceChildren(make("div", { role: "alert" }, make("h2", {}, text("summary_title")), make("ul", {}, ...links)),
      isReadable() ? remedies() : "");
    summary.hidden = false;
    summaryShown = true;
    document.title = text("title_error", { title });
    summary.focus();
    summary.scrollIntoView({ block: "nearest" });
  }

  /** The tools that mend a wrong sum, where the fault is told. */
  function remedies() {
    const remedy = (/** @type {string} */ label, /** @type {() => void} */ use) => button(label, () => {
      use();
      // The summary disappears with its last fault: what is left to do is to send.
      if (summary.hidden) find("#send", form)?.focus();
    });
    const rest = leftOf(values());
    return make("div", { class: "actions" }, rest > 0 && targets().indexes.length > 0 && remedy(shareButton.textContent, useShare),
      rest !== 0 && rest !== WHOLE && remedy(text("scale"), useScale));
  }

  /** Takes mended faults out of the summary; what is new waits for the next Send. */
  function removeMended() {
    const open = new Set(faults().map((fault) => fault.text));
    for (const item of findAll("li", summary)) if (!open.has(item.textContent)) item.remove();
    if (findAll("li", summary).length === 0) hideSummary();
  }

  function hideSummary() {
    summaryShown = false;
    if (summary) summary.hidden = true;
    document.title = title;
  }

  /** A link to a fault puts the caret into its field. @param {string} id @returns {(event: Event) => void} */
  function jump(id) {
    return (event) => {
      event.preventDefault();
      const field = document.getElementById(id);
      field?.closest("li")?.scrollIntoView({ block: "nearest" });
      field?.focus();
    };
  }

  /** After any change: what is seen at once, what is said a second later. @param {string} [said] */
  function touched(said) {
    show();
    if (summaryShown) removeMended();
    changed(texts(), fixed());
    if (said) announce.now(said);
    else announce.later(sentence);
  }

  // ---- tools ----

  /** @param {Record<string, string>} next @param {boolean} marked */
  function fillIn(next, marked) {
    for (const row of rows) row.fill(next[row.id] ?? "", marked);
  }

  /** @param {string[]} ids */
  function setFixed(ids) {
    for (const row of rows) row.kept = ids.includes(row.id);
  }

  const remember = () => {
    before = { texts: texts(), fixed: fixed() };
  };

  /** What Share fills: the blank fields that are not fixed, else all that are not fixed. */
  function targets() {
    const free = rows.map((_, index) => index).filter((index) => !rows[index].kept);
    const blank = free.filter((index) => rows[index].isBlank);
    return blank.length > 0 ? { indexes: blank, key: "share_empty" } : { indexes: free, key: "share_all" };
  }

  /** @param {number[]} next @param {string} said */
  function apply(next, said) {
    remember();
    // A field that keeps its value keeps its text, also an empty one.
    fillIn(Object.fromEntries(rows.map((row, index) =>
      [row.id, next[index] === row.value ? row.input.value : write(next[index], format)])), true);
    touched(said);
  }

  function useShare() {
    if (!checkReadable()) return;
    const rest = leftOf(values());
    const { indexes } = targets();
    if (rest <= 0) announce.now(text("nothing_left"));
    else if (indexes.length === 0) announce.now(text("all_fixed"));
    else apply(share(values(), indexes), text("shared", { left: percent(rest), count: indexes.length }));
  }

  function useScale() {
    if (!checkReadable()) return;
    const indexes = rows.map((_, index) => index).filter((index) => rows[index].kept);
    const next = scale(values(), indexes);
    if (next === null) {
      const kept = sum(indexes.map((index) => rows[index].value));
      showSummary([{ id: rows[indexes[0]].input.id, text: text("fault_fixed", { sum: percent(kept) }) }]);
    } else if (sum(next) === WHOLE) apply(next, text("scaled"));
    else announce.now(text("all_fixed"));
  }

  function useUndo() {
    if (!before) return;
    const earlier = before;
    before = null;
    setFixed(earlier.fixed);
    fillIn(earlier.texts, true);
    // The pressed button disappears: focus goes on in the same place.
    if (document.activeElement === undo) shareButton?.focus();
    touched(text("undone", { state: sentence() }));
  }

  function useStartAgain() {
    remember();
    setFixed([]);
    fillIn({}, false);
    touched(text("restarted"));
  }

  /** @param {Record<string, string>} next */
  function startFrom(next) {
    remember();
    fillIn(next, true);
    touched(text("started", { state: sentence() }));
  }

  /** A tool computes with all values, so all must be readable. */
  function checkReadable() {
    if (isReadable()) return true;
    showSummary(faults());
    return false;
  }

  function trySend() {
    const found = faults();
    if (found.length > 0) {
      showSummary(found);
      return;
    }
    hideSummary();
    send(Object.fromEntries(rows.map(({ id, value }) => [id, value])));
  }

  function useKeepFixed() {
    const shown = keepFixed.getAttribute("aria-pressed") !== "true";
    keepFixed.setAttribute("aria-pressed", String(shown));
    for (const { keep } of rows) keep.hidden = !shown;
    if (!shown && fixed().length > 0) {
      setFixed([]);
      touched();
    }
  }

  /** Own values as texts; a category without a share stays empty. @param {Record<string, number>} answer */
  const answerTexts = (answer) => Object.fromEntries(rows.map(({ id }) => [id, answer[id] ? write(answer[id], format) : ""]));
  const evenTexts = () => {
    const even = share(rows.map(() => 0), rows.map((_, index) => index));
    return Object.fromEntries(rows.map(({ id }, index) => [id, write(even[index], format)]));
  };

  const shareButton = find("button[value=share]", form);
  const undo = button(text("undo"), useUndo, { class: "undo" });
  const keepFixed = button(text("keep_fixed"), useKeepFixed, { "aria-pressed": "false" });
  const last = button(text("last_answer"), () => startFrom(answerTexts(lastAnswer() ?? {})));
  const real = data.budget.reference && button(text("real_spending"), () => startFrom(answerTexts(data.budget.reference.shares)));
  find(".tools", form)?.append(undo, make("details", { class: "more" }, make("summary", {}, text("more")),
    make("div", { class: "more-tools" }, button(text("start_again"), useStartAgain), keepFixed,
      make("div", { class: "start-from", role: "group", "aria-label": text("start_from") },
        make("span", { "aria-hidden": "true" }, `${text("start_from")}:`), button(text("even"), () => startFrom(evenTexts())), real, last))));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const tool = /** @type {HTMLButtonElement | null} */ (event.submitter);
    if (tool?.value === "share") useShare();
    else if (tool?.value === "scale") useScale();
    else trySend();
  });
  show();
  form.classList.add("enhanced");

  return {
    isEmpty: () => rows.every((row) => row.isBlank),
    focusFirst: () => rows[0]?.input.focus(),
    /** Restores a draft. @param {Record<string, string>} draft @param {string[]} kept */
    restore(draft, kept) {
      if (kept.length > 0) useKeepFixed();
      setFixed(kept);
      fillIn(draft, false);
      show();
    },
    /** Puts the person's own values into the form. @param {Record<string, number>} answer */
    setAnswer(answer) {
      before = null;
      fillIn(answerTexts(answer), false);
      show();
    },
    /** Shows faults that the server found; false if there are none. @param {{pointer: string, detail: string}[]} errors */
    showServerFaults(errors) {
      const found = faults();
      for (const error of errors) {
        const id = decodeURIComponent(error.pointer.split("/").pop() ?? "").replace(/~1/g, "/").replace(/~0/g, "~");
        const row = rows.find((candidate) => candidate.id === id);
        if (row) found.push({ id: row.input.id, text: text("fault_server", { category: row.name }) });
        else if (found.length === 0) found.push({ id: null, text: error.detail });
      }
      if (found.length === 0) return false;
      showSummary(found);
      for (const fault of found) rows.find(({ input }) => input.id === fault.id)?.showFault(fault.text);
      return true;
    },
  };
}
