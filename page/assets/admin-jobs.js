// @ts-check
/** Background jobs: the list with their progress, asking for one, cancelling and retrying. */
import { get, idempotencyKey, post } from "./admin-api.js";
import { checkBox, choice, field, textInput } from "./admin-fields.js";
import { asking, attempt, failure, refresh, repeat, say, table, time } from "./admin-view.js";
import { button, make } from "./dom.js";

const POLL_INTERVAL_MS = 2_000;
const STATES = ["queued", "running", "succeeded", "dead", "cancelled"];
const FORMATS = ["csv", "ndjson", "pb", "parquet"];
const PRIORITIES = ["critical", "high", "normal", "low"];

/** What can be asked for here, and what it does. Dead letters have a section of their own. */
const KINDS = {
  audit: "Compares everything stored and served with a fresh computation from the log.",
  rebuild: "Derives all totals from the log again as a new generation, verifies it, and switches to it.",
  warm_caches: "Publishes all totals to the cache again.",
  archive: "Copies the log into files that outlive it.",
  export: "Writes everyone's allocations of a budget, without identities, into a file.",
  report: "Writes the results, people over time and the verdict of an audit of a budget, as HTML and JSON.",
};

/** @param {HTMLElement} root @param {import("./admin.js").Administrator} who */
export async function showJobs(root, who) {
  const list = make("div", {});
  const states = choice(["all", ...STATES], "all");
  const read = async () => {
    const query = states.value === "all" ? "" : `?state=${states.value}`;
    const { jobs, unreadable } = await get(`/v1/admin/jobs${query}`);
    refresh(list, [jobs, unreadable], () => build(jobs.reverse(), unreadable, who, read));
  };
  states.addEventListener("change", () => attempt(states, read));
  root.append(
    make("h2", {}, "Jobs"),
    who.operates ? makeRequest(read) : make("p", { class: "hint" }, "The role operator may ask for jobs."),
    field("Show", states),
    list,
  );
  await read();
  repeat(root, POLL_INTERVAL_MS, read);
}

/**
 * @param {any[]} jobs newest first @param {string[]} unreadable @param {import("./admin.js").Administrator} who
 * @param {() => Promise<void>} read
 */
function build(jobs, unreadable, who, read) {
  const rows = jobs.map((job) => [
    describe(job),
    [job.cancelling ? `${job.state}, cancelling` : job.state, " ", progress(job)],
    outcome(job),
    [job.asked_by, make("br"), time(job.created_at)],
    who.operates ? actions(job, read) : "",
  ]);
  return [
    jobs.length > 0
      ? table("Jobs, newest first", ["Job", "State", "Result", "Asked for", "Actions"], rows)
      : make("p", {}, "No jobs."),
    unreadable.length > 0
      ? make("p", { class: "notice" }, `Damaged, or of a newer release: ${unreadable.join(", ")}`)
      : "",
  ];
}

/** @param {any} job */
function describe({ kind, dry_run: dryRun, budget, format, publish, letter, priority }) {
  const parts = [
    kind,
    dryRun && "dry run",
    budget,
    format,
    publish && "published",
    letter,
    priority !== "normal" && `${priority} priority`,
  ];
  return parts.filter(Boolean).join(", ");
}

/** @param {any} job */
function progress({ state, kind, progress: { done, of, line } }) {
  if (state !== "running") return "";
  // Without a value the bar says that the end is unknown.
  const bar = make("progress", { "aria-label": `Progress of ${kind}`, max: of || null, value: of ? done : null });
  return make("div", {}, bar, make("span", { class: "hint" }, ` ${line}`));
}

/** @param {any} job */
function outcome({ id, verdict, result, attempts, failed, due_at: due }) {
  const tries = failed.map((/** @type {any} */ one) => make("li", {}, time(one.failed_at), ` ${one.error}`));
  return [
    verdict ? make("strong", {}, verdict) : "",
    " ",
    result ?? "",
    due ? make("p", {}, "Next attempt: ", time(due)) : "",
    tries.length > 0
      ? make(
          "details",
          { "data-key": `failed-${id}` },
          make("summary", {}, `${attempts} attempts, ${tries.length} failed`),
          make("ul", {}, ...tries),
        )
      : "",
  ];
}

/** @param {any} job @param {() => Promise<void>} read */
function actions({ id, kind, state, cancelling }, read) {
  const path = `/v1/admin/jobs/${id}`;
  if (state === "dead") {
    const retry = button(
      "Retry",
      () =>
        attempt(retry, async () => {
          await post(`${path}/retry`);
          say(`${kind} is queued again.`);
          await read();
        }),
      { "data-key": `retry-${id}` },
    );
    return retry;
  }
  if (!["queued", "running"].includes(state) || cancelling) return "";
  return asking(
    "Cancel",
    `Cancel ${kind}?`,
    "Yes, cancel it",
    async () => {
      await post(`${path}/cancel`);
      say(`${kind} is being cancelled.`);
    },
    `cancel-${id}`,
  );
}

/** The form that asks for a job. @param {() => Promise<void>} read */
function makeRequest(read) {
  const kind = choice(Object.keys(KINDS), "audit");
  const about = make("p", { class: "hint" });
  const dryRun = field("Dry run: verify, and do not switch", checkBox(true));
  const budget = field("Budget", textInput("taxes", { spellcheck: "false" }), { pointer: "/budget" });
  const format = field("Format", choice(FORMATS, "csv"));
  const publish = field("Publish", checkBox(false), {
    hint: "Everyone can then read the file. Two published files show who changed in between.",
  });
  const priority = field("Priority", choice(PRIORITIES, "normal"));
  const notice = make("div", {});
  const submit = make("button", { class: "primary" }, "Ask for it");
  // A request that is repeated after a lost answer is one job; another one has another key.
  let key = idempotencyKey();

  function show() {
    about.textContent = KINDS[/** @type {keyof typeof KINDS} */ (kind.value)];
    dryRun.hidden = kind.value !== "rebuild";
    budget.hidden = !["export", "report"].includes(kind.value);
    for (const element of [format, publish]) element.hidden = kind.value !== "export";
    key = idempotencyKey();
  }

  function body() {
    const common = { kind: kind.value, priority: priority.control.value };
    if (kind.value === "rebuild") return { ...common, dry_run: dryRun.control.checked };
    const ofBudget = { ...common, budget: budget.control.value.trim() };
    if (kind.value === "report") return ofBudget;
    if (kind.value !== "export") return common;
    return {
      ...ofBudget,
      format: format.control.value,
      publish: publish.control.checked,
    };
  }

  const form = make(
    "form",
    {
      class: "panel",
      change: show,
      submit: async (/** @type {Event} */ event) => {
        event.preventDefault();
        submit.disabled = true;
        notice.replaceChildren();
        try {
          const job = await post("/v1/admin/jobs", body(), key);
          key = idempotencyKey();
          say(`${job.kind} is ${job.state}.`);
          await read();
        } catch (error) {
          notice.replaceChildren(failure(error));
        } finally {
          submit.disabled = false;
        }
      },
    },
    make("h3", {}, "Ask for a job"),
    field("Kind", kind),
    about,
    dryRun,
    budget,
    format,
    publish,
    priority,
    notice,
    submit,
  );
  show();
  return form;
}
