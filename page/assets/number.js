// @ts-check
/**
 * Reads and writes percentages as integer basis points (10,000 = 100 %).
 *
 * Owns the syntax of numbers. Does not own sums or the page. The server has the same functions in Rust; shared
 * vectors hold both equal.
 */

/** Basis points of 100 %. */
export const WHOLE = 10_000;

// White space, percent signs, and the marks that set the direction of text.
const AROUND = "[\\p{White_Space}%\\u066A\\u200E\\u200F\\u061C]*";
const STRIP = new RegExp(`^${AROUND}|${AROUND}$`, "gu");
const NUMBER = /^([-\u2212]?)([0-9]*)(?:[.,\u066B]([0-9]*))?$/;
const DIGITS = /[\u0660-\u0669\u06F0-\u06F9]/gu;

/**
 * Reads a percentage; a blank text is 0.
 *
 * @param {string} text
 * @returns {{value: number, fault?: undefined} | {value?: undefined, fault: "not_a_number" | "range" | "decimals"}}
 */
export function read(text) {
  const stripped = text.replace(STRIP, "");
  if (stripped === "") return { value: 0 };
  // The low four bits of both Arabic digit blocks are the digit.
  const match = NUMBER.exec(stripped.replace(DIGITS, (digit) => String(digit.charCodeAt(0) & 15)));
  if (!match || (match[2] + (match[3] ?? "")) === "") return { fault: "not_a_number" };
  const [, minus, whole, fraction = ""] = match;
  const digits = whole.replace(/^0+/, "");
  const decimals = fraction.replace(/0+$/, "");
  if (minus && digits + decimals !== "") return { fault: "range" };
  if (digits.length > 3) return { fault: "range" };
  const percent = Number(digits || "0");
  if (percent > 100 || (percent === 100 && decimals !== "")) return { fault: "range" };
  if (decimals.length > 2) return { fault: "decimals" };
  return { value: percent * 100 + Number(decimals.padEnd(2, "0")) };
}

/** Whether a text counts as an empty field. @param {string} text */
export function isBlank(text) {
  return text.replace(STRIP, "") === "";
}

/**
 * Writes basis points as a percentage without trailing zeros and without a percent sign.
 *
 * @param {number} basisPoints
 * @param {{decimal: string, group?: string}} format
 */
export function write(basisPoints, format) {
  const sign = basisPoints < 0 ? "-" : "";
  const absolute = Math.abs(basisPoints);
  const decimals = String(absolute % 100).padStart(2, "0").replace(/0+$/, "");
  const whole = group(Math.floor(absolute / 100), format);
  return sign + whole + (decimals === "" ? "" : format.decimal + decimals);
}

/**
 * Writes an API percentage (a JSON number of at most four decimals) with one decimal, half rounded up.
 *
 * @param {number} percent
 * @param {{decimal: string}} format
 */
export function writeAverage(percent, format) {
  // Through an integer of the API's own precision, since 0.05 * 10 is not exact in binary.
  const tenths = Math.floor((Math.round(percent * 10_000) + 500) / 1_000);
  return `${Math.floor(tenths / 10)}${format.decimal}${tenths % 10}`;
}

/**
 * Writes an integer with grouping, in full. Some languages group only from five digits on.
 *
 * @param {number} value
 * @param {{group?: string, minimum_grouping?: number}} format
 */
export function group(value, format) {
  const digits = String(value);
  if (digits.length < 3 + (format.minimum_grouping ?? 1)) return digits;
  return digits.replace(/\B(?=(\d{3})+$)/g, format.group ?? "");
}
