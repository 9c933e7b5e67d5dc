// @ts-check
/** The rate limits of administrators, and what is left of them. */
import { get } from "./admin-api.js";
import { refresh, repeat, table } from "./admin-view.js";
import { make } from "./dom.js";

const POLL_INTERVAL_MS = 2_000;
const MINUTE_SECONDS = 60;

/** @param {HTMLElement} root */
export async function showLimits(root) {
  const list = make("div", {});
  const read = async () => {
    const limits = await get("/v1/admin/limits");
    refresh(list, limits, () => build(limits));
  };
  root.append(make("h2", {}, "Limits"), list);
  await read();
  repeat(root, POLL_INTERVAL_MS, read);
}

/** @param {any} limits */
function build({ requests: { per_minute: perMinute, administrators }, failures }) {
  const rows = administrators.map((/** @type {any} */ { name, role, remaining }) => [
    name,
    role,
    [
      make("meter", {
        "aria-label": `Requests left of ${name}`,
        min: 0,
        max: perMinute,
        low: perMinute / 10,
        optimum: perMinute,
        value: remaining,
      }),
      ` ${remaining}`,
    ],
    `${Math.ceil(((perMinute - remaining) / perMinute) * MINUTE_SECONDS)} s`,
  ]);
  return [
    make(
      "p",
      { class: "hint" },
      `A minute: ${perMinute} requests of each administrator, ${failures.per_minute} wrong tokens or codes of each address. ` +
        "Each process counts on its own.",
    ),
    table("Requests left of each administrator", ["Name", "Role", "Left", "All restored in"], rows),
  ];
}
