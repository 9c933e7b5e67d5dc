// @ts-check
/**
 * Shows the form's rows in a random order, where the budget asks for it.
 *
 * The order is another one for each visit, and the same one within a visit, also after a reload. The server's HTML, the
 * results and the tools without a script keep the budget's order.
 */

/** @param {string} id the budget's */
const storageKey = (id) => `allocator:${id}:order`;

/** A random number generator of 32 bits (mulberry32): the same seed gives the same numbers. @param {number} seed */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Shuffles a copy: every order is equally likely (Fisher and Yates).
 *
 * @template T @param {T[]} items @param {number} seed @returns {T[]}
 */
export function shuffled(items, seed) {
  const random = generator(seed);
  const next = [...items];
  for (let last = next.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [next[last], next[other]] = [next[other], next[last]];
  }
  return next;
}

/** The visit's seed; without storage, a new one for each load. @param {string} budget */
function seedOf(budget) {
  const fresh = crypto.getRandomValues(new Uint32Array(1))[0];
  try {
    const kept = sessionStorage.getItem(storageKey(budget));
    if (kept !== null && /^\d{1,10}$/.test(kept)) return Number(kept);
    sessionStorage.setItem(storageKey(budget), String(fresh));
  } catch {
    // Storage is forbidden.
  }
  return fresh;
}

/** Moves the rows of a list. @param {Element} list @param {string} budget */
export function shuffleRows(list, budget) {
  list.append(...shuffled([...list.children], seedOf(budget)));
}
