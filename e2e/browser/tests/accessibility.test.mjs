// axe finds nothing in any state, in English and Arabic, light and dark.
import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/allocator.mjs";
import { checkAccessibility, checkNoSidewaysScrolling, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { ROUGH, fields, fillFields, step, waitForScript, waitUntilCounted } from "../support/task.mjs";

const parts = suite();
const VARIANTS = [["en", "light"], ["ar", "dark"], ["en", "dark"], ["ar", "light"]];

/** Unfolds everything. */
const openAll = (page) => page.evaluate(() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

for (const [language, colorScheme] of VARIANTS) {
  test(`axe: the task's states, ${language}, ${colorScheme}`, async () => {
    await withPage(parts.browser, { locale: language, colorScheme }, async (page) => {
      const check = async (state) => {
        await checkAccessibility(page, state);
        await checkNoSidewaysScrolling(page, state);
      };
      await page.goto(`${parts.allocator.url}/budgets/taxes`);
      await waitForScript(page);
      await check("open");
      await page.locator("#send").click();
      await check("faults");
      await fillFields(page, ROUGH);
      await page.locator("details.more > summary").click();
      await page.locator("details.more .more-tools button").nth(1).click();
      await page.locator("button[value=scale]").click();
      await check("tools");
      // A state that stays while it is checked.
      await page.route("**/submit", (route) => route.fulfill({ status: 503, headers: { "Retry-After": "600" }, body: "" }));
      await page.locator("#send").click();
      await until("waits", async () => (await step(page)) === "waiting");
      await check("waiting");
      await page.reload();
      await until("asks", async () => (await step(page)) === "asks");
      await check("asks");
      await page.unroute("**/submit");
      await page.locator("#receipt .primary").click();
      await waitUntilCounted(page);
      await page.locator("details.distribution > summary").click();
      await page.locator(".charts figure").first().waitFor();
      await openAll(page);
      await check("counted");
      await page.locator("#receipt .withdraw").click();
      await check("withdraw question");
      await page.locator(".question .danger").click();
      await waitUntilCounted(page);
      await check("withdrawn");
    });
  });
}

for (const [language, colorScheme] of VARIANTS.slice(0, 2)) {
  test(`axe: the other pages, ${language}, ${colorScheme}`, async () => {
    const soon = new Date(Date.now() + 86_400_000).toISOString();
    const past = new Date(Date.now() - 60_000).toISOString();
    await parts.allocator.putBudget("not-yet", { opens_at: soon });
    await parts.allocator.putBudget("nobody");
    await parts.allocator.putBudget("over", { closes_at: past });
    await parts.allocator.putBudget("hidden", { closes_at: soon, results: "after_close" });
    await withPage(parts.browser, { locale: language, colorScheme }, async (page) => {
      for (const path of ["/", "/budgets", "/budgets/not-yet", "/budgets/nobody", "/budgets/nobody/results", "/budgets/over", "/budgets/hidden",
        "/budgets/taxes/results", "/budgets/taxes/mine", "/budgets/missing", "/budgets/taxes?c.health=abc&c.defence=120&do=check",
        "/budgets/taxes/confirm?c.health=40&c.education=60", "/problems", "/problems/unavailable"]) {
        await page.goto(`${parts.allocator.url}${path}`, { waitUntil: "networkidle" });
        await openAll(page);
        await checkAccessibility(page, path);
        await checkNoSidewaysScrolling(page, path);
      }
    });
  });
}

test("axe: without a script", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.route("**/*.js", (route) => route.abort());
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await checkAccessibility(page, "form");
    await fields(page).first().fill("x");
    await page.locator("#send").click();
    await checkAccessibility(page, "faults");
    assert.match(await page.locator("#fault-summary").innerText(), /number/);
  });
});
