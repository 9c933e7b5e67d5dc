// @ts-check
/**
 * Arithmetic of an allocation in integer basis points.
 *
 * Owns the rounding of "share" and "scale". Does not read text or touch the page. The server has the same functions
 * in Rust; shared vectors hold both equal.
 */
import { WHOLE } from "./number.js";

/** @param {number[]} values */
export function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

/** What is left to give; negative if the values make more than 100 %. @param {number[]} values */
export function left(values) {
  return WHOLE - sum(values);
}

/**
 * Shares what is left evenly over the targets; the first ones, in the budget's order, get the odd basis points.
 * Without anything left, or without targets, the values stay.
 *
 * @param {number[]} values
 * @param {number[]} targets indexes, ascending
 */
export function share(values, targets) {
  const rest = left(values);
  if (rest <= 0 || targets.length === 0) return [...values];
  const each = Math.floor(rest / targets.length);
  const odd = rest % targets.length;
  const shared = [...values];
  targets.forEach((index, place) => {
    shared[index] += each + (place < odd ? 1 : 0);
  });
  return shared;
}

/**
 * Scales the values that are not fixed so that all make 100 %. The missing basis points go to the largest remainders,
 * ties to the earlier category. A 0 stays 0.
 *
 * @param {number[]} values
 * @param {number[]} fixed indexes
 * @returns {number[] | null} null if the fixed ones alone make more than 100 %
 */
export function scale(values, fixed) {
  const kept = new Set(fixed);
  const free = values.map((_, index) => index).filter((index) => !kept.has(index));
  const target = WHOLE - sum(fixed.map((index) => values[index]));
  if (target < 0) return null;
  const weight = sum(free.map((index) => values[index]));
  if (weight === 0) return share(values, free);

  const scaled = [...values];
  const remainders = free.map((index) => {
    const product = values[index] * target;
    scaled[index] = Math.floor(product / weight);
    return { index, remainder: product % weight };
  });
  const missing = WHOLE - sum(scaled);
  // Sorting is stable: equal remainders stay in the budget's order.
  remainders.sort((a, b) => b.remainder - a.remainder);
  for (const { index } of remainders.slice(0, missing)) scaled[index] += 1;
  return scaled;
}
