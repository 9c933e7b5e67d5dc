// @ts-check
/**
 * Builds elements, texts, times and announcements for all other modules.
 *
 * Owns no state of the page. Elements are only built node by node: the page's policy forbids HTML from strings.
 */
import { group, write } from "./number.js";

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} selector @param {ParentNode} [root] @returns {any} */
export const find = (selector, root = document) => root.querySelector(selector);

/** @param {string} selector @param {ParentNode} [root] @returns {any[]} */
export const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

/**
 * Builds an element. A function is a listener, `true` an empty attribute; `null`, `false` and `undefined` are left out.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  set(element, attributes);
  element.append(...children.filter((child) => child != null && child !== false).map((child) => child || ""));
  return element;
}

/** The same for SVG. @param {string} tag @param {Record<string, any>} [attributes] @param {...Node} children */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  set(element, attributes);
  element.append(...children);
  return element;
}

/** @param {Element} element @param {Record<string, any>} attributes */
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value != null && value !== false) element.setAttribute(name, String(value));
  }
}

/** Builds a button that submits nothing. @param {string} text @param {(event: Event) => void} click @param {Record<string, any>} [attributes] */
export function button(text, click, attributes = {}) {
  return make("button", { type: "button", click, ...attributes }, text);
}

/** Changes a text only if it differs, so that nothing is repainted or read again. @param {Element | null} element @param {string} text */
export function setText(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

/**
 * Makes the page's texts, numbers and times in its language.
 *
 * @param {{language: string, texts: Record<string, string>, number_format: {decimal: string, group: string}}} data
 */
export function makeWords(data) {
  const format = data.number_format ?? { decimal: ".", group: "," };
  const locale = data.language === "ar" ? "ar-u-nu-latn" : data.language;
  const plurals = new Intl.PluralRules(data.language);

  /** Fills a text; a `count` picks the plural form. @param {string} key @param {Record<string, any>} [values] */
  function text(key, values = {}) {
    const plural = "count" in values ? `${key}_${plurals.select(values.count)}` : key;
    const template = data.texts[plural] ?? data.texts[`${key}_other`] ?? data.texts[key] ?? key;
    return template.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  }

  const clock = new Intl.DateTimeFormat(locale, { hour: "numeric", minute: "2-digit", second: "2-digit" });
  const dated = new Intl.DateTimeFormat(locale, {
    year: "numeric", month: "short", day: "numeric", hour: "numeric", minute: "2-digit", timeZoneName: "short",
  });

  return {
    text,
    format,
    /** A number of basis points with the percent sign. @param {number} basisPoints */
    percent: (basisPoints) => text("percent", { number: write(basisPoints, format) }),
    /** A written number with the percent sign. @param {string} number */
    withSign: (number) => text("percent", { number }),
    /** @param {number} value */
    integer: (value) => group(value, format),
    /** A time; with its day and zone if it is not of the last twelve hours. @param {Date | number | string} time */
    time(time) {
      const date = new Date(time);
      return Math.abs(Date.now() - date.getTime()) < 12 * 3_600_000 ? clock.format(date) : dated.format(date);
    },
    /** @param {Date | number | string} time */
    dateTime: (time) => dated.format(new Date(time)),
  };
}

/** @typedef {ReturnType<typeof makeWords>} Words */

/**
 * Makes the announcer for the page's only live region. What is said later replaces what was not said yet.
 *
 * @param {Element | null} region
 */
export function makeAnnouncer(region) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const say = (/** @type {string} */ sentence) => {
    if (!region) return;
    // The same sentence twice is a change only with a different text node.
    region.textContent = region.textContent === sentence ? `${sentence}\u00a0` : sentence;
  };
  return {
    /** @param {string} sentence */
    now(sentence) {
      clearTimeout(timer);
      say(sentence);
    },
    /** Says it one second after the last call. @param {() => string} sentence */
    later(sentence) {
      clearTimeout(timer);
      timer = setTimeout(() => say(sentence()), 1_000);
    },
  };
}

/** Moves focus to an element that is not a control. @param {any} element */
export function focusOn(element) {
  if (!element.hasAttribute("tabindex")) element.setAttribute("tabindex", "-1");
  element.focus();
}
