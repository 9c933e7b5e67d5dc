// @ts-check
/** The generations of totals, and the progress of those that are folded beside the active one. */
import { get } from "./admin-api.js";
import { refresh, repeat, table, time } from "./admin-view.js";
import { make } from "./dom.js";

const POLL_INTERVAL_MS = 5_000;

/** @param {HTMLElement} root */
export async function showGenerations(root) {
  const list = make("div", {});
  const read = async () => {
    const overview = await get("/v1/admin/generations");
    refresh(list, overview, () => build(overview));
  };
  root.append(make("h2", {}, "Generations"), list);
  await read();
  repeat(root, POLL_INTERVAL_MS, read);
}

/** @param {any} overview */
function build({ generations, term }) {
  const rows = generations.map((/** @type {any} */ one) => [
    String(one.generation),
    one.dry_run ? `${one.state}, dry run` : one.state,
    one.topic,
    one.partition_count,
    [one.begun_at ? time(one.begun_at) : "–", one.job ? make("p", { class: "hint" }, `job ${one.job}`) : ""],
    lagOf(one.partitions),
  ]);
  const shadows = generations.filter((/** @type {any} */ one) => one.partitions);
  return [
    make("p", { class: "hint" }, `Switches so far: ${term}. The current generation serves reads.`),
    generations.length > 0
      ? table("Generations", ["Generation", "State", "Topic", "Partitions", "Begun", "Lag in records"], rows)
      : make("p", {}, "None before the first processor has started."),
    ...shadows.map(partitions),
  ];
}

/** Records between the committed position and the end of the log. @param {any} report */
const lag = (report) => (report ? Math.max(0, report.log_end - report.position) : null);

/** @param {any[] | undefined} partitions */
function lagOf(partitions) {
  if (!partitions) return "–";
  const known = partitions.map(({ report }) => lag(report)).filter((records) => records !== null);
  const total = known.reduce((/** @type {number} */ sum, records) => sum + Number(records), 0);
  return known.length < partitions.length
    ? `${total}, ${partitions.length - known.length} partitions unknown`
    : String(total);
}

/** @param {any} generation */
function partitions({ generation, partitions }) {
  const caption = `Partitions of generation ${generation}`;
  const rows = partitions.map((/** @type {any} */ { partition, report }) => [
    String(partition),
    lag(report) ?? "no report yet",
    report?.position ?? "–",
    time(report?.reported_at),
    report?.trouble ?? "none",
    differences(report?.compared),
  ]);
  return make(
    "details",
    { "data-key": `details-${generation}` },
    make("summary", {}, caption),
    table(caption, ["Partition", "Lag in records", "Position", "Reported", "Trouble", "Compared"], rows),
  );
}

/** @param {any} compared */
function differences(compared) {
  if (!compared) return "not yet";
  const { with: other, position, differences: found } = compared;
  if (found.length === 0) return `equal to generation ${other} at ${position}`;
  return [
    `differs from generation ${other} at ${position}`,
    make("ul", {}, ...found.map((/** @type {string} */ line) => make("li", {}, line))),
  ];
}
