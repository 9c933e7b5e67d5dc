// Watching live results: how soon they come, how often they are painted, when there is no connection, and who hears them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../support/allocator.mjs";
import { DESKTOP, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { laterState, useFedStreams } from "../support/variants.mjs";

const parts = suite();
/** The aim is 2 s; a busy machine may take longer. */
const VISIBLE_MS = 10_000;
const text = (page, selector) => page.locator(selector).innerText();

/** A budget that one person has answered, and its aggregate. */
async function answered(id) {
  const url = await parts.allocator.putBudget(id);
  const aggregate = await parts.allocator.submit(id, "p-1", { parks: 70, schools: 30 });
  return { url, aggregate };
}

test("a submission by the API is seen by the stream", async () => {
  const { url } = await answered("soon");
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    const opened = page.waitForResponse((response) => response.url().endsWith("/aggregate/stream"));
    await page.goto(`${url}/results`);
    assert.equal((await opened).status(), 200);
    const began = Date.now();
    await parts.allocator.submit("soon", "p-2", { roads: 100 });
    await until("the second person is seen", async () => /2$/.test(await text(page, "#people")), VISIBLE_MS);
    console.log(`# seen after ${Date.now() - began} ms`);
    const polls = page.requests.filter((request) => request.url().endsWith("/aggregate"));
    assert.deepEqual(polls.map((request) => request.url()), []);
  });
});

test("a burst of updates is painted once a second, with the newest at its end", async () => {
  const { url, aggregate } = await answered("burst");
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.clock.install();
    const streams = await useFedStreams(page);
    await page.goto(`${url}/results`);
    await until("the stream is open", async () => (await streams.open()) === 1);
    await page.clock.runFor(1_000);
    await page.evaluate(() => {
      globalThis.painted = [];
      new MutationObserver(() => globalThis.painted.push(document.querySelector("#people").textContent))
        .observe(document.querySelector("#people"), { childList: true, characterData: true, subtree: true });
    });
    for (let step = 1; step <= 9; step += 1) await streams.send(laterState(aggregate, step));
    await page.clock.runFor(1_000);
    const people = (step) => `People: ${(1 + step * 1_111).toLocaleString("en")}`;
    assert.deepEqual(await page.evaluate(() => globalThis.painted), [people(1), people(9)]);

    // What came before Pause is shown, and nothing after it.
    await page.clock.runFor(1_000);
    for (const step of [10, 11]) await streams.send(laterState(aggregate, step));
    await page.getByRole("button", { name: "Pause" }).click();
    assert.equal(await text(page, "#people"), people(11));
    assert.equal(await streams.open(), 0);
    await page.clock.runFor(5_000);
    assert.equal(await text(page, "#people"), people(11));
  });
});

test("a tab hidden for a minute has no connection, and one that is shown again has one", async () => {
  const { url } = await answered("hidden");
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.clock.install();
    const streams = await useFedStreams(page);
    await page.goto(`${url}/results`);
    await until("the stream is open", async () => (await streams.open()) === 1);
    const show = (hidden) => page.evaluate((value) => {
      Object.defineProperty(document, "hidden", { configurable: true, value });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await show(true);
    await page.clock.runFor(59_000);
    assert.equal(await streams.open(), 1);
    await page.clock.runFor(2_000);
    assert.equal(await streams.open(), 0);
    await show(false);
    assert.equal(await streams.open(), 1);

    // Into the back/forward cache, and out of it.
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
    assert.equal(await streams.open(), 0);
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
    assert.equal(await streams.open(), 1);
  });
});

test("offline is said at once, with the last numbers, and taken back when online", async () => {
  const { url } = await answered("tunnel");
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(`${url}/results`);
    await page.getByRole("button", { name: "Pause" }).waitFor();
    await page.context().setOffline(true);
    await until("it is said", async () => /Offline since/.test(await text(page, "#pause-area")));
    assert.match(await text(page, "#people"), /1$/);
    await page.context().setOffline(false);
    await until("it is taken back", async () => !/Offline since/.test(await text(page, "#pause-area")));
  });
});

test("changes are read aloud only to whoever asks, once a minute, and never without a change", async () => {
  const { url, aggregate } = await answered("aloud");
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.clock.install();
    const streams = await useFedStreams(page);
    await page.goto(`${url}/results`);
    await until("the stream is open", async () => (await streams.open()) === 1);
    const said = () => page.locator("#announce").textContent();
    await streams.send(laterState(aggregate, 1));
    await page.clock.runFor(120_000);
    assert.equal(await said(), "", "nobody asked");
    assert.equal(await page.locator("#results [aria-live], #results [role=status]").count(), 0);

    const button = page.getByRole("button", { name: "Read changes aloud" });
    await button.click();
    assert.equal(await button.getAttribute("aria-pressed"), "true");
    assert.match(await said(), /^People: 1,112\. Largest average: Parks, \d+\.\d\s%\.$/);
    await streams.send(laterState(aggregate, 2));
    await page.clock.runFor(30_000);
    assert.match(await said(), /^People: 1,112/, "not before the minute is over");
    await page.clock.runFor(30_000);
    assert.match(await said(), /^People: 2,223/);
    await page.evaluate(() => (document.querySelector("#announce").textContent = ""));
    await page.clock.runFor(60_000);
    assert.equal(await said(), "", "nothing changed");
    await button.click();
    await streams.send(laterState(aggregate, 3));
    await page.clock.runFor(120_000);
    assert.equal(await said(), "", "it was ended");
  });
});

test("the table that begins with the first person is the server's", async () => {
  const categories = [["parks", "Parks", "#336699"], ["schools", "Schools", "#aa5500"]].map(([id, name, color]) => ({ id, name, color }));
  const reference = { name: "The town, 2025", source: "The town's accounts", percent: { parks: 12.5, schools: 87.5 } };
  const url = await parts.allocator.putBudget("first", { categories, reference, language: "en" });
  const shape = (page) => page.locator("#averages").evaluate((table) =>
    [...table.querySelectorAll("[role], .swatch rect")].map((element) => [
      element.tagName, element.getAttribute("role"), element.getAttribute("class"), element.getAttribute("fill"),
      element.matches("th") ? element.textContent : "", element.hidden,
    ]));
  let built;
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(`${url}/results`);
    await until("nobody is there", async () => /Be the first/.test(await text(page, "#results")));
    await parts.allocator.submit("first", "p-1", { parks: 70, schools: 30 });
    await page.locator("#averages td.average", { hasText: "70.0" }).waitFor();
    built = await shape(page);
  });
  await withPage(parts.browser, { viewport: DESKTOP, javaScriptEnabled: false }, async (page) => {
    await page.goto(`${url}/results`);
    assert.deepEqual(built, await shape(page));
  });
});

test("the link to how it is counted unfolds the explanation", async () => {
  const { url } = await answered("explained");
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(`${url}/results`);
    await page.getByRole("button", { name: "Pause" }).waitFor();
    assert.equal(await page.locator("#how-counted p").first().isVisible(), false);
    await page.getByRole("link", { name: "How it is counted" }).click();
    assert.ok(await page.locator("#how-counted p").first().isVisible());
    await page.reload();
    await page.locator("#how-counted[open]").waitFor();
  });
});
