// What the page loads, and what is left of it when a part fails.
import assert from "node:assert/strict";
import { test } from "node:test";
import { withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { answer, fields, sumOfFields, waitForScript, waitUntilCounted } from "../support/task.mjs";

const parts = suite();
const FIRST_LOAD_BYTES = 60 * 1024;
const FIRST_LOAD_REQUESTS = 12;
const USABLE_MS = 3_000;

test("on a slow network the first field is usable within three seconds, within 60 KB and 12 requests", async () => {
  await withPage(parts.browser, {}, async (page) => {
    const session = await page.context().newCDPSession(page);
    await session.send("Network.enable");
    // 400 kbit/s and 400 ms.
    await session.send("Network.emulateNetworkConditions", { offline: false, latency: 400, downloadThroughput: 50_000, uploadThroughput: 50_000 });
    let bytes = 0;
    let requests = 0;
    session.on("Network.loadingFinished", ({ encodedDataLength }) => {
      bytes += encodedDataLength;
      requests += 1;
    });
    const started = Date.now();
    await page.goto(`${parts.allocator.url}/budgets/taxes`, { waitUntil: "commit" });
    await fields(page).first().fill("10");
    const usable = Date.now() - started;
    await waitForScript(page);
    // What the first edit asks for is not part of the first load.
    const initial = page.requests.map((request) => new URL(request.url()).pathname).filter((path) => !/\/(mine|person)$|\/lazy-/.test(path));
    assert.ok(usable < USABLE_MS, `${usable} ms`);
    assert.ok(bytes < FIRST_LOAD_BYTES, `${bytes} bytes`);
    assert.ok(initial.length <= FIRST_LOAD_REQUESTS, initial.join("\n"));
    assert.equal(await fields(page).first().inputValue(), "10", "what is typed before the script stays");
    console.log(`# first field after ${usable} ms, ${bytes} bytes, ${requests} requests`);
  });
});

test("nothing loads from another host, and no policy is violated, in the whole task", async () => {
  await withPage(parts.browser, {}, async (page) => {
    const response = await page.goto(`${parts.allocator.url}/budgets/taxes`);
    const policy = response.headers()["content-security-policy"];
    for (const part of ["default-src 'self'", "object-src 'none'", "base-uri 'none'", "form-action 'self'"]) assert.ok(policy.includes(part), policy);
    assert.doesNotMatch(policy, /unsafe/);
    assert.doesNotMatch(await response.text(), /\sstyle="/);
    await answer(page);
    await waitUntilCounted(page);
    await page.locator("details.distribution > summary").click();
    await page.locator(".charts figure").first().waitFor();
  });
});

test("the pages of problems have a policy that allows their own style alone", async () => {
  await withPage(parts.browser, {}, async (page) => {
    for (const path of ["/problems", "/problems/unavailable"]) {
      const response = await page.goto(parts.allocator.url + path);
      assert.match(response.headers()["content-security-policy"], /^default-src 'none'; style-src 'sha256-[^']+'; base-uri 'none'/);
      assert.equal(await page.locator("body").evaluate((body) => getComputedStyle(body).maxWidth), "640px");
    }
  });
});

for (const [broken, check] of [
  ["page.js", async (page) => assert.equal(await page.locator("#allocation.enhanced").count(), 0)],
  ["control.js", async (page) => assert.equal(await page.locator("#allocation.enhanced").count(), 0)],
  ["lazy-results.js", async (page) => waitForScript(page)],
]) {
  test(`without ${broken} the server's page goes on working`, async () => {
    await withPage(parts.browser, { allowConsole: [/page: .* failed/] }, async (page) => {
      await page.route(`**/${broken}`, (route) => route.abort());
      await page.goto(`${parts.allocator.url}/budgets/taxes`, { waitUntil: "networkidle" });
      await check(page);
      await fields(page).nth(0).fill("60");
      await fields(page).nth(1).fill("60");
      await page.locator("button[value=scale]").click();
      await page.waitForFunction(() => document.querySelector("#allocation input[type=text]").value === "50");
      assert.equal(await sumOfFields(page), 10_000);
      await page.locator("#results > summary").click();
      await page.locator("#send").click();
      if (broken !== "lazy-results.js") await page.locator("#confirm button").click();
      await page.waitForFunction(() => /Counted|being counted/.test(document.querySelector("main").innerText));
    });
  });
}

test("hostile names are text", async () => {
  const name = "</script><img src=x onerror=alert(1)>\u202eevil";
  const url = await parts.allocator.putBudget("hostile", {
    name, categories: [{ id: "a", name: "<b>A</b>" }, { id: "b", name: "W".repeat(200) }],
  });
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(url);
    await waitForScript(page);
    assert.equal(await page.locator("img").count(), 0);
    assert.match(await page.locator("h1").innerText(), /<img src=x/);
    await page.locator("#c-a").fill("100");
    await page.locator("#send").click();
    await waitUntilCounted(page);
    assert.equal(await page.locator("b").count(), 0);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth));
  });
});

test("numbers are written as the browser's own language data has them", async () => {
  for (const language of ["en", "de", "fr", "es", "pl", "ar"]) {
    await withPage(parts.browser, {}, async (page) => {
      await page.goto(`${parts.allocator.url}/budgets/taxes?lang=${language}`);
      const [own, browser] = await page.evaluate((tag) => {
        const { number_format: format } = JSON.parse(document.getElementById("page-data").textContent);
        const numbers = new Intl.NumberFormat(tag === "ar" ? "ar-u-nu-latn" : tag);
        const part = (number, type) => numbers.formatToParts(number).find((candidate) => candidate.type === type)?.value;
        return [[format.decimal, format.group], [part(1.5, "decimal"), part(1234567, "group")]];
      }, language);
      assert.deepEqual(own, browser, language);
    });
  }
});
