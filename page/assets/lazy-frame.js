// @ts-check
/**
 * Tells the page around a frame how high its content is, at first and whenever it changes.
 *
 * To any page: a height says nothing about a person. Two messages: ours, and AMP's, which content systems know.
 */

/** @param {Window} [host] */
export function reportHeight(host = globalThis.parent) {
  if (host === globalThis) return;
  let reported = 0;
  new ResizeObserver(() => {
    const height = Math.ceil(document.body.getBoundingClientRect().height);
    if (height === reported) return;
    reported = height;
    host.postMessage({ type: "allocator:height", height }, "*");
    host.postMessage({ sentinel: "amp", type: "embed-size", height }, "*");
  }).observe(document.body);
}
