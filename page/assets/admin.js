// @ts-check
/**
 * Entry point of the administrators' page: asks for the token, shows the sections that its role may see.
 *
 * The address names the section after `#`, so that Back works; a token there is taken out at once.
 */
import { keepToken, request, takeToken } from "./admin-api.js";
import { showBudgets } from "./admin-budgets.js";
import { showGenerations } from "./admin-generations.js";
import { showJobs } from "./admin-jobs.js";
import { showDeadLetters } from "./admin-letters.js";
import { showLimits } from "./admin-limits.js";
import { failure, say } from "./admin-view.js";
import { button, find, findAll, make } from "./dom.js";

/** @typedef {{name: string, role: string, operates: boolean, edits: boolean}} Administrator */

/** @typedef {(root: HTMLElement, who: Administrator, path: string[]) => Promise<void>} Show */

/** @type {Record<string, {title: string, show: Show}>} */
const SECTIONS = {
  budgets: { title: "Budgets", show: showBudgets },
  jobs: { title: "Jobs", show: showJobs },
  "dead-letters": { title: "Dead letters", show: showDeadLetters },
  generations: { title: "Generations", show: showGenerations },
  limits: { title: "Limits", show: showLimits },
};

const root = find("#admin");
const nav = find("#sections");

/** @type {Administrator | null} */
let who = null;

/** Shows the section of the address. */
async function route() {
  if (!who) return;
  const [name, ...path] = location.hash.slice(1).split("/");
  const known = Object.hasOwn(SECTIONS, name) ? name : "budgets";
  const { title, show } = SECTIONS[known];
  for (const link of findAll("a", nav)) {
    if (link.dataset.section === known) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${title} – Administration`;
  const section = make("section");
  root.replaceChildren(section);
  try {
    await show(section, who, path);
  } catch (error) {
    section.append(failure(error), button("Try again", route));
  }
}

/** Asks for the token. @param {string} [refusal] why an earlier one was refused */
function askForToken(refusal) {
  nav.hidden = true;
  find("#administrator").replaceChildren();
  const input = make("input", {
    type: "password",
    id: "token",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "token-hint",
    "aria-invalid": refusal ? "true" : null,
  });
  const form = make(
    "form",
    {
      class: "panel",
      submit: (/** @type {Event} */ event) => {
        event.preventDefault();
        keepToken(input.value.trim());
        void start();
      },
    },
    make("label", { for: "token" }, "Administrator's token"),
    make(
      "p",
      { class: "hint", id: "token-hint" },
      refusal || "It is kept for this tab alone, until you close it or sign out.",
    ),
    input,
    " ",
    make("button", { class: "primary" }, "Sign in"),
  );
  root.replaceChildren(form);
  if (refusal) say(refusal);
  input.focus();
}

function signOut() {
  keepToken(null);
  who = null;
  askForToken();
}

/** Finds out who the token is, and shows what that administrator may see. */
async function start() {
  const token = takeToken();
  root.replaceChildren(make("p", {}, "Loading …"));
  try {
    const { body } = await request("GET", "/v1/admin/whoami", { token });
    who = { ...body, operates: body.role !== "viewer", edits: body.role === "admin" };
  } catch (error) {
    const { status, message } = /** @type {import("./admin-api.js").ApiError} */ (error);
    if (status === 401) {
      keepToken(null);
      askForToken(token ? message : "");
    } else root.replaceChildren(failure(error), button("Try again", start));
    return;
  }
  find("#administrator").replaceChildren(
    `${who?.name} (${who?.role}) `,
    token ? button("Sign out", signOut, { class: "quiet" }) : "",
  );
  nav.replaceChildren(
    make(
      "ul",
      {},
      ...Object.entries(SECTIONS).map(([name, { title }]) =>
        make("li", {}, make("a", { href: `#${name}`, "data-section": name }, title)),
      ),
    ),
  );
  nav.hidden = false;
  await route();
}

addEventListener("hashchange", () => {
  // A link with a token may be opened in this tab.
  if (location.hash.startsWith("#token=")) void start();
  // The skip link leads to the content that is there.
  else if (location.hash !== "#admin") void route();
});
await start();
