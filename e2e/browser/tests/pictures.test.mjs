// The pictures of the docs show the page as it is: `UPDATE_SCREENSHOTS=1` takes them anew, without it they are compared.
import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/allocator.mjs";
import { withPage } from "../support/browser.mjs";
import { PICTURE_STYLES, comparePicture, differingTiles, readStored } from "../support/picture.mjs";
import { suite } from "../support/suite.mjs";
import { ROUGH, answer, fillFields, waitForScript, waitUntilCounted } from "../support/task.mjs";
import { addStyles } from "../support/variants.mjs";

const parts = suite();
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 1.5 };
const DESKTOP = { viewport: { width: 1100, height: 860 }, deviceScaleFactor: 1 };
const TIMES = {
  en: { clock: "9:00:03 PM", day: "Jan 31, 2027, 11:00 PM UTC" },
  ar: { clock: "9:00:03 م", day: "31 يناير 2027، 11:00 م UTC" },
};
const PEOPLE = 240;
/** Until then the people of the closed budget are counted. */
const CLOSES_AFTER_MS = 20_000;

/** Makes the people of all pictures, before the first one. */
async function populate() {
  const { id, revision, frozen, ...taxes } = await (await fetch(`${parts.allocator.url}/v1/budgets/taxes`)).json();
  const closesAt = new Date(Date.now() + CLOSES_AFTER_MS).toISOString();
  await parts.allocator.putBudget("taxes-2026", { ...taxes, closes_at: closesAt });
  for (const budget of ["taxes", "taxes-2026"]) await submitPeople(budget, Object.entries(taxes.reference.percent));
  await until("the budget is closed and counted", async () => (await parts.allocator.aggregate("taxes-2026")).final === true, 90_000);
}

/** @type {Promise<void> | undefined} */
let populated;

/** Submits for the same people in each run, who want something like the real spending. */
async function submitPeople(budget, reference) {
  let state = 20_260_101;
  const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
  const people = Array.from({ length: PEOPLE }, (_, person) => {
    const weights = reference.map(([, percent]) => random() ** 2 * (5 + percent));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const shares = weights.map((weight) => Math.floor((weight / sum) * 100));
    shares[0] += 100 - shares.reduce((total, share) => total + share, 0);
    return { person: `p-${person}`, allocation: Object.fromEntries(reference.map(([category], index) => [category, shares[index]])) };
  });
  const response = await fetch(`${parts.allocator.url}/v1/budgets/${budget}/submissions/batch`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(people),
  });
  const { results } = await response.json();
  assert.ok(results.every(({ status }) => status === 202), JSON.stringify(results.slice(0, 2)));
  await until("all people are counted", async () => (await parts.allocator.aggregate(budget)).people >= PEOPLE);
}

/** What is done before each picture. */
const STATES = {
  open: async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await waitForScript(page);
    await fillFields(page, ROUGH.slice(0, 4));
    await page.evaluate(() => scrollTo(0, 0));
  },
  sent: async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await answer(page);
    await waitUntilCounted(page);
    await page.locator("td.you .number").first().waitFor();
    await page.evaluate(() => document.querySelector("#receipt").scrollIntoView({ block: "start" }));
  },
  closed: async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes-2026`);
    await page.locator("#final").waitFor();
    await page.locator("rect.track").first().waitFor();
    await page.evaluate(() => scrollTo(0, 0));
  },
};

for (const [name, state, options, locale, colorScheme] of [
  ["phone-open", "open", PHONE, "en", "light"],
  ["phone-open-ar-dark", "open", PHONE, "ar", "dark"],
  ["phone-sent", "sent", PHONE, "en", "light"],
  ["phone-sent-ar-dark", "sent", PHONE, "ar", "dark"],
  ["desktop-open-dark", "open", DESKTOP, "en", "dark"],
  ["desktop-sent", "sent", DESKTOP, "en", "light"],
  ["desktop-closed", "closed", DESKTOP, "en", "light"],
  ["desktop-closed-ar-dark", "closed", DESKTOP, "ar", "dark"],
]) {
  test(`the picture ${name} shows the page`, async () => {
    await withPage(parts.browser, { ...options, locale, colorScheme, timezoneId: "UTC", reducedMotion: "reduce" }, async (page) => {
      await (populated ??= populate());
      await addStyles(page, PICTURE_STYLES);
      await STATES[state](page);
      await comparePicture(page, name, TIMES[locale]);
    });
  });
}

test("the comparison tells states, themes and languages apart", async () => {
  const names = ["phone-open", "phone-open-ar-dark", "phone-sent", "phone-sent-ar-dark"];
  const pictures = await Promise.all(names.map(readStored));
  for (const [index, picture] of pictures.entries()) {
    assert.equal(await differingTiles(parts.browser, picture, picture), 0);
    for (const other of pictures.slice(index + 1)) assert.ok((await differingTiles(parts.browser, picture, other)) > 0.2, names[index]);
  }
  const desktop = await readStored("desktop-open-dark");
  assert.equal(await differingTiles(parts.browser, pictures[0], desktop), 1, "another size");
});
