// Withheld means withheld: no digit of the results in any byte, while taking part works all the same.
import assert from "node:assert/strict";
import { test } from "node:test";
import { screenshot, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { waitForScript, waitUntilCounted } from "../support/task.mjs";

const parts = suite();

for (const [reason, rules] of [
  ["after_close", { results: "after_close", closes_at: new Date(Date.now() + 86_400_000).toISOString() }],
  ["minimum_people", { minimum_people: 1000 }],
]) {
  test(`results withheld by ${reason} show no number, and the answer counts`, async () => {
    const id = reason.replace("_", "-");
    const url = await parts.allocator.putBudget(id, rules);
    // A number that appears nowhere else.
    for (let person = 0; person < 13; person += 1) await parts.allocator.submit(id, `p-${person}`, { parks: 71.93, schools: 28.07 });
    await withPage(parts.browser, {}, async (page) => {
      const bodies = [];
      page.on("response", async (response) => {
        // The scripts name the fields, and are the same for every budget.
        if (!response.url().includes("/assets/")) bodies.push([response.url(), await response.text().catch(() => "")]);
      });
      await page.goto(url);
      await waitForScript(page);
      await page.locator("#results > summary").click();
      assert.ok(await page.locator(".withheld").isVisible());
      await screenshot(page, `phone-withheld-${id}`);
      await page.locator("#c-roads").fill("100");
      await page.locator("#send").click();
      await waitUntilCounted(page);
      assert.match(await page.locator("#receipt .own").innerText(), /100/);
      assert.equal(await page.locator("#averages:visible").count(), 0);
      assert.equal(await page.locator(".withheld").count(), 1);

      for (const suffix of ["", "/results", "/mine"]) {
        const body = await (await page.request.get(url + suffix)).text();
        bodies.push([suffix, body]);
      }
      bodies.push(["document", await page.content()]);
      for (const [from, body] of bodies) {
        assert.doesNotMatch(body, /71[.,]9|7193|28[.,]07|2807|average_percent|total_basis_points|"people":\s*\d/, from);
        assert.doesNotMatch(body, /\b1[34] people|People: 1[34]/, from);
      }
      assert.doesNotMatch(await page.locator("#results").innerText(), /People|\d+(\.\d+)?\s*%/);
    });
  });
}

test("results that move in steps say so, show nothing before the first step, and the answer counts", async () => {
  const url = await parts.allocator.putBudget("steps", { publish_step: 1000 });
  await parts.allocator.submit("steps", "p-1", { parks: 71.93, schools: 28.07 });
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(url);
    await waitForScript(page);
    await page.locator("#results > summary").click();
    await page.locator("#c-roads").fill("100");
    await page.locator("#send").click();
    await waitUntilCounted(page);
    assert.match(await page.locator("#steps:visible").innerText(), /at least 1,000 people/);
    // That no number is shown does not mean that nobody has taken part.
    assert.equal(await page.locator("#nobody, #averages:visible").count(), 0);
    for (const suffix of ["", "/results"]) {
      const body = await (await page.request.get(url + suffix)).text();
      assert.doesNotMatch(body, /71[.,]9|7193|28[.,]07|2807|"people":\s*[1-9]/);
    }
  });
});
