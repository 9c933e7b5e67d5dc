// @ts-check
/** Dead letters: pages of them, their bytes, and the decisions to replay or drop one. */
import { get, post } from "./admin-api.js";
import { asking, attempt, say, table, time } from "./admin-view.js";
import { button, find, make } from "./dom.js";

const PAGE_SIZE = 50;
const FOLLOW_INTERVAL_MS = 1_000;
const ENDED = ["succeeded", "dead", "cancelled"];

/** @param {HTMLElement} root @param {import("./admin.js").Administrator} who @param {string[]} path `after` */
export async function showDeadLetters(root, who, [after = ""]) {
  const query = after ? `&after=${encodeURIComponent(after)}` : "";
  const { dead_letters: letters, next } = await get(`/v1/admin/dead-letters?limit=${PAGE_SIZE}${query}`);
  const rows = letters.map((/** @type {any} */ letter) => row(letter, who));
  root.append(
    make("h2", {}, "Dead letters"),
    make(
      "p",
      { class: "hint" },
      "Records that cannot be counted. Replaying appends a record to the log again; dropping leaves it out for good.",
    ),
    rows.length > 0
      ? table("Dead letters", ["Record", "State", "Reason", "Since", "Bytes", "Actions"], rows)
      : make("p", {}, "No dead letters."),
    make(
      "p",
      {},
      after ? make("a", { href: "#dead-letters" }, "First page") : "",
      " ",
      next ? make("a", { href: `#dead-letters/${next}` }, "Next page") : "",
    ),
  );
}

/** @param {any} letter @param {import("./admin.js").Administrator} who */
function row(letter, who) {
  const { id, reason, put_at: since, key_bytes: keyBytes, value_bytes: valueBytes } = letter;
  const state = make("span", {});
  const decisions = make("span", { class: "actions" });
  const show = (/** @type {any} */ now) => {
    state.textContent = now.replayed_as ? `replayed as ${now.replayed_as}` : now.state;
    decisions.replaceChildren(...(who.operates ? actions(now, (job) => follow(id, job, state, show)) : []));
  };
  show(letter);
  const record = make("div", {});
  const showRecord = button(
    "Show the record",
    () =>
      attempt(showRecord, async () => {
        const { record: bytes } = await get(`/v1/admin/dead-letters/${id}`);
        const shown = bytes.trouble
          ? [make("p", {}, bytes.trouble)]
          : [
              make("p", {}, "Key ", make("code", {}, bytes.key)),
              make("p", {}, "Value ", make("code", {}, bytes.value)),
            ];
        record.replaceChildren(...shown);
      }),
    { class: "quiet" },
  );
  return [id, state, reason, time(since), `${keyBytes} + ${valueBytes}`, [decisions, " ", showRecord, record]];
}

/** @param {any} letter @param {(job: any) => Promise<void>} follow */
function actions({ id, state }, follow) {
  const path = `/v1/admin/dead-letters/${id}`;
  const replay = (/** @type {any} */ body) => async () => follow(await post(`${path}/replay`, body));
  const drop = asking("Drop", `Drop ${id}? It will never be counted.`, "Yes, drop it", async () =>
    follow(await post(`${path}/drop`)),
  );
  if (state === "open") {
    return [
      asking("Replay", `Replay ${id}? It is appended to the log once more.`, "Yes, replay it", replay(undefined)),
      " ",
      drop,
    ];
  }
  if (state !== "replaying") return [];
  return [
    asking(
      "Resume",
      `Resume the replay of ${id}? Only if the worker that began it is gone.`,
      "Yes, resume it",
      replay({ resume: true }),
    ),
  ];
}

/**
 * Waits for the job of a decision, and shows what became of the dead letter.
 *
 * @param {string} id @param {any} job @param {HTMLElement} state @param {(letter: any) => void} show
 */
async function follow(id, job, state, show) {
  let now = job;
  while (!ENDED.includes(now.state) && state.isConnected) {
    state.textContent = `${now.kind} is ${now.state} …`;
    await new Promise((resolve) => setTimeout(resolve, FOLLOW_INTERVAL_MS));
    now = await get(`/v1/admin/jobs/${job.id}`);
  }
  show(await get(`/v1/admin/dead-letters/${id}`));
  const result = now.result ? `: ${now.result}` : "";
  say(`${now.kind} of ${id} ${now.state}${result}`);
  if (now.verdict !== "clean") state.append(make("p", { class: "hint" }, `${now.state}${result}`));
  find("#sections")?.scrollIntoView({ block: "nearest" });
}
