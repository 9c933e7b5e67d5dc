// @ts-check
/**
 * One row of the form: number field, slider, steppers, keys, its fault, and whether a tool may change it.
 *
 * Owns what is in the row. Knows nothing of the other rows or of the sum: it reports each change.
 */
import { button, find, make, setText } from "./dom.js";
import { WHOLE, isBlank, read, write } from "./number.js";

const HOLD_DELAY_MS = 400;
const HOLD_REPEAT_MS = 100;

/** Change of a value by a key in its field. */
const KEY_STEPS = /** @type {Record<string, number>} */ ({ ArrowUp: 100, ArrowDown: -100, PageUp: 1_000, PageDown: -1_000 });

/**
 * Adds the controls to a row of the server's form.
 *
 * @param {HTMLElement} element
 * @param {{name: string, words: import("./dom.js").Words, changed: () => void, next: () => void}} options
 *   `next` moves focus on; `name` is the category's.
 */
export function makeRow(element, { name, words, changed, next }) {
  const { text, format } = words;
  const id = element.dataset.category ?? "";
  const input = /** @type {HTMLInputElement} */ (find("input[type=text]", element));
  const error = find(".error", element);
  let kept = false;

  find("label", element).append(make("span", { class: "visually-hidden" }, text("label_suffix")));
  // One tab stop a row: the field. Slider and steppers stay visible to assistive technology and pointers.
  const slider = make("input", {
    type: "range", min: 0, max: 100, step: 1, tabindex: -1, autocomplete: "off",
    "aria-label": text("slider_name", { category: name }),
  });
  slider.value = "0";
  const mark = make("span", { class: "mark" });
  const keep = button(text("keep_one"), () => {
    row.kept = !kept;
    changed();
  }, { class: "keep", "aria-pressed": "false", "aria-label": text("keep_one_name", { category: name }) });
  keep.hidden = true;
  find(".controls", element).append(
    stepper(-1, "−", text("one_less", { category: name })),
    stepper(1, "+", text("one_more", { category: name })),
    slider, mark, keep);

  /** @param {number} value */
  function edit(value) {
    input.value = write(Math.max(0, Math.min(WHOLE, value)), format);
    changed();
  }

  /** To the next whole percent. @param {1 | -1} direction */
  function stepWhole(direction) {
    const percent = row.value / 100;
    edit((direction > 0 ? Math.floor(percent) + 1 : Math.ceil(percent) - 1) * 100);
  }

  /** A button that repeats while it is held. @param {1 | -1} direction @param {string} sign @param {string} label */
  function stepper(direction, sign, label) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    let repeated = false;
    const stop = () => clearTimeout(timer);
    const repeat = () => {
      repeated = true;
      stepWhole(direction);
      timer = setTimeout(repeat, HOLD_REPEAT_MS);
    };
    return button(sign, () => {
      if (!repeated) stepWhole(direction);
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

  slider.addEventListener("input", () => edit(Number(slider.value) * 100));
  input.addEventListener("input", changed);
  input.addEventListener("focus", () => input.select());
  input.addEventListener("blur", () => {
    row.showFault();
    const { value } = read(input.value);
    if (value !== undefined && !isBlank(input.value)) input.value = write(value, format);
  });
  input.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing) return;
    const isStep = event.key in KEY_STEPS;
    if (!isStep && event.key !== "Enter") return;
    // Enter never sends from a field: half an allocation would be a fault.
    event.preventDefault();
    if (isStep) edit(row.value + KEY_STEPS[event.key]);
    else next();
  });

  const row = {
    id,
    name,
    input,
    keep,
    /** In basis points; what cannot be read counts as 0. */
    get value() {
      return read(input.value).value ?? 0;
    },
    get isBlank() {
      return isBlank(input.value);
    },
    /** What is wrong with the text, or an empty text. */
    get fault() {
      const { fault } = read(input.value);
      return fault ? text(`fault_${fault}`, { category: name }) : "";
    },
    /** Whether tools leave the value. */
    get kept() {
      return kept;
    },
    set kept(value) {
      kept = value;
      keep.setAttribute("aria-pressed", String(kept));
      element.classList.toggle("fixed", kept);
    },
    /** Shows the text's own fault, or another one. @param {string} [sentence] */
    showFault(sentence) {
      const shown = sentence ?? row.fault;
      setText(error, shown);
      if (shown) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    },
    /** Draws the slider. @param {number} left what may still be given, in basis points */
    show(left) {
      const { value } = row;
      slider.value = String(Math.round(value / 100));
      slider.style.setProperty("--own", String(Math.min(1, value / WHOLE)));
      slider.style.setProperty("--free", String(Math.min(1, (value + Math.max(0, left)) / WHOLE)));
      // Only while the slider cannot show the exact value.
      if (value % 100 === 0) slider.removeAttribute("aria-valuetext");
      else slider.setAttribute("aria-valuetext", text("spoken_percent", { number: write(value, format) }));
      if (error.textContent) row.showFault();
    },
    /** Replaces the text, and marks the change if asked to. @param {string} value @param {boolean} marked */
    fill(value, marked) {
      const old = input.value;
      row.unmark();
      row.showFault("");
      if (old === value) return;
      input.value = value;
      if (!marked) return;
      mark.textContent = isBlank(old) ? text("was_empty") : text("was", { number: old });
      element.classList.add("changed");
    },
    unmark() {
      mark.textContent = "";
      element.classList.remove("changed");
    },
  };
  return row;
}

/** @typedef {ReturnType<typeof makeRow>} Row */
