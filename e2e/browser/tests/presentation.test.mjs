// What a definition says about its presentation, on the page: texts, languages, real spending, order, time zone.
import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/allocator.mjs";
import { DESKTOP, checkAccessibility, checkNoSidewaysScrolling, screenshot, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { answer, fields, waitForScript, waitUntilCounted } from "../support/task.mjs";

const parts = suite();
const PRESENTED = {
  description: "Once a year.\nEveryone may say it.", language: "en", contact: "parks@example.org", time_zone: "Asia/Kathmandu",
  closes_at: "2099-07-01T22:30:00Z",
  reference: { name: "The town, 2025", source: "The town's accounts", percent: { parks: 12.5, schools: 60, roads: 27.5 } },
  translations: {
    ar: { name: "ماذا لمدينتنا؟", reference: { name: "المدينة، 2025" }, categories: { parks: { name: "حدائق" } } },
  },
};

test("the default budget is shown in six languages, with real spending and its source", async () => {
  await parts.allocator.submit("taxes", "someone", { health: 60, education: 40 });
  for (const language of ["en", "de", "fr", "es", "pl", "ar"]) {
    await withPage(parts.browser, { locale: language, javaScriptEnabled: false }, async (page) => {
      await page.goto(`${parts.allocator.url}/budgets/taxes/results`);
      assert.equal(await page.locator("main bdi[lang]").count(), 0, `${language}: every text is translated`);
      const shares = await page.locator("td.real").allInnerTexts();
      const sum = shares.reduce((total, text) => total + Math.round(parseFloat(text.replace(",", ".")) * 100), 0);
      assert.equal(sum, 10_000, shares.join(" "));
      assert.match(await page.locator(".reference").innerText(), /2024.*gov_10a_exp/s);
      await checkNoSidewaysScrolling(page, language);
    });
  }
});

test("a description, a contact and times in the budget's zone are in the server's page", async () => {
  const url = await parts.allocator.putBudget("presented", PRESENTED);
  await withPage(parts.browser, { javaScriptEnabled: false }, async (page) => {
    await page.goto(url);
    assert.equal(await page.locator(".about").innerText(), PRESENTED.description);
    assert.match(await page.locator(".contact").innerText(), /parks@example\.org/);
    assert.match(await page.locator("#state").innerText(), /2 July 2099, 04:15 UTC\+05:45/);
    assert.deepEqual(await page.locator("#allocation label").allInnerTexts(), ["Parks", "Schools", "Roads"]);
  });
});

test("what is not translated is shown in the definition's language, and marked", async () => {
  const url = await parts.allocator.putBudget("presented", PRESENTED);
  await withPage(parts.browser, { locale: "ar", colorScheme: "dark" }, async (page) => {
    await page.goto(url);
    await waitForScript(page);
    assert.equal(await page.locator("h1 bdi").innerText(), PRESENTED.translations.ar.name);
    assert.equal(await page.locator("h1 bdi[lang]").count(), 0);
    const names = page.locator("#allocation label bdi");
    assert.deepEqual(await names.evaluateAll((elements) => elements.map(({ lang }) => lang)), ["", "en", "en"]);
    assert.equal(await page.locator(".about bdi").getAttribute("lang"), "en");
    await fields(page).nth(1).fill("100");
    await page.locator("#send").click();
    await waitUntilCounted(page);
    const rows = page.locator("#averages tbody th bdi");
    assert.deepEqual(await rows.evaluateAll((elements) => elements.map(({ lang }) => lang)), ["", "en", "en"]);
    assert.match(await page.locator(".reference").innerText(), /المدينة، 2025.*The town's accounts/s);
    await page.locator("details.distribution > summary").click();
    await page.locator(".charts figcaption bdi[lang=en]").first().waitFor();
    await checkAccessibility(page, "untranslated");
    await checkNoSidewaysScrolling(page, "untranslated");
  });
});

test("real spending is a column and a tick on each bar, also after sending", async () => {
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await answer(page);
    await waitUntilCounted(page);
    assert.equal(await page.locator("#averages rect.real").count(), 10);
    assert.equal(await page.locator("#averages tr[data-category=health] td.real").innerText(), "16.13 %".replace(" ", "\u00a0"));
    // Placed on the scale of the averages.
    const { tick, end } = await page.locator("tr[data-category=social-protection] td.bar").evaluate((cell) => ({
      tick: cell.querySelector("rect.real").getBoundingClientRect().left - cell.querySelector("svg").getBoundingClientRect().left,
      end: cell.querySelector("svg").getBoundingClientRect().width,
    }));
    assert.ok(tick > end * 0.4 && tick < end, `${tick} of ${end}`);
    await checkAccessibility(page, "real spending");
    await screenshot(page, "real-spending", { fullPage: true });
  });
});

test("the form can start from real spending", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await waitForScript(page);
    await page.locator("details.more > summary").click();
    await page.locator(".start-from button", { hasText: "Real spending" }).click();
    assert.equal(await page.locator("#c-health").inputValue(), "16.13");
    assert.equal(await page.locator("#allocation").getAttribute("data-sum"), "ready");
  });
});

test("a shuffled order is told, stays within a visit, and leaves the server's order to those without a script", async () => {
  const ids = Array.from({ length: 12 }, (_, index) => `c${index}`);
  const url = await parts.allocator.putBudget("shuffled", { order: "shuffled", categories: ids.map((id) => ({ id, name: id.toUpperCase() })) });
  const order = (page) => page.locator("#allocation li.row").evaluateAll((rows) => rows.map(({ dataset }) => dataset.category));
  const seen = new Set();
  for (let visit = 0; visit < 4; visit += 1) {
    await withPage(parts.browser, {}, async (page) => {
      await page.goto(url);
      await waitForScript(page);
      const first = await order(page);
      assert.deepEqual([...first].sort(), [...ids].sort());
      assert.match(await page.locator("legend .hint").innerText(), /order of the categories is random/);
      await page.reload();
      await waitForScript(page);
      assert.deepEqual(await order(page), first);
      seen.add(first.join(" "));
      // Enter follows the order in sight.
      await page.locator(`#c-${first[0]}`).fill("100");
      await page.keyboard.press("Enter");
      assert.equal(await page.evaluate(() => document.activeElement?.id), `c-${first[1]}`);
      await page.locator("#send").click();
      await waitUntilCounted(page);
      const rows = page.locator("#averages tbody tr");
      await until("the results are shown", async () => (await rows.count()) === ids.length);
      assert.deepEqual(await rows.evaluateAll((all) => all.map(({ dataset }) => dataset.category)), ids);
    });
  }
  assert.ok(seen.size > 1, "four visits had the same of 479,001,600 orders");
  await withPage(parts.browser, { javaScriptEnabled: false }, async (page) => {
    await page.goto(url);
    assert.deepEqual(await order(page), ids);
    assert.doesNotMatch(await page.locator("main").innerText(), /random/);
  });
});
