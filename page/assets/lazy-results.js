// @ts-check
/**
 * Shows everyone's average live beside the person's own values.
 *
 * Owns the results table and Pause; `lazy-live.js` brings newer numbers, `lazy-distribution.js` draws how answers
 * spread. Never shows an older state than the one on the page, nor a number of withheld results.
 */
import { button, find, findAll, make, setText, svg } from "./dom.js";
import { makeAloud } from "./lazy-aloud.js";
import { makeLive } from "./lazy-live.js";
import { makeReference } from "./lazy-reference.js";
import { makeTable } from "./lazy-table.js";
import { writeAverage } from "./number.js";

/** Live numbers are painted at most this often. */
const REPAINT_MS = 1_000;

/** The end of the bars' scale in percent: the largest value, rounded up to 10. @param {number[]} percents */
export function scaleEnd(percents) {
  return Math.min(100, Math.max(10, Math.ceil(Math.max(0, ...percents) / 10) * 10));
}

/** Whether a state may replace the shown one: numbers never go back. @param {any} shown @param {any} next */
export function isNewer(shown, next) {
  if (!shown || shown.withheld || next.withheld) return true;
  // Without anybody there is no time yet.
  return !shown.updated_at || Date.parse(next.updated_at) >= Date.parse(shown.updated_at);
}

/**
 * The difference to the average in whole tenths of a point, from the numbers as they are shown.
 *
 * @param {number} own basis points @param {number} average percent
 */
export function differenceTenths(own, average) {
  return Math.round(own / 10 - Math.round(average * 10_000) / 1_000);
}

/**
 * @param {HTMLElement} section
 * @param {{data: any, words: import("./dom.js").Words, announce: ReturnType<typeof import("./dom.js").makeAnnouncer>,
 *   loadDistribution?: () => Promise<any>, clockCorrection: (header: string | null) => void}} options
 */
export function makeResults(section, { data, words, announce, clockCorrection, loadDistribution = () => import("./lazy-distribution.js") }) {
  const { text, format } = words;
  /** @type {any} */
  let aggregate = data.aggregate ?? null;
  /** @type {Record<string, number> | null} */
  let own = null;
  let scaleTo = 0;
  let paused = false;
  let offlineSince = 0;
  let paintedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let nextPaint;
  const reference = data.budget.reference ? makeReference(data.budget.reference, words) : null;

  const isOpen = () => section.tagName !== "DETAILS" || /** @type {HTMLDetailsElement} */ (section).open;
  const hasNumbers = () => Boolean(aggregate && !aggregate.withheld && aggregate.people > 0);
  const isFinal = () => hasNumbers() && aggregate.final === true;

  // ---- building what the server did not ----

  /** Puts an element after the others of the results, before the links. @param {any} element */
  function place(element) {
    const links = find(".links", section);
    if (links) links.before(element);
    else section.append(element);
    return element;
  }

  const people = find("#people") ?? place(make("p", { id: "people" }));
  const asOfLine = find(".as-of", section) ?? people.insertAdjacentElement("afterend", make("p", { class: "as-of" }));
  const asOf = make("time", { id: "as-of" });
  asOfLine.replaceChildren(asOf);
  // Says that the numbers move in steps, where they do.
  const steps = find("#steps", section);
  const final = find("#final") ?? people.insertAdjacentElement("beforebegin", make("p", { id: "final" }));
  setText(final, text("final_result"));
  const annulled = find("#annulled") ?? people.insertAdjacentElement("afterend", make("p", { id: "annulled" }));
  const pauseArea = find("#pause-area") ?? asOfLine.insertAdjacentElement("afterend", make("p", { id: "pause-area" }));
  const freshness = make("span", { class: "freshness" });
  const pause = button(text("pause"), togglePause, { class: "quiet" });
  const sort = button(text("largest_first"), toggleOrder, { class: "quiet" });
  const aloud = makeAloud({ words, announce, sentence: spokenSentence });
  pauseArea.replaceChildren(pause, " ", sort, " ", freshness);

  /** The sentence in place of numbers: nobody yet, or withheld. */
  function showSentence() {
    const withheld = aggregate?.withheld;
    const old = find(".withheld, #nobody", section);
    if (!aggregate) return;
    // In steps, no number does not mean nobody.
    if (hasNumbers() || (steps && !withheld && !aggregate.final)) {
      old?.remove();
      return;
    }
    const node = old ?? people.insertAdjacentElement("beforebegin", make("p"));
    node.className = withheld ? "withheld" : "empty";
    if (withheld) node.removeAttribute("id");
    else node.id = "nobody";
    setText(node, withheld
      ? text(`withheld_${withheld.state ?? withheld.reason}`, { time: withheld.until ? words.dateTime(withheld.until) : "" })
      : text("empty"));
  }

  function ensureTable() {
    const existing = find("#averages", section);
    if (existing) return existing;
    for (const part of makeTable({ budget: data.budget, words, reference })) place(part);
    return find("#averages", section);
  }

  // ---- painting ----

  /** Paints at once if nothing was painted for a second, else at the end of that second. */
  function paintSoon() {
    const waitMs = paintedAt + REPAINT_MS - Date.now();
    if (aggregate.withheld || waitMs <= 0 || waitMs > REPAINT_MS) paint();
    else nextPaint ??= setTimeout(paint, waitMs);
  }

  function paint() {
    clearTimeout(nextPaint);
    nextPaint = undefined;
    paintedAt = Date.now();
    showSentence();
    const numbers = hasNumbers();
    if (aggregate?.withheld) removeNumbers();
    const table = numbers ? ensureTable() : find("#averages", section);
    const shown = [people, asOfLine, pauseArea, table, aloud, ...findAll(".legend, .note, .distribution", section)];
    for (const node of shown) if (node) node.hidden = !numbers;
    final.hidden = !isFinal();
    annulled.hidden = !numbers || !aggregate.annulled;
    if (steps) steps.hidden = aggregate?.final === true;
    if (!numbers) return;
    setText(people, text("people", { number: words.integer(aggregate.people) }));
    if (aggregate.annulled) setText(annulled, text("annulled", { number: words.integer(aggregate.annulled) }));
    asOf.setAttribute("datetime", aggregate.updated_at);
    setText(asOf, text("as_of", { time: words.time(aggregate.updated_at) }));
    if (scaleTo === 0) rescale();
    for (const node of findAll("th.you, td.you, .key.you", section)) node.hidden = !own;
    const rows = new Map(findAll("tr[data-category]", table).map((row) => [row.dataset.category, row]));
    for (const category of aggregate.categories) {
      const row = rows.get(category.id);
      if (row) paintRow(row, category);
    }
    ensureDistribution();
    pause.hidden = isFinal();
    aloud.hidden = isFinal();
  }

  /** The numbers in one sentence; empty where there is nothing new to say. */
  function spokenSentence() {
    if (!hasNumbers() || paused) return "";
    const largest = aggregate.categories.reduce((/** @type {any} */ a, /** @type {any} */ b) => (b.average_percent > a.average_percent ? b : a));
    const { name } = data.budget.categories.find((/** @type {any} */ category) => category.id === largest.id) ?? largest;
    return text("spoken_results", {
      people: words.integer(aggregate.people), category: name, average: words.withSign(writeAverage(largest.average_percent, format)),
    });
  }

  /** Results may become withheld again, when people withdraw: hiding is not enough. */
  function removeNumbers() {
    for (const node of findAll("#averages, .legend, .note, .distribution", section)) node.remove();
    for (const node of [people, asOf, freshness]) setText(node, "");
    asOf.removeAttribute("datetime");
  }

  /** @param {HTMLElement} row @param {any} category */
  function paintRow(row, category) {
    setText(find("td.average", row), words.withSign(writeAverage(category.average_percent, format)));
    setText(find("td.median", row), words.withSign(writeAverage(category.median_percent, format)));
    const bar = find("td.bar", row);
    let picture = find("svg", bar);
    // The server's bar has another scale and no track: it is drawn once anew.
    if (!picture?.querySelector(".track")) bar.replaceChildren(picture = drawBar());
    const width = (/** @type {number} */ percent) => `${Math.min(100, (percent / scaleTo) * 100).toFixed(2)}%`;
    const average = find("rect.average", picture);
    const next = width(category.average_percent);
    if (average.getAttribute("width") !== next) average.setAttribute("width", next);
    find("rect.real", picture)?.remove();
    if (reference) picture.append(reference.tick(category.id, width));
    find("svg.you-marker", picture)?.remove();
    if (!own) return;
    const mine = own[category.id] ?? 0;
    picture.append(svg("svg", { class: "you-marker", x: width(mine / 100), y: 13, overflow: "visible" },
      svg("path", { class: "you", d: "M0 0 6 9H-6Z" })));
    paintOwn(find("td.you", row), mine, category.average_percent);
  }

  /** @param {HTMLElement} cell @param {number} mine @param {number} average */
  function paintOwn(cell, mine, average) {
    const number = words.percent(mine);
    const tenths = differenceTenths(mine, average);
    const points = writeAverage(Math.abs(tenths) / 10, format);
    const difference = tenths === 0 ? text("same") : text(tenths > 0 ? "above" : "below", { points });
    if (cell.dataset.shown === number + difference) return;
    cell.dataset.shown = number + difference;
    cell.replaceChildren(make("span", { class: "number" }, number), " ", make("span", { class: "difference" }, difference));
  }

  const drawBar = () => svg("svg", { width: "100%", height: 24, "aria-hidden": "true", focusable: "false" },
    svg("rect", { class: "track", width: "100%", height: 12 }), svg("rect", { class: "average", width: "0%", height: 12 }));

  /** Only when loading or sending: a scale that follows live numbers would make all bars move. */
  function rescale() {
    if (!hasNumbers()) return;
    scaleTo = scaleEnd([
      ...aggregate.categories.map((/** @type {any} */ category) => category.average_percent),
      ...Object.values(own ?? {}).map((value) => value / 100), ...(reference?.percents ?? []),
    ]);
  }

  // ---- the order of rows ----

  let largestFirst = false;
  function toggleOrder() {
    largestFirst = !largestFirst;
    const body = find("#averages tbody", section);
    const order = new Map(aggregate.categories.map((/** @type {any} */ category, /** @type {number} */ index) =>
      [category.id, largestFirst ? -category.average_percent : index]));
    const rows = findAll("tr", body);
    rows.sort((a, b) => (order.get(a.dataset.category) ?? 0) - (order.get(b.dataset.category) ?? 0));
    body.append(...rows);
    setText(sort, text(largestFirst ? "usual_order" : "largest_first"));
  }

  // ---- how answers spread ----

  function ensureDistribution() {
    if (find(".distribution", section)) return;
    const body = make("div", { class: "distribution-body" });
    const details = make("details", { class: "distribution" }, make("summary", {}, text("distribution")), body);
    const load = async () => {
      body.replaceChildren(make("p", {}, text("loading")));
      try {
        const module = await loadDistribution();
        const response = await fetch(`${data.urls.aggregate}?include=distribution`, { headers: { Accept: "application/json" }, cache: "no-cache" });
        if (!response.ok) throw new Error(String(response.status));
        const answer = await response.json();
        if (answer.withheld) throw new Error("withheld");
        body.replaceChildren(module.drawDistribution(answer, words, data.budget.categories));
      } catch {
        body.replaceChildren(make("p", {}, text("load_failed"), " ", button(text("try_again"), load, { class: "quiet" })));
      }
    };
    details.addEventListener("toggle", () => details.open && load());
    (findAll(".note", section).at(-1) ?? section.lastElementChild).after(aloud, details);
  }

  // ---- live ----

  /** @param {any} next @param {{rescale?: boolean}} [options] */
  function take(next, options = {}) {
    if (!isNewer(aggregate, next)) return;
    aggregate = next;
    if (options.rescale) {
      scaleTo = 0;
      paint();
    } else paintSoon();
    if (isFinal()) live.stop();
  }

  const live = makeLive({
    urls: data.urls,
    clockCorrection,
    isWanted: () => isOpen() && !paused && !isFinal() && data.state !== "not-yet",
    closesAt: () => (aggregate?.withheld?.reason === "after_close" ? Date.parse(aggregate.withheld.until) : 0),
    take,
    show: (state) => showFreshness(state),
  });

  /** @param {import("./lazy-live.js").Freshness} state */
  function showFreshness(state) {
    if (state !== "offline") offlineSince = 0;
    else offlineSince ||= Date.now();
    if (paused) return;
    const isShown = hasNumbers();
    setText(freshness, !isShown || state === "fresh" ? ""
      : state === "offline" ? text("offline_since", { time: words.time(offlineSince) })
      : state === "delayed" ? text("delayed", { time: words.time(aggregate.updated_at) })
      : text("recounting"));
  }

  function togglePause() {
    // What arrived in this second is shown, and nothing after it.
    if (nextPaint !== undefined) paint();
    paused = !paused;
    setText(pause, text(paused ? "resume" : "pause"));
    setText(freshness, paused ? text("paused", { time: words.time(Date.now()) }) : "");
    live.stop();
    live.start();
  }

  section.addEventListener("toggle", () => live.start());
  paint();
  live.start();

  return {
    hasNumbers,
    /** Shows the person's own values beside everyone's; null for none. @param {Record<string, number> | null} values */
    setOwn(values) {
      own = values;
      scaleTo = 0;
      paint();
    },
    /** Takes an aggregate that another request brought. @param {any} next */
    take(next) {
      if (!paused) take(next, { rescale: true });
    },
    open() {
      if (section.tagName === "DETAILS") /** @type {HTMLDetailsElement} */ (section).open = true;
    },
  };
}
