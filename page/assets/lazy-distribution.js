// @ts-check
/**
 * Draws how answers spread: ten columns for each category, on one scale, and the same as a table.
 *
 * Loaded when it is opened. The ends (below 1 %, all of it) are text: most people are there, and would flatten the rest.
 */
import { make, svg } from "./dom.js";

const COLUMNS = 10;
const HEIGHT = 60;

/**
 * Sums 101 counts, by whole percent, into the two ends and ten columns: 1–9, 10–19, … 90–99.
 *
 * @param {number[]} counts
 */
export function toColumns(counts) {
  const columns = Array.from({ length: COLUMNS }, (_, column) =>
    counts.slice(Math.max(1, column * 10), column * 10 + 10).reduce((total, count) => total + count, 0));
  return { below: counts[0] ?? 0, columns, all: counts[100] ?? 0 };
}

/**
 * @param {any} aggregate with `distribution` in each category
 * @param {import("./dom.js").Words} words
 * @param {{id: string, name: string, lang?: string}[]} categories with their names in the page's language
 */
export function drawDistribution(aggregate, words, categories) {
  const { text } = words;
  const names = new Map(categories.map((category) => [category.id, category]));
  const charts = aggregate.categories.map((/** @type {any} */ category) => {
    const { name, lang } = names.get(category.id) ?? category;
    return { name, lang, ...toColumns(category.distribution ?? []) };
  });
  const most = Math.max(1, ...charts.flatMap((/** @type {any} */ chart) => chart.columns));
  const range = (/** @type {number} */ column) =>
    text("distribution_range", { from: words.percent(Math.max(1, column * 10) * 100), to: words.percent((column * 10 + 9) * 100) });

  const figures = charts.map((/** @type {any} */ chart) =>
    make("figure", {},
      make("figcaption", {}, make("bdi", { lang: chart.lang }, chart.name)),
      svg("svg", { viewBox: `0 0 200 ${HEIGHT}`, width: "100%", height: HEIGHT, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
        ...chart.columns.map((/** @type {number} */ count, /** @type {number} */ column) => {
          const height = (count / most) * (HEIGHT - 1);
          return svg("rect", { class: "column", x: column * 20 + 1, width: 18, y: HEIGHT - height - 1, height: height + 1 });
        })),
      make("p", { class: "ends" },
        make("span", {}, text("distribution_below", { number: words.integer(chart.below) })), " ",
        make("span", {}, text("distribution_all", { number: words.integer(chart.all) })))));

  const label = (/** @type {string} */ key) => text(key, { number: "" }).replace(/[\s:：]+$/u, "");
  const table = make("table", {},
    make("caption", {}, `${text("distribution")} – ${text("distribution_people")}`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, text("column_area")),
      make("th", { scope: "col" }, label("distribution_below")),
      ...Array.from({ length: COLUMNS }, (_, column) => make("th", { scope: "col" }, range(column))),
      make("th", { scope: "col" }, label("distribution_all")))),
    make("tbody", {}, ...charts.map((/** @type {any} */ chart) =>
      make("tr", {}, make("th", { scope: "row" }, make("bdi", { lang: chart.lang }, chart.name)),
        ...[chart.below, ...chart.columns, chart.all].map((count) => make("td", {}, words.integer(count)))))));

  return make("div", {},
    make("p", { class: "note" }, text("distribution_note")),
    make("div", { class: "charts" }, ...figures),
    make("details", {}, make("summary", {}, text("distribution_table")),
      make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": text("distribution_table") }, table)));
}
