// @ts-check
/**
 * Fields of the administrators' forms, each with its label, hint and fault, and the place of faults that the service
 * finds.
 *
 * A field knows the JSON pointer of its value. What a field means is the form's business.
 */
import { make } from "./dom.js";

let count = 0;

/**
 * A labelled field. `element.pointer` is the place of its value in the request; a form sets it again where rows move.
 *
 * @param {string} label @param {any} control
 * @param {{hint?: string, pointer?: string, disabled?: string}} [options] `disabled` says why it cannot be changed
 */
export function field(label, control, { hint = "", pointer = "", disabled = "" } = {}) {
  count += 1;
  control.id = `field-${count}`;
  control.setAttribute("aria-describedby", `hint-${count} fault-${count}`);
  if (disabled) control.disabled = true;
  const element = make(
    "div",
    { class: "field" },
    make("label", { for: control.id }, label),
    control,
    make("p", { class: "hint", id: `hint-${count}` }, disabled || hint),
    make("p", { class: "error", id: `fault-${count}` }),
  );
  return Object.assign(element, { control, pointer });
}

/** @param {string} value @param {Record<string, any>} [attributes] */
export function textInput(value, attributes = {}) {
  const input = make("input", { type: "text", autocomplete: "off", dir: "auto", ...attributes });
  input.value = value;
  return input;
}

/** @param {string} value */
export function textArea(value) {
  const area = make("textarea", { rows: 3, dir: "auto" });
  area.value = value;
  return area;
}

/** A choice; a value that this page does not know stays one. @param {string[]} values @param {string} value */
export function choice(values, value) {
  const known = values.includes(value) ? values : [value, ...values];
  const select = make("select", {}, ...known.map((name) => make("option", { value: name }, name)));
  select.value = value;
  return select;
}

/** @param {boolean} checked */
export function checkBox(checked) {
  const box = make("input", { type: "checkbox" });
  box.checked = checked;
  return box;
}

/** A time in this browser's zone; empty for none. @param {string | undefined} at RFC 3339 */
export function timeInput(at) {
  const input = make("input", { type: "datetime-local", step: 1 });
  const pad = (/** @type {number} */ number) => String(number).padStart(2, "0");
  if (at) {
    const date = new Date(at);
    const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map(pad).join("-");
    const clock = [date.getHours(), date.getMinutes(), date.getSeconds()].map(pad).join(":");
    input.value = `${day}T${clock}`;
  }
  const untouched = input.value;
  /** As RFC 3339; what was not touched stays as it was. */
  input.readTime = () => {
    if (input.value === untouched) return at;
    return input.value ? new Date(input.value).toISOString() : undefined;
  };
  return input;
}

/** Removes all faults of a form. @param {HTMLElement} form */
export function clearFaults(form) {
  for (const element of form.querySelectorAll(".field")) showFault(element, "");
}

/** @param {any} element @param {string} detail */
function showFault(element, detail) {
  element.querySelector(".error").textContent = detail;
  if (detail) element.control.setAttribute("aria-invalid", "true");
  else element.control.removeAttribute("aria-invalid");
}

/**
 * Places faults beside their fields, and lists all of them with links in a summary that takes focus.
 *
 * @param {HTMLElement} form @param {HTMLElement} summary @param {{pointer: string, detail: string}[]} faults
 */
export function placeFaults(form, summary, faults) {
  clearFaults(form);
  const fields = /** @type {any[]} */ ([...form.querySelectorAll(".field")]);
  const items = faults.map(({ pointer, detail }) => {
    // The field of the value itself, or of what it is a part of.
    const place = fields
      .filter(
        (element) => element.pointer && (pointer === element.pointer || pointer.startsWith(`${element.pointer}/`)),
      )
      .sort((a, b) => b.pointer.length - a.pointer.length)[0];
    if (!place) return make("li", {}, pointer ? `${pointer} ${detail}` : detail);
    const label = place.querySelector("label").textContent;
    showFault(place, detail);
    return make(
      "li",
      {},
      make(
        "a",
        {
          href: `#${place.control.id}`,
          click: (/** @type {Event} */ event) => {
            event.preventDefault();
            for (let details = place.closest("details"); details; details = details.parentElement?.closest("details"))
              details.open = true;
            place.control.focus();
          },
        },
        `${label}: ${detail}`,
      ),
    );
  });
  summary.replaceChildren(
    make("div", { role: "alert" }, make("h3", {}, "Nothing is saved. Please check:"), make("ul", {}, ...items)),
  );
  summary.hidden = false;
  summary.focus();
}
