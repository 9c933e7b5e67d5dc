// @ts-check
/**
 * The allocation control: number fields, sliders, steppers, keys, and the tools that move several shares at once.
 *
 * Owns what stands in the form. Does not send: it hands a complete allocation to `send`. No share moves that the person
 * did not touch, except by a tool whose label says so.
 */
import { left as leftOf, scale, share, sum } from "./allocation.js";
import { button, find, findAll, make, setText } from "./dom.js";
import { WHOLE, isBlank, read, write } from "./number.js";

const HOLD_DELAY_MS = 400;
const HOLD_REPEAT_MS = 100;

/** Change of a value by a key in its field. */
const KEY_STEPS = /** @type {Record<string, number>} */ ({ ArrowUp: 100, ArrowDown: -100, PageUp: 1_000, PageDown: -1_000 });

/**
 * @typedef {{id: string, name: string, row: HTMLElement, input: HTMLInputElement, error: HTMLElement,
 *   slider: HTMLInputElement, mark: HTMLElement, keep: HTMLButtonElement}} Row
 * @typedef {{id: string | null, text: string}} Fault
 */

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
  const meter = find(".meter", form);
  const fill = make("span", { class: "fill" });
  meter?.replaceChildren(fill);
  // An output is a live region by itself; the page's only one is the announcer.
  output?.setAttribute("aria-live", "off");
  output?.after(make("span", { class: "unsent" }, text("not_sent")));

  /** @type {Set<string>} */
  let fixed = new Set();
  /** @type {{texts: Record<string, string>, fixed: string[]} | null} */
  let before = null;
  // The server's own check may have found faults already.
  let summaryShown = Boolean(summary && !summary.hidden);
  const title = summaryShown ? data.budget.name : document.title;

  /** @type {Row[]} */
  const rows = findAll("li.row", form).map((row) => enhance(row));

  // ---- reading ----

  /** Values of all rows; a field that cannot be read counts as 0. */
  const values = () => rows.map(({ input }) => read(input.value).value ?? 0);
  const texts = () => Object.fromEntries(rows.map(({ id, input }) => [id, input.value]));
  const isReadable = () => rows.every(({ input }) => read(input.value).fault === undefined);

  /** @param {Row} row @returns {string} */
  function faultOf(row) {
    const { fault } = read(row.input.value);
    return fault ? text(`fault_${fault}`, { category: row.name }) : "";
  }

  /** All faults of the form, in the order of the page. @returns {Fault[]} */
  function faults() {
    const found = rows.filter((row) => faultOf(row)).map((row) => ({ id: row.input.id, text: faultOf(row) }));
    if (found.length > 0) return found;
    const total = sum(values());
    const first = rows.find(({ input }) => isBlank(input.value)) ?? rows[0];
    const largest = rows.reduce((a, b) => ((read(b.input.value).value ?? 0) > (read(a.input.value).value ?? 0) ? b : a), rows[0]);
    if (total < WHOLE) return [{ id: first.input.id, text: text("fault_under", { left: percent(WHOLE - total) }) }];
    if (total > WHOLE) {
      return [{ id: largest.input.id, text: text("fault_over", { sum: percent(total), over: percent(total - WHOLE) }) }];
    }
    return [];
  }

  function sentence() {
    if (!isReadable()) return text("unreadable");
    const rest = leftOf(values());
    if (rest > 0) return text("left_to_give", { left: percent(rest) });
    return rest < 0 ? text("too_much", { over: percent(-rest) }) : text("ready");
  }

  // ---- showing ----

  function show() {
    const all = values();
    const rest = leftOf(all);
    const readable = isReadable();
    setText(output, sentence());
    form.dataset.sum = !readable ? "unreadable" : rest > 0 ? "under" : rest < 0 ? "over" : "ready";
    fill.style.inlineSize = `${Math.min(100, (WHOLE - rest) / 100)}%`;
    rows.forEach((row, index) => {
      const whole = Math.round(all[index] / 100);
      row.slider.value = String(whole);
      row.slider.style.setProperty("--own", String(Math.min(1, all[index] / WHOLE)));
      row.slider.style.setProperty("--free", String(Math.min(1, (all[index] + Math.max(0, rest)) / WHOLE)));
      // Only while the slider cannot show the exact value.
      if (all[index] % 100 === 0) row.slider.removeAttribute("aria-valuetext");
      else row.slider.setAttribute("aria-valuetext", text("spoken_percent", { number: write(all[index], format) }));
      if (row.error.textContent) showFault(row, faultOf(row));
      const kept = fixed.has(row.id);
      row.keep.setAttribute("aria-pressed", String(kept));
      row.row.classList.toggle("fixed", kept);
    });
    showShare(rest);
    undo.hidden = before === null;
    last.hidden = lastAnswer() === null;
  }

  /** Takes mended faults out of the summary; what is new there waits for the next Send. */
  function removeMended() {
    const open = new Set(faults().map((fault) => fault.text));
    for (const item of findAll("li", summary)) if (!open.has(item.textContent)) item.remove();
    if (findAll("li", summary).length === 0) hideSummary();
  }

  /** The label of Share says exactly what the press will do. @param {number} rest */
  function showShare(rest) {
    if (!shareButton) return;
    const { indexes, blank } = targets();
    const key = blank ? "share_empty" : "share_all";
    const label = rest > 0 && indexes.length > 0
      ? text(key, { left: percent(rest), count: indexes.length })
      : text("share");
    setText(shareButton, label);
  }

  /** @param {Row} row @param {string} sentence */
  function showFault(row, sentence) {
    setText(row.error, sentence);
    if (sentence) row.input.setAttribute("aria-invalid", "true");
    else row.input.removeAttribute("aria-invalid");
  }

  /** @param {Fault[]} found */
  function showSummary(found) {
    for (const row of rows) showFault(row, faultOf(row));
    if (!summary) return;
    const links = found.map((fault) =>
      make("li", {}, fault.id ? make("a", { href: `#${fault.id}`, click: jump(fault.id) }, fault.text) : fault.text));
    summary.replaceChildren(make("div", { role: "alert" }, make("h2", {}, text("summary_title")), make("ul", {}, ...links)));
    summary.hidden = false;
    summaryShown = true;
    document.title = text("title_error", { title });
    summary.focus();
    summary.scrollIntoView({ block: "nearest" });
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

  // ---- changing ----

  /** After any change: what is seen at once, what is said a second later. @param {string} [said] */
  function touched(said) {
    show();
    if (summaryShown) removeMended();
    changed(texts(), [...fixed]);
    if (said) announce.now(said);
    else announce.later(sentence);
  }

  /** @param {Row} row @param {string} value */
  function edit(row, value) {
    row.input.value = value;
    clearMarks();
    touched();
  }

  /** @param {Row} row @param {number} change */
  function step(row, change) {
    const value = read(row.input.value).value ?? 0;
    edit(row, write(Math.max(0, Math.min(WHOLE, value + change)), format));
  }

  /** To the next whole percent. @param {Row} row @param {1 | -1} direction */
  function stepWhole(row, direction) {
    const value = (read(row.input.value).value ?? 0) / 100;
    const whole = direction > 0 ? Math.floor(value) + 1 : Math.ceil(value) - 1;
    edit(row, write(Math.max(0, Math.min(100, whole)) * 100, format));
  }

  function clearMarks() {
    for (const { mark, row } of rows) {
      mark.textContent = "";
      row.classList.remove("changed");
    }
  }

  /** Puts texts into all fields, and marks what differs. @param {Record<string, string>} next @param {{mark?: boolean}} [options] */
  function fillIn(next, { mark = true } = {}) {
    clearMarks();
    for (const row of rows) {
      const old = row.input.value;
      const value = next[row.id] ?? "";
      if (old === value) continue;
      row.input.value = value;
      if (!mark) continue;
      row.mark.textContent = isBlank(old) ? text("was_empty") : text("was", { number: old });
      row.row.classList.add("changed");
    }
    for (const row of rows) showFault(row, "");
  }

  const remember = () => {
    before = { texts: texts(), fixed: [...fixed] };
  };

  /** Indexes that Share fills: the blank fields that are not fixed, else all that are not fixed. */
  function targets() {
    const free = rows.map((_, index) => index).filter((index) => !fixed.has(rows[index].id));
    const blank = free.filter((index) => isBlank(rows[index].input.value));
    return { indexes: blank.length > 0 ? blank : free, blank: blank.length > 0 };
  }

  /** @param {number[]} next */
  const toTexts = (next) => Object.fromEntries(rows.map(({ id }, index) => [id, write(next[index], format)]));

  /** @param {number[]} next @param {string} said */
  function apply(next, said) {
    const now = values();
    // A field that keeps its value keeps its text, also an empty one.
    const written = Object.fromEntries(
      rows.map(({ id, input }, index) => [id, next[index] === now[index] ? input.value : write(next[index], format)]));
    remember();
    fillIn(written);
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
    const indexes = rows.map((_, index) => index).filter((index) => fixed.has(rows[index].id));
    const kept = sum(indexes.map((index) => values()[index]));
    if (kept > WHOLE) {
      showSummary([{ id: rows[indexes[0]].input.id, text: text("fault_fixed", { sum: percent(kept) }) }]);
      return;
    }
    const next = scale(values(), indexes);
    if (next && sum(next) === WHOLE) apply(next, text("scaled"));
    else announce.now(text("all_fixed"));
  }

  function useUndo() {
    if (!before) return;
    const earlier = before;
    before = null;
    fixed = new Set(earlier.fixed);
    fillIn(earlier.texts);
    // The pressed button disappears: focus goes on in the same place.
    if (document.activeElement === undo) (shareButton ?? rows[0].input).focus();
    touched(text("undone", { state: sentence() }));
  }

  function useStartAgain() {
    remember();
    fixed = new Set();
    fillIn({}, { mark: false });
    touched(text("restarted"));
  }

  /** @param {Record<string, string>} next */
  function startFrom(next) {
    remember();
    fillIn(next);
    touched(text("started", { state: sentence() }));
  }

  /** A tool computes with all values, so all must be readable. */
  function checkReadable() {
    if (isReadable()) return true;
    showSummary(faults());
    return false;
  }

  function trySend() {
    for (const row of rows) showFault(row, faultOf(row));
    const found = faults();
    if (found.length > 0) {
      showSummary(found);
      return;
    }
    hideSummary();
    send(Object.fromEntries(rows.map(({ id }, index) => [id, values()[index]])));
  }

  // ---- building ----

  /** Adds slider, steppers and keys to a row of the server's. @param {HTMLElement} row @returns {Row} */
  function enhance(row) {
    const id = row.dataset.category ?? "";
    const input = /** @type {HTMLInputElement} */ (find("input[type=text]", row));
    const label = find("label", row);
    const name = data.budget.categories.find((/** @type {any} */ category) => category.id === id)?.name ?? label.textContent.trim();
    const error = find(".error", row);
    label.append(make("span", { class: "visually-hidden" }, text("label_suffix")));

    const slider = make("input", {
      type: "range", min: 0, max: 100, step: 1, tabindex: -1, autocomplete: "off",
      "aria-label": text("slider_name", { category: name }),
    });
    slider.value = "0";
    const mark = make("span", { class: "mark" });
    const keep = button(text("keep_one"), () => {
      if (fixed.has(id)) fixed.delete(id);
      else fixed.add(id);
      touched();
    }, { class: "keep", "aria-pressed": "false", "aria-label": text("keep_one_name", { category: name }) });
    keep.hidden = true;
    /** @type {Row} */
    const made = { id, name, row, input, error, slider, mark, keep };

    slider.addEventListener("input", () => edit(made, write(Number(slider.value) * 100, format)));
    find(".controls", row).append(
      stepper(made, -1, "−", text("one_less", { category: name })),
      stepper(made, 1, "+", text("one_more", { category: name })),
      slider, mark, keep);
    input.addEventListener("input", () => {
      clearMarks();
      touched();
    });
    input.addEventListener("focus", () => input.select());
    input.addEventListener("blur", () => {
      const result = read(input.value);
      showFault(made, faultOf(made));
      if (result.fault === undefined && !isBlank(input.value)) input.value = write(result.value, format);
    });
    input.addEventListener("keydown", (event) => onKey(event, made));
    return made;
  }

  /** @param {KeyboardEvent} event @param {Row} row */
  function onKey(event, row) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing) return;
    if (event.key in KEY_STEPS) {
      event.preventDefault();
      step(row, KEY_STEPS[event.key]);
    } else if (event.key === "Enter") {
      // Enter never sends from a field: half an allocation would be a fault.
      event.preventDefault();
      const next = rows[rows.indexOf(row) + 1];
      (next ? next.input : find("#send", form))?.focus();
    }
  }

  /** A button that repeats while it is held. @param {Row} row @param {1 | -1} direction @param {string} sign @param {string} label */
  function stepper(row, direction, sign, label) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    let repeated = false;
    const stop = () => clearTimeout(timer);
    const repeat = () => {
      repeated = true;
      stepWhole(row, direction);
      timer = setTimeout(repeat, HOLD_REPEAT_MS);
    };
    return button(sign, () => {
      if (!repeated) stepWhole(row, direction);
      repeated = false;
    }, {
      class: "step", tabindex: -1, "aria-label": label,
      pointerdown: (/** @type {PointerEvent} */ event) => {
        if (event.button !== 0) return;
        stop();
        repeated = false;
        timer = setTimeout(repeat, HOLD_DELAY_MS);
      },
      pointerup: stop, pointerleave: stop, pointercancel: stop,
      contextmenu: (/** @type {Event} */ event) => event.preventDefault(),
    });
  }

  const tools = find(".tools", form);
  const shareButton = find("button[value=share]", form);
  const undo = button(text("undo"), useUndo, { class: "undo" });
  const keepAll = button(text("keep_fixed"), () => {
    const shown = keepAll.getAttribute("aria-pressed") !== "true";
    keepAll.setAttribute("aria-pressed", String(shown));
    for (const { keep } of rows) keep.hidden = !shown;
    if (!shown && fixed.size > 0) {
      fixed.clear();
      touched();
    }
  }, { "aria-pressed": "false" });
  const even = button(text("even"), () => startFrom(toTexts(share(rows.map(() => 0), rows.map((_, index) => index)))));
  const last = button(text("last_answer"), () => {
    const answer = lastAnswer();
    if (answer) startFrom(answerTexts(answer));
  });
  tools?.append(undo, make("details", { class: "more" }, make("summary", {}, text("more")),
    make("div", { class: "more-tools" }, button(text("start_again"), useStartAgain), keepAll,
      make("div", { class: "start-from", role: "group", "aria-label": text("start_from") },
        make("span", { "aria-hidden": "true" }, `${text("start_from")}:`), even, last))));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const tool = /** @type {HTMLButtonElement | null} */ (event.submitter);
    if (tool?.value === "share") useShare();
    else if (tool?.value === "scale") useScale();
    else trySend();
  });

  /** Own values as texts; a category without a share stays empty. @param {Record<string, number>} answer */
  function answerTexts(answer) {
    return Object.fromEntries(rows.map(({ id }) => [id, answer[id] ? write(answer[id], format) : ""]));
  }

  show();
  form.classList.add("enhanced");

  return {
    rows,
    show,
    /** Restores a draft. @param {Record<string, string>} draft @param {string[]} kept */
    restore(draft, kept) {
      fixed = new Set(kept.filter((id) => rows.some((row) => row.id === id)));
      if (fixed.size > 0) keepAll.click();
      fillIn(draft, { mark: false });
      show();
    },
    /** Puts the person's own values into the form. @param {Record<string, number>} answer */
    setAnswer(answer) {
      before = null;
      fillIn(answerTexts(answer), { mark: false });
      show();
    },
    /** Shows faults that the server found. @param {{pointer: string, detail: string}[]} errors */
    showServerFaults(errors) {
      /** @type {Fault[]} */
      const found = faults();
      for (const error of errors) {
        const id = decodeURIComponent(error.pointer.split("/").pop() ?? "").replace(/~1/g, "/").replace(/~0/g, "~");
        const row = rows.find((candidate) => candidate.id === id);
        if (row && !found.some((fault) => fault.id === row.input.id)) {
          found.push({ id: row.input.id, text: text("fault_server", { category: row.name }) });
        } else if (!row && found.length === 0) found.push({ id: null, text: error.detail });
      }
      if (found.length === 0) return;
      showSummary(found);
      for (const { id, text: sentence } of found) {
        const row = rows.find(({ input }) => input.id === id);
        if (row && !row.error.textContent) showFault(row, sentence);
      }
    },
    focusFirst: () => rows[0]?.input.focus(),
  };
}
