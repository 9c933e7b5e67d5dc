// @ts-check
/**
 * Reads changes of the results aloud, for whoever asks for it: one sentence a minute, and none without a change.
 *
 * Live numbers are in no live region: a screen reader would read nothing else.
 */
import { button } from "./dom.js";

const READ_ALOUD_MS = 60_000;

/**
 * Makes the button that begins and ends it.
 *
 * @param {{words: import("./dom.js").Words, announce: ReturnType<typeof import("./dom.js").makeAnnouncer>,
 *   sentence: () => string}} options `sentence` is empty if there is nothing to say
 */
export function makeAloud({ words, announce, sentence }) {
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer;
  let said = "";

  function read() {
    const next = sentence();
    if (next === "" || next === said || document.hidden) return;
    said = next;
    announce.now(next);
  }

  const toggle = button(words.text("read_aloud"), () => {
    const begins = timer === undefined;
    clearInterval(timer);
    timer = begins ? setInterval(read, READ_ALOUD_MS) : undefined;
    said = "";
    toggle.setAttribute("aria-pressed", String(begins));
    if (begins) read();
  }, { class: "quiet", "aria-pressed": "false" });
  return toggle;
}
