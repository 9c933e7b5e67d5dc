// @ts-check
/**
 * Builds the table of the results where the server's page has none: nobody had taken part yet, or results were withheld.
 *
 * The same table as the server's (`page/src/html/results.rs`), without its numbers.
 */
import { make, svg } from "./dom.js";

/**
 * @param {{budget: any, words: import("./dom.js").Words, reference: ReturnType<typeof import("./lazy-reference.js").makeReference> | null}} options
 * @returns {Node[]} legend, table and notes
 */
export function makeTable({ budget, words, reference }) {
  const { text } = words;
  const head = (/** @type {string} */ name, /** @type {string} */ key) =>
    make("th", { class: name, role: "columnheader", scope: "col" }, text(key));
  const cell = (/** @type {string} */ name) => make("td", { class: name, role: "cell" });
  const rows = budget.categories.map((/** @type {any} */ category) =>
    make("tr", { role: "row", "data-category": category.id },
      make("th", { class: "name", scope: "row", role: "rowheader" }, swatch(category.color), make("bdi", { lang: category.lang }, category.name)),
      make("td", { class: "bar", "aria-hidden": "true" }), cell("average"), cell("median"), cell("you"), reference?.cell(category.id)));
  const legend = make("p", { class: "legend" }, make("span", { class: "key average" }, text("legend")), " ",
    make("span", { class: "key you" }, text("legend_you")), reference && " ", reference?.legend());
  const table = make("table", { id: "averages", role: "table", class: reference && "with-real" },
    make("caption", { class: "visually-hidden" }, text("table_caption")),
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, head("name", "column_area"),
      make("th", { class: "bar", "aria-hidden": "true" }), head("average", "column_average"),
      head("median", "column_median"), head("you", "column_you"), reference?.head())),
    make("tbody", { role: "rowgroup" }, ...rows));
  const notes = [make("p", { class: "note" }, text("note"))];
  if (reference) notes.push(reference.note());
  return [legend, table, ...notes];
}

/** The category's colour, as decoration. @param {string | undefined} color */
function swatch(color) {
  return make("span", { class: "swatch", "aria-hidden": "true" },
    color && svg("svg", { width: 16, height: 16, viewBox: "0 0 16 16" }, svg("rect", { x: 1, y: 1, width: 14, height: 14, rx: 3, fill: color })));
}
