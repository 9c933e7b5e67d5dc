// The administrators' page: signing in, budgets, jobs, and what each role sees.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { until } from "../support/allocator.mjs";
import { DESKTOP, checkAccessibility, checkNoSidewaysScrolling, screenshot, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";

const parts = suite();
const field = (page, label) => page.getByLabel(label, { exact: true });

/** Opens the page with the link that the first start prints. */
async function signIn(page, section = "budgets") {
  await page.goto(`${parts.allocator.url}/admin#token=${await parts.allocator.adminToken()}`);
  await page.locator("#sections").waitFor();
  await page.goto(`${parts.allocator.url}/admin#${section}`);
  await page.locator("#admin section h2").waitFor();
}

const budget = async (id) => (await fetch(`${parts.allocator.url}/v1/budgets/${id}`)).json();

test("the token leaves the address, is kept for the tab, and is forgotten", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(`${parts.allocator.url}/admin`);
    await field(page, "Administrator's token").fill("x".repeat(40));
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("the token is unknown").first().waitFor();
    await checkAccessibility(page, "a wrong token");
    const token = await parts.allocator.adminToken();
    await page.goto(`${parts.allocator.url}/admin#token=${token}`);
    await page.locator("#sections").waitFor();
    assert.equal(page.url(), `${parts.allocator.url}/admin`);
    assert.match(await page.locator("#administrator").innerText(), /admin \(admin\)/);
    await page.reload();
    await page.locator("#sections").waitFor();
    for (const request of page.requests) assert.ok(!request.url().split("#")[0].includes(token), request.url());
    assert.deepEqual(await page.context().cookies(), []);
    await page.getByRole("button", { name: "Sign out" }).click();
    await field(page, "Administrator's token").waitFor();
    assert.ok(!(await page.evaluate(() => JSON.stringify([{ ...sessionStorage }, { ...localStorage }]))).includes(token));
  });
});

test("without a script the page says that it needs one", async () => {
  await withPage(parts.browser, { javaScriptEnabled: false }, async (page) => {
    const response = await page.goto(`${parts.allocator.url}/admin`);
    assert.match(response.headers()["cache-control"], /no-store/);
    assert.match(response.headers()["content-security-policy"], /frame-ancestors 'none'/);
    assert.match(await page.locator("main").innerText(), /needs JavaScript/);
  });
});

test("a budget is created with the keyboard, and faults stand beside their fields", async () => {
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await signIn(page, "budgets/new");
    assert.equal(await field(page, "Minimum of people").inputValue(), "10");
    await field(page, "Id").first().focus();
    await page.keyboard.type("trees");
    await page.keyboard.press("Enter");
    // Neither the name nor the categories are there yet.
    await page.locator(".fault-summary:focus").waitFor();
    assert.match(await page.locator(".fault-summary").innerText(), /Name: must have 1 to 200 characters/);
    assert.equal(await field(page, "Name").first().getAttribute("aria-invalid"), "true");
    await checkAccessibility(page, "faults of a budget");
    await page.getByRole("link", { name: /^Name: must have/ }).first().press("Enter");
    await page.keyboard.type("What trees?");
    for (const [index, name] of ["Oak", "Lime"].entries()) {
      const category = page.locator(".categories > li").nth(index);
      await category.getByLabel("Id", { exact: true }).fill(name.toLowerCase());
      await category.getByLabel("Name", { exact: true }).fill(name);
    }
    await field(page, "Language").fill("en");
    await page.getByText("Compare with real spending").click();
    await field(page, "Whose spending, and when").fill("The town, 2025");
    await page.locator("details[open]").getByLabel("Source", { exact: true }).fill("The town's accounts");
    await page.getByLabel("Oak, percent").fill("33,5");
    await page.getByRole("button", { name: "Create" }).click();
    await page.getByRole("link", { name: /Shares: must add up to exactly 100, not 33\.50/ }).waitFor();
    await page.getByLabel("Lime, percent").fill("66.5");
    await field(page, "Another language").fill("de");
    await page.getByRole("button", { name: "Add a translation" }).click();
    await page.locator(".translations details[open]").getByLabel("Oak", { exact: true }).fill("Eiche");
    await page.getByRole("button", { name: "Create" }).click();
    await page.locator("h2", { hasText: "What trees?" }).waitFor();
    const { name, minimum_people: minimum, publish_step: step, reference, translations } = await budget("trees");
    assert.deepEqual([name, minimum, step, reference.percent], ["What trees?", 10, 10, { lime: 66.5, oak: 33.5 }]);
    assert.deepEqual(translations, { de: { categories: { oak: { name: "Eiche" } } } });
    await checkAccessibility(page, "a budget");
    await checkNoSidewaysScrolling(page, "a budget");
    await screenshot(page, "admin-budget", { fullPage: true });
  });
});

test("another's change is not overwritten, and what was typed stays", async () => {
  await parts.allocator.putBudget("contended");
  await withPage(parts.browser, {}, async (page) => {
    await signIn(page, "budgets/edit/contended");
    await field(page, "Name").first().fill("Mine");
    await parts.allocator.putBudget("contended", { name: "Theirs" });
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Somebody else has changed this budget").waitFor();
    assert.equal((await budget("contended")).name, "Theirs");
    assert.equal(await field(page, "Name").first().inputValue(), "Mine");
    await checkAccessibility(page, "a conflict");
    await page.getByRole("button", { name: "Load the newer definition instead" }).click();
    await until("the newer definition", async () => (await field(page, "Name").first().inputValue()) === "Theirs");
    await field(page, "Name").first().fill("Ours");
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator("#saved").waitFor();
    assert.equal((await budget("contended")).name, "Ours");
  });
});

test("frozen fields are disabled with the reason, and a save keeps what the form does not show", async () => {
  await parts.allocator.putBudget("frozen", { opens_at: "2026-01-01T00:00:00.5Z" });
  await parts.allocator.submit("frozen", "p-1", { parks: 100 });
  const before = await budget("frozen");
  await withPage(parts.browser, {}, async (page) => {
    await signIn(page, "budgets/edit/frozen");
    assert.ok(await field(page, "Identity").isDisabled());
    assert.ok(await field(page, "Publish step").isDisabled());
    assert.ok(await page.locator(".categories").getByLabel("Id", { exact: true }).first().isDisabled());
    assert.equal(await page.getByText("Cannot change: the budget has submissions.").count() > 2, true);
    assert.equal(await page.getByRole("button", { name: "Add a category" }).count(), 0);
    await field(page, "Description").first().fill("One.\nTwo.");
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator("#saved").waitFor();
    const { revision, ...after } = await budget("frozen");
    assert.deepEqual({ ...after, revision: before.revision }, { ...before, description: "One.\nTwo." });
    assert.equal(revision, before.revision + 1);
  });
});

test("a budget is closed after a question, and duplicated", async () => {
  await parts.allocator.putBudget("short");
  await withPage(parts.browser, {}, async (page) => {
    await signIn(page);
    const row = page.locator("tr", { has: page.getByRole("cell", { name: "short", exact: true }) });
    await row.getByRole("button", { name: "Close now" }).click();
    await page.keyboard.press("Escape");
    assert.equal((await budget("short")).closes_at, undefined);
    await row.getByRole("button", { name: "Close now" }).click();
    await row.getByRole("button", { name: "Yes, close it" }).click();
    await until("closing", async () => (await budget("short")).closes_at !== undefined);
    await row.getByRole("link", { name: "Duplicate" }).click();
    await page.locator("h2", { hasText: "Copy of short" }).waitFor();
    await field(page, "Id").first().fill("short-2");
    await page.getByRole("button", { name: "Create" }).click();
    await page.getByText("short-2, revision 1").waitFor();
    assert.equal((await budget("short-2")).closes_at, undefined);
  });
});

test("a job is asked for and followed to its verdict", async () => {
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await signIn(page, "jobs");
    await page.getByRole("button", { name: "Ask for it" }).click();
    await page.locator("td", { hasText: "succeeded" }).first().waitFor({ timeout: 30_000 });
    await page.locator("strong", { hasText: "clean" }).first().waitFor();
    await field(page, "Kind").selectOption("export");
    await page.getByText("Two published files show who changed").waitFor();
    await field(page, "Budget").fill("no-such-budget");
    await checkAccessibility(page, "jobs");
    await checkNoSidewaysScrolling(page, "jobs");
    await screenshot(page, "admin-jobs", { fullPage: true });
  });
});

test("the other sections are read, and are accessible", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await withPage(parts.browser, { colorScheme }, async (page) => {
      for (const [section, text] of [["dead-letters", "No dead letters."], ["generations", "current"], ["limits", "500 requests of each administrator"], ["budgets", "taxes"]]) {
        await signIn(page, section);
        await page.locator("#admin section").getByText(text).first().waitFor();
        assert.equal(await page.locator("#sections [aria-current=page]").getAttribute("data-section"), section);
        await checkAccessibility(page, section);
        await checkNoSidewaysScrolling(page, section);
      }
      await page.getByRole("link", { name: "Limits" }).click();
      await page.locator("h2", { hasText: "Limits" }).waitFor();
      await page.goBack();
      await page.locator("h2", { hasText: "Budgets" }).waitFor();
    });
  }
});

test("a viewer reads, and is offered nothing else", async () => {
  const token = "v".repeat(40);
  const line = `vera viewer sha256:${createHash("sha256").update(token).digest("hex")}\n`;
  await appendFile(join(parts.allocator.dir, "data", "admin.tokens"), line);
  await until("the tokens file is read again", async () => {
    const response = await fetch(`${parts.allocator.url}/v1/admin/limits`, { headers: { Authorization: `Bearer ${token}` } });
    return response.ok;
  }, 30_000);
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(`${parts.allocator.url}/admin#token=${token}`);
    await page.getByText("The role admin may change budgets.").waitFor();
    assert.equal(await page.getByRole("button", { name: "Close now" }).count(), 0);
    await page.goto(`${parts.allocator.url}/admin#jobs`);
    await page.getByText("The role operator may ask for jobs.").waitFor();
    await page.goto(`${parts.allocator.url}/admin#budgets/edit/taxes`);
    await page.locator("form fieldset[disabled]").waitFor();
    assert.equal(await page.getByRole("button", { name: "Save" }).count(), 0);
  });
});
