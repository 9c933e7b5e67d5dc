// Results move while they are watched, hold when paused, and never go back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/allocator.mjs";
import { DESKTOP, screenshot, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";

const parts = suite();
const text = (page, selector) => page.locator(selector).innerText();

test("a submission by the API appears by polling, pause holds the numbers, and continuing brings them", async () => {
  const url = await parts.allocator.putBudget("live");
  await parts.allocator.submit("live", "p-1", { parks: 100 });
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.route("**/aggregate/stream", (route) => route.fulfill({ status: 404 }));
    await page.goto(url);
    assert.match(await text(page, "h1"), /What for our town/);
    assert.equal(await page.locator("#results").getAttribute("open"), null, "averages are anchors: folded until sent");
    await page.locator("#results > summary").click();
    await page.getByRole("button", { name: "Pause" }).waitFor();
    assert.match(await text(page, "#people"), /1$/);
    await parts.allocator.submit("live", "p-2", { schools: 100 });
    await until("the second person appears", async () => /2$/.test(await text(page, "#people")), 25_000);
    assert.match(await text(page, "tr[data-category=parks] td.average"), /^50\.0\s%$/);

    await page.getByRole("button", { name: "Pause" }).click();
    assert.match(await text(page, "#pause-area"), /Paused at/);
    const polls = () => page.requests.filter((request) => request.url().includes("/aggregate")).length;
    const before = polls();
    await parts.allocator.submit("live", "p-3", { roads: 100 });
    // A full page of other work, during which a poll would have been due.
    await page.evaluate(() => dispatchEvent(new Event("online")));
    await page.locator("details.distribution > summary").click();
    await page.locator(".charts figure").first().waitFor();
    assert.match(await text(page, "#people"), /2$/);
    assert.equal(polls(), before + 1, "only the distribution was asked for");
    await page.getByRole("button", { name: "Continue" }).click();
    await until("the third person appears", async () => /3$/.test(await text(page, "#people")));
    await screenshot(page, "desktop-results", { fullPage: true });
  });
});

test("an unchanged aggregate is answered with 304", async () => {
  const url = await parts.allocator.putBudget("unchanged");
  await parts.allocator.submit("unchanged", "p-1", { parks: 100 });
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.route("**/aggregate/stream", (route) => route.fulfill({ status: 404 }));
    await page.goto(`${url}/results`);
    const statuses = [];
    page.on("response", (response) => response.url().endsWith("/aggregate") && statuses.push(response.status()));
    await page.getByRole("button", { name: "Pause" }).waitFor();
    await until("two polls", () => statuses.length >= 1 || null, 25_000);
    await page.evaluate(() => dispatchEvent(new Event("online")));
    await until("a second poll", () => statuses.includes(304), 25_000);
  });
});

test("a stream moves the numbers forward only, and a refused one is replaced by polling", async () => {
  const url = await parts.allocator.putBudget("stream");
  await parts.allocator.submit("stream", "p-1", { parks: 100 });
  const real = await parts.allocator.aggregate("stream");
  const at = (people, seconds) => ({ ...real, people, updated_at: new Date(Date.parse(real.updated_at) + seconds * 1_000).toISOString() });
  const event = (aggregate) => `retry: 200\nevent: aggregate\nid: v${aggregate.people}\ndata: ${JSON.stringify(aggregate)}\n\nevent: beat\ndata: {}\n\n`;
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    const answers = [at(700, 20), at(600, 10), at(800, 30)];
    let connections = 0;
    await page.route("**/aggregate/stream", (route) => {
      connections += 1;
      const next = answers.shift();
      return next
        ? route.fulfill({ status: 200, contentType: "text/event-stream", body: event(next) })
        : route.fulfill({ status: 503 });
    });
    // As if this release had the stream's address.
    await page.route(`${url}/results`, async (route) => {
      const response = await route.fetch();
      const body = (await response.text()).replace('"urls":{', `"urls":{"stream":"/v1/budgets/stream/aggregate/stream",`);
      return route.fulfill({ response, body });
    });
    const shown = [];
    await page.exposeFunction("seen", (people) => shown.push(people));
    await page.goto(`${url}/results`);
    await page.evaluate(() => new MutationObserver(() => globalThis.seen(document.querySelector("#people").textContent))
      .observe(document.querySelector("#people"), { childList: true, characterData: true, subtree: true }));
    await until("the newest event", async () => /800$/.test(await text(page, "#people")));
    assert.ok(!shown.some((people) => /600/.test(people)), "an older state was shown");
    const polled = page.waitForResponse((response) => response.url().endsWith("/aggregate"), { timeout: 25_000 });
    await until("the stream is refused", () => connections >= 4);
    await polled;
    assert.match(await text(page, "#people"), /800$/, "the poll's older state was shown");
  });
});

test("a lost connection is said, with the last numbers", async () => {
  const url = await parts.allocator.putBudget("lost");
  await parts.allocator.submit("lost", "p-1", { parks: 100 });
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.route("**/aggregate/stream", (route) => route.fulfill({ status: 404 }));
    await page.goto(`${url}/results`);
    await page.getByRole("button", { name: "Pause" }).waitFor();
    await page.route("**/v1/**", (route) => route.abort());
    await page.evaluate(() => dispatchEvent(new Event("online")));
    await until("it says so", async () => /Offline since/.test(await text(page, "#pause-area")), 60_000);
    assert.match(await text(page, "#people"), /1$/);
  });
});

test("a stream that the browser cannot open again is said, although the browser goes on trying", async () => {
  const url = await parts.allocator.putBudget("unreachable");
  await parts.allocator.submit("unreachable", "p-1", { parks: 100 });
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.route("**/v1/**", (route) => route.abort());
    await page.goto(`${url}/results`);
    await until("it says so", async () => /Offline since/.test(await text(page, "#pause-area")), 30_000);
    assert.match(await text(page, "#people"), /1$/);
    await page.unroute("**/v1/**");
    await parts.allocator.submit("unreachable", "p-2", { parks: 100 });
    await until("numbers move again", async () => /2$/.test(await text(page, "#people")), 60_000);
    assert.doesNotMatch(await text(page, "#pause-area"), /Offline since/);
  });
});

test("the largest come first once asked, and do not move by themselves", async () => {
  const url = await parts.allocator.putBudget("order");
  await parts.allocator.submit("order", "p-1", { parks: 10, schools: 60, roads: 30 });
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(`${url}/results`);
    const order = () => page.locator("#averages tbody tr").evaluateAll((rows) => rows.map((row) => row.dataset.category));
    await page.getByRole("button", { name: "Largest first" }).click();
    assert.deepEqual(await order(), ["schools", "roads", "parks"]);
    await page.getByRole("button", { name: "Usual order" }).click();
    assert.deepEqual(await order(), ["parks", "schools", "roads"]);
  });
});

test("the closing instant ends the form without a reload and keeps the receipt", async () => {
  const closes = new Date(Date.now() + 20_000);
  const url = await parts.allocator.putBudget("closing", { closes_at: closes.toISOString() });
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(url);
    await page.locator("#allocation.enhanced").waitFor();
    assert.match(await text(page, "#clock-notice"), /Closes at/);
    await page.locator("#c-parks").fill("100");
    await page.locator("#send").click();
    await page.locator("#receipt[data-step=counted]").waitFor();
    await until("it says that it is closed", async () => /closed/i.test(await text(page, "#clock-notice")), 60_000);
    assert.equal(await page.locator("#allocation").isVisible(), false);
    assert.equal(await page.getByRole("button", { name: "Change", exact: true }).count(), 0);
    assert.ok(await page.locator("#receipt code").isVisible());
    assert.match(await text(page, "#receipt .note"), /can no longer be changed or withdrawn/);
  });
});
