// @ts-check
/**
 * Real spending beside the results: a column, a tick across each bar, and where the figures come from.
 *
 * Owns only what a definition with a reference adds to the results' table.
 */
import { make, svg } from "./dom.js";

/** The tick's width in pixels. */
const TICK_WIDTH = 3;

/**
 * @param {{name: string, lang?: string, source: {name: string, lang?: string},
 *   shares: Record<string, number>}} reference shares in basis points, by category
 * @param {import("./dom.js").Words} words
 */
export function makeReference(reference, words) {
  const { text, percent } = words;
  const isolated = (/** @type {{name: string, lang?: string}} */ { name, lang }) => make("bdi", { lang }, name);
  return {
    /** All shares, in percent. */
    percents: Object.values(reference.shares).map((share) => share / 100),
    legend: () => make("span", { class: "key real" }, text("legend_real")),
    head: () => make("th", { class: "real", role: "columnheader", scope: "col" }, text("column_real")),
    /** @param {string} category */
    cell: (category) => make("td", { class: "real", role: "cell" }, percent(reference.shares[category] ?? 0)),
    /** Names whose spending it is, and the source; names keep their own direction and language. */
    note() {
      const [before, between, after] = text("reference", { name: "\n", source: "\n" }).split("\n");
      return make(
        "p",
        { class: "note reference" },
        before,
        isolated(reference),
        between,
        isolated(reference.source),
        after,
      );
    },
    /** @param {string} category @param {(percent: number) => string} place turns percent into a place on the bar */
    tick: (category, place) =>
      svg("rect", {
        class: "real",
        x: place((reference.shares[category] ?? 0) / 100),
        width: TICK_WIDTH,
        height: 16,
      }),
  };
}
