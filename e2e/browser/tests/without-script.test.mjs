// The same task by HTML alone.
import assert from "node:assert/strict";
import { test } from "node:test";
import { screenshot, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { ROUGH, fields, fillFields, sumOfFields } from "../support/task.mjs";

const parts = suite();
const NO_SCRIPT = { javaScriptEnabled: false };
const people = async () => (await parts.allocator.aggregate("taxes")).people;

test("tools, confirmation, receipt, change and withdrawal work without a script", async () => {
  const before = await people();
  await withPage(parts.browser, NO_SCRIPT, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await screenshot(page, "phone-without-script", { fullPage: true });
    await fillFields(page, ROUGH);
    await page.locator("button[value=scale]").click();
    assert.equal(await sumOfFields(page), 10_000);
    await page.locator("#send").click();
    await screenshot(page, "phone-confirm", { fullPage: true });
    await page.locator("#confirm button").click();
    await page.waitForURL(/\/mine/);
    await checkUntil(page, /Counted/);
    await screenshot(page, "phone-mine", { fullPage: true });
    assert.equal(await people(), before + 1);

    await page.getByRole("link", { name: "Change", exact: true }).click();
    assert.equal(await sumOfFields(page), 10_000);
    await page.locator("#send").click();
    await page.locator("#confirm button").click();
    await checkUntil(page, /Counted/);
    assert.equal(await people(), before + 1);

    await page.locator("details.withdraw > summary").click();
    await page.locator("details.withdraw button").click();
    await checkUntil(page, /no longer counted|No answer of yours/);
    assert.equal(await people(), before);
  });
});

/** Follows "Check again" until the page says it. */
async function checkUntil(page, sentence) {
  for (let tries = 0; tries < 10; tries += 1) {
    if (sentence.test(await page.locator("main").innerText())) return;
    const again = page.getByRole("link", { name: "Check again" });
    if (await again.count()) await again.click();
    else await page.reload();
  }
  assert.match(await page.locator("main").innerText(), sentence);
}

test("sending the confirmation twice is one person", async () => {
  const before = await people();
  await withPage(parts.browser, NO_SCRIPT, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await fields(page).nth(0).fill("100");
    await page.locator("#send").click();
    const confirm = page.url();
    for (let sent = 0; sent < 2; sent += 1) {
      await page.goto(confirm);
      await page.locator("#confirm button").click();
      await checkUntil(page, /Counted/);
    }
    assert.equal(await people(), before + 1);
  });
});

test("each fault comes back with its sentence and the typed values", async () => {
  const cases = [
    [["abc"], /write a number/], [["101"], /from 0 to 100/], [["33.333"], /two decimals/],
    [["40", "35.5"], /still have 24\.5\s*%/], [["70", "50"], /120\s*%/],
  ];
  await withPage(parts.browser, NO_SCRIPT, async (page) => {
    for (const [texts, sentence] of cases) {
      await page.goto(`${parts.allocator.url}/budgets/taxes`);
      await fillFields(page, texts);
      await page.locator("#send").click();
      assert.match(await page.locator("#fault-summary").innerText(), sentence);
      assert.match(await page.title(), /^Error:/);
      assert.equal(await fields(page).nth(0).inputValue(), texts[0]);
    }
  });
});

test("Enter in a field checks and never sends", async () => {
  const before = await people();
  await withPage(parts.browser, NO_SCRIPT, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await fields(page).nth(0).fill("100");
    await fields(page).nth(0).press("Enter");
    await page.waitForURL(/do=check/);
    assert.equal(await fields(page).nth(0).inputValue(), "100");
  });
  assert.equal(await people(), before);
});

test("Share gives what is left to the empty fields", async () => {
  await withPage(parts.browser, NO_SCRIPT, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await fields(page).nth(0).fill("50");
    await page.locator("button[value=share]").click();
    assert.equal(await sumOfFields(page), 10_000);
    assert.equal(await fields(page).nth(0).inputValue(), "50");
  });
});
