// @ts-check
/**
 * Entry point: improves the server's page step by step.
 *
 * Each step is guarded: if one fails, those before it stay and the server's HTML goes on working. The page is complete
 * without this script.
 */
import { find, findAll, make, makeAnnouncer, makeWords } from "./dom.js";

/** The page says that it closes soon from this long before. */
const CLOSES_SOON_MS = 10 * 60_000;
const MAX_TIMER_MS = 2 ** 31 - 1;
/** What is needed later is fetched when the first load is over. */
const PREFETCH_AFTER_MS = 2_000;

/** @param {string} name @param {() => any} action @returns {Promise<any>} */
async function step(name, action) {
  try {
    return await action();
  } catch (error) {
    console.error(`page: ${name} failed`, error);
    return null;
  }
}

/** The viewer's clock may be wrong: the difference to the server's, from its `Date` header. */
let clockErrorMs = 0;
const serverNow = () => Date.now() - clockErrorMs;
const clockCorrection = (/** @type {string | null} */ header) => {
  const date = Date.parse(header ?? "");
  // The header has whole seconds.
  if (Number.isFinite(date)) clockErrorMs = Math.abs(Date.now() - date) > 2_000 ? Date.now() - date : 0;
};

/** Calls back at a server time, unless it is too far for a timer. @param {string | null} time @param {number} offsetMs @param {() => void} action */
function at(time, offsetMs, action) {
  if (!time) return;
  const moment = Date.parse(time) + offsetMs;
  const wait = moment - serverNow();
  if (!(wait <= MAX_TIMER_MS)) return;
  // Asked again then, since the clock may have been corrected meanwhile.
  setTimeout(() => (serverNow() >= moment ? action() : at(time, offsetMs, action)), Math.max(0, wait) + 50);
}

/** Watches opening and closing. @param {any} data @param {import("./dom.js").Words} words @param {() => any} answer */
function watchClock(data, words, answer) {
  const say = (/** @type {string} */ sentence, /** @type {(Node | string)[]} */ ...more) => {
    find("#clock-notice")?.remove();
    find("#state")?.after(make("p", { class: "notice", id: "clock-notice" }, sentence, ...more));
  };
  if (data.state === "open") {
    at(data.budget.closes_at, -CLOSES_SOON_MS, () => {
      if (data.state === "open") say(words.text("closes_at", { time: words.time(data.budget.closes_at) }));
    });
    at(data.budget.closes_at, 0, () => {
      data.state = "closed";
      say(words.text("closed_now"));
      answer()?.close();
    });
  } else if (data.state !== "closed") {
    at(data.budget.opens_at, 0, () => say(words.text("opened_now"), " ", make("a", { href: "" }, words.text("reload"))));
  }
}

/** Times of the server's HTML are in UTC; here they are the viewer's, with the zone's name. @param {import("./dom.js").Words} words */
function localTimes(words) {
  for (const time of findAll("main time[datetime]")) time.textContent = words.dateTime(time.getAttribute("datetime"));
}

/** The server does not know the address under which it is reached, unless it is configured. */
function showEmbedCode() {
  const embed = find("#embed");
  if (!embed?.hidden) return;
  const code = find("textarea", embed);
  code.value = code.value.replaceAll(code.dataset.origin, location.origin);
  embed.hidden = false;
}

function unfoldTarget() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

async function main() {
  const data = JSON.parse(find("#page-data")?.textContent || "null");
  if (!data?.budget) return;
  const words = makeWords(data);
  const announce = makeAnnouncer(find("#announce"));
  await step("times", () => localTimes(words));

  /** @type {Promise<any> | null} */
  let results = null;
  const section = find("#results");
  const openResults = () => {
    results ??= step("results", async () => {
      if (!section) return null;
      const { makeResults } = await import("./lazy-results.js");
      return makeResults(section, { data, words, announce, clockCorrection });
    }).then((made) => {
      // Offline: the next call tries again.
      if (!made) results = null;
      return made;
    });
    return results;
  };
  if (section?.tagName === "DETAILS" && !section.open) section.addEventListener("toggle", openResults, { once: true });
  else openResults();

  await step("embed code", showEmbedCode);
  // A link to what is folded unfolds it.
  globalThis.addEventListener("hashchange", unfoldTarget);
  unfoldTarget();
  if (document.body.dataset.page === "embed") {
    await step("frame", async () => (await import("./lazy-frame.js")).reportHeight());
    return;
  }

  const answer = await step("answer", async () => {
    const { makeAnswer } = await import("./answer.js");
    return makeAnswer({ data, words, announce, openResults, clockCorrection, step });
  });
  // Whoever answers in a tunnel has the results' script already.
  setTimeout(() => void import("./lazy-results.js").catch(() => {}), PREFETCH_AFTER_MS);
  await step("clock", () => watchClock(data, words, () => answer));
}

await step("page", main);
