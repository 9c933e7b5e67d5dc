// Sending survives tunnels, reloads, refusals and a killed server, and counts once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/allocator.mjs";
import { screenshot, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { answer, fields, step, sumOfFields, waitForScript, waitUntilCounted } from "../support/task.mjs";

const parts = suite();
const people = async () => (await parts.allocator.aggregate("taxes")).people;
const taxes = () => `${parts.allocator.url}/budgets/taxes`;
const SUBMIT = "**/budgets/taxes/submit";

const problem = (status, slug, more = {}) => ({
  status, contentType: "application/problem+json", headers: more.headers ?? {},
  body: JSON.stringify({ type: `/problems/${slug}`, title: slug, status, detail: more.detail ?? "words of the server", errors: more.errors }),
});

test("offline, then online: sent and counted once", async () => {
  const before = await people();
  // The script of the results may not be there yet; it is fetched again later.
  const allowConsole = [/page: results failed/];
  await withPage(parts.browser, { allowConsole }, async (page) => {
    await page.goto(taxes());
    await waitForScript(page);
    await fields(page).nth(0).fill("50");
    await page.context().setOffline(true);
    await answer(page);
    await until("it says that it waits", async () => (await step(page)) === "waiting");
    assert.match(await page.locator("#receipt").innerText(), /offline/);
    assert.match(await page.locator("#receipt").innerText(), /Not sent yet/);
    await screenshot(page, "phone-offline");
    await page.context().setOffline(false);
    await waitUntilCounted(page);
  });
  assert.equal(await people(), before + 1);
});

test("offline, a reload, then online: asks first, then counts once", async () => {
  const before = await people();
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    await waitForScript(page);
    await page.route(SUBMIT, (route) => route.abort());
    await answer(page);
    await until("it says that it waits", async () => (await step(page)) === "waiting");
    await page.unroute(SUBMIT);
    await page.reload();
    await until("it asks", async () => (await step(page)) === "asks");
    assert.equal(await people(), before, "nothing is sent without asking");
    await page.getByRole("button", { name: "Send it now" }).click();
    await waitUntilCounted(page);
  });
  assert.equal(await people(), before + 1);
});

test("an answer that is not to be sent comes back into the form", async () => {
  const before = await people();
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    await page.route(SUBMIT, (route) => route.abort());
    await answer(page);
    await page.reload();
    await until("it asks", async () => (await step(page)) === "asks");
    await page.getByRole("button", { name: "Do not send it" }).click();
    assert.equal(await sumOfFields(page), 10_000);
  });
  assert.equal(await people(), before);
});

test("a server killed between request and answer counts the person once", async () => {
  const before = await people();
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    let tries = 0;
    let isKilled = false;
    await page.route(SUBMIT, async (route) => {
      tries += 1;
      if (tries > 1) return route.continue();
      // The server has stored it; the answer never arrives.
      await route.fetch();
      await parts.allocator.kill();
      isKilled = true;
      return route.abort();
    });
    await answer(page);
    await until("the answer was lost", () => isKilled);
    await parts.allocator.launch();
    await waitUntilCounted(page);
  });
  assert.equal(await people(), before + 1);
});

test("429 and 503 wait for Retry-After and then send with the same key", async () => {
  const before = await people();
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    const answers = [problem(429, "rate-limited", { headers: { "Retry-After": "1" } }), problem(503, "unavailable", { headers: { "Retry-After": "1" } })];
    const keys = [];
    const times = [];
    await page.route(SUBMIT, (route) => {
      keys.push(new URLSearchParams(route.request().postData()).get("submission_id"));
      times.push(Date.now());
      const next = answers.shift();
      return next ? route.fulfill(next) : route.continue();
    });
    await answer(page);
    await waitUntilCounted(page);
    assert.equal(keys.length, 3);
    assert.equal(new Set(keys).size, 1);
    assert.ok(times[1] - times[0] >= 1_000 && times[2] - times[1] >= 1_000);
  });
  assert.equal(await people(), before + 1);
});

test("a final refusal is said plainly, and the values stay", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    await page.route(SUBMIT, (route) => route.fulfill(problem(409, "budget-closed")));
    await answer(page);
    await until("it is refused", async () => (await step(page)) === "refused");
    assert.match(await page.locator("#receipt").innerText(), /Not counted/);
  });
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    await page.route(SUBMIT, (route) => route.fulfill(problem(422, "invalid-allocation", { errors: [{ pointer: "/allocation/health", detail: "no" }] })));
    await answer(page);
    await page.locator("#fault-summary a").waitFor();
    assert.match(await page.locator("#fault-summary").innerText(), /Health/);
    assert.equal(await page.locator("#c-health").getAttribute("aria-invalid"), "true");
    assert.equal(await sumOfFields(page), 10_000);
  });
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    await page.route(SUBMIT, (route) => route.fulfill(problem(400, "malformed", { detail: "strange <b>words</b>" })));
    await answer(page);
    await until("it is refused", async () => (await step(page)) === "refused");
    assert.equal(await page.locator(".server-words[lang=en]").innerText(), "strange <b>words</b>");
    assert.equal(await sumOfFields(page), 10_000);
    assert.ok(await page.locator("#send").isVisible());
  });
});

test("blocked cookies are named as the reason", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    // As a browser does that blocks cookies: the server's cookie never arrives.
    await page.route("**/budgets/taxes/person", (route) => route.fulfill({ status: 204 }));
    await answer(page);
    await until("it is refused", async () => (await step(page)) === "refused");
    assert.match(await page.locator("#receipt").innerText(), /cookies/);
    assert.equal(await sumOfFields(page), 10_000);
  });
});

test("not yet visible is waited for, and counting may come later", async () => {
  await withPage(parts.browser, {}, async (page) => {
    let refused = 0;
    await page.goto(taxes());
    await page.route("**/v1/budgets/taxes/aggregate*", (route) => {
      if (!route.request().headers()["consistency-token"] || refused >= 2) return route.continue();
      refused += 1;
      return route.fulfill(problem(412, "not-yet-visible"));
    });
    await answer(page);
    await waitUntilCounted(page);
    assert.equal(refused, 2);
  });
});

test("a draft survives a reload and a script that fails", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    await waitForScript(page);
    await fields(page).nth(0).fill("12.5");
    await page.reload();
    await waitForScript(page);
    assert.equal(await fields(page).nth(0).inputValue(), "12.5");
    assert.match(await page.locator("#draft-notice").innerText(), /not sent yet/);
  });
});
