// @ts-check
/**
 * The list of budgets, and what can be done with one: show, edit, duplicate, close now.
 *
 * The form of one budget is `admin-budget-form.js`.
 */
import { get, request } from "./admin-api.js";
import { makeBudgetForm } from "./admin-budget-form.js";
import { asking, failure, say, table, time } from "./admin-view.js";
import { button, make } from "./dom.js";

const LANGUAGES = ["en", "de", "fr", "es", "pl", "ar"];
/** Budgets of one request for aggregates. */
const AGGREGATES_AT_ONCE = 50;
/** What `minimum_people` of a new budget should be, so that nobody's answer can be read from the first results. */
const SUGGESTED_MINIMUM_PEOPLE = 10;
/** What `publish_step` of a new budget should be, so that it cannot be read from the difference of two results either. */
const SUGGESTED_PUBLISH_STEP = 10;

/** A definition without what the service decides. @param {any} definition */
export function editable(definition) {
  const { id, revision, frozen, closing, ...rest } = definition;
  return rest;
}

/** Whether a budget takes submissions, in words. @param {any} budget */
function stateOf({ opens_at: opensAt, closes_at: closesAt, closing }) {
  if (closing?.state === "closed") return "closed";
  if (closing?.state === "reopening") return "being reopened";
  if (opensAt && Date.parse(opensAt) > Date.now()) return "not open yet";
  return closesAt && Date.parse(closesAt) <= Date.now() ? "closing" : "open";
}

/** The number of people of each budget, or why it is not shown. @param {string[]} ids */
async function peopleOf(ids) {
  /** @type {Map<string, string>} */
  const people = new Map();
  for (let first = 0; first < ids.length; first += AGGREGATES_AT_ONCE) {
    const query = ids
      .slice(first, first + AGGREGATES_AT_ONCE)
      .map((id) => `budget=${encodeURIComponent(id)}`)
      .join("&");
    // The list is of use without them.
    const { aggregates } = await get(`/v1/aggregates?${query}`).catch(() => ({ aggregates: [] }));
    for (const { budget, people: count, withheld } of aggregates)
      people.set(budget, withheld ? "withheld" : String(count));
  }
  return people;
}

/** @param {HTMLElement} root @param {import("./admin.js").Administrator} who @param {string[]} path */
export async function showBudgets(root, who, path) {
  const [action, id] = path;
  if (action === "edit" && id) await showOne(root, who, id);
  else if (action === "new") await showNew(root, id);
  else await showList(root, who);
}

/** @param {HTMLElement} root @param {import("./admin.js").Administrator} who */
async function showList(root, who) {
  const { budgets, unreadable = [] } = await get("/v1/budgets");
  const people = await peopleOf(budgets.map((/** @type {any} */ budget) => budget.id));
  const rows = budgets.map((/** @type {any} */ budget) => [
    make("a", { href: `#budgets/edit/${budget.id}` }, make("bdi", {}, budget.name)),
    budget.id,
    stateOf(budget),
    people.get(budget.id) ?? "unknown",
    budget.revision,
    budget.frozen ? "yes" : "no",
    actions(budget, who, () => showList(root, who)),
  ]);
  root.replaceChildren(
    make("h2", {}, "Budgets"),
    who.edits
      ? make("p", {}, make("a", { href: "#budgets/new" }, "New budget"))
      : make("p", { class: "hint" }, "The role admin may change budgets."),
    table("Budgets", ["Name", "Id", "State", "People", "Revision", "Frozen", "Actions"], rows),
    unreadable.length > 0
      ? make("p", { class: "notice" }, `Only a newer release can read: ${unreadable.join(", ")}`)
      : "",
  );
}

/** @param {any} budget @param {import("./admin.js").Administrator} who @param {() => Promise<void>} done */
function actions(budget, who, done) {
  const view = make("a", { href: `/budgets/${budget.id}` }, "Page");
  if (!who.edits) return [view];
  const duplicate = make("a", { href: `#budgets/new/${budget.id}` }, "Duplicate");
  if (!["open", "not open yet"].includes(stateOf(budget))) return [view, " ", duplicate];
  return [
    view,
    " ",
    duplicate,
    " ",
    asking("Close now", `Close ${budget.id}? No more answers are taken.`, "Yes, close it", async () => {
      const { body, headers } = await request("GET", `/v1/budgets/${budget.id}`);
      await request("PUT", `/v1/budgets/${budget.id}`, {
        body: { ...editable(body), closes_at: new Date().toISOString() },
        headers: { "If-Match": headers.get("ETag") ?? "" },
      });
      say(`${budget.id} is being closed.`);
      await done();
    }),
  ];
}

/** @param {HTMLElement} root @param {import("./admin.js").Administrator} who @param {string} id */
async function showOne(root, who, id) {
  const { body: definition, headers } = await request("GET", `/v1/budgets/${id}`);
  const previews = LANGUAGES.flatMap((language) => [
    " ",
    make("a", { href: `/budgets/${id}?lang=${language}` }, language),
  ]);
  const form = makeBudgetForm(definition, {
    readOnly: !who.edits,
    save: async (next) => {
      // Without `If-Match` another's change would be overwritten.
      await request("PUT", `/v1/budgets/${id}`, { body: next, headers: { "If-Match": headers.get("ETag") ?? "" } });
      say(`${id} is saved.`);
      root.replaceChildren();
      await showOne(root, who, id);
      root.prepend(make("p", { class: "notice", id: "saved" }, "Saved."));
    },
    conflict: () =>
      make(
        "div",
        { class: "notice", role: "alert" },
        make(
          "p",
          {},
          "Somebody else has changed this budget meanwhile. Nothing of yours is saved; it is still in this form.",
        ),
        button("Load the newer definition instead", () => showOne(root, who, id)),
      ),
  });
  root.replaceChildren(
    make("h2", {}, make("bdi", {}, definition.name)),
    make("p", { class: "hint" }, `${id}, revision ${definition.revision}, ${stateOf(definition)}`),
    make("p", {}, "As people see it:", ...previews),
    form,
  );
}

/** @param {HTMLElement} root @param {string | undefined} original the id of the budget to copy */
async function showNew(root, original) {
  const copied = original
    ? editable(await get(`/v1/budgets/${original}`))
    : { minimum_people: SUGGESTED_MINIMUM_PEOPLE, publish_step: SUGGESTED_PUBLISH_STEP };
  const { opens_at: opensAt, closes_at: closesAt, ...definition } = copied;
  if (closesAt || opensAt)
    root.append(make("p", { class: "hint" }, "Times are not copied: from ", time(opensAt), " to ", time(closesAt)));
  const form = makeBudgetForm(
    { frozen: false, ...definition },
    {
      isNew: true,
      save: async (next, id) => {
        await request("PUT", `/v1/budgets/${encodeURIComponent(id)}`, {
          body: next,
          headers: { "If-None-Match": "*" },
        });
        say(`${id} is created.`);
        location.hash = `#budgets/edit/${id}`;
      },
      conflict: () => failure(new Error("There is a budget with this id already. Choose another id.")),
    },
  );
  root.prepend(make("h2", {}, original ? `Copy of ${original}` : "New budget"));
  root.append(form);
}
