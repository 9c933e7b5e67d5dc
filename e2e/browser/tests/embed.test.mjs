// Results on pages of other sites.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { until } from "../support/allocator.mjs";
import { checkAccessibility, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";

const parts = suite();
/** Rounding of the browser, at most one pixel on each side. */
const TOLERANCE_PX = 2;

/** A site of another origin: each path has the HTML that a test put there. */
const pages = new Map();
const site = createServer((request, response) => {
  response.setHeader("Content-Type", "text/html; charset=utf-8");
  response.end(`<!doctype html><title>Another site</title>${pages.get(request.url) ?? ""}`);
});
before(() => new Promise((resolve) => site.listen(0, "127.0.0.1", resolve)));
after(() => site.close());
const address = (path) => `http://127.0.0.1:${site.address().port}${path}`;

const embed = (more = "") => `<div data-allocator="taxes" ${more}><a href="${parts.allocator.url}/budgets/taxes/results">Results of taxes</a></div>`;
const script = () => `<script src="${parts.allocator.url}/embed.js" async></script>`;

/** Waits until each frame is as high as its content. A browser does not lay out a frame that is out of sight. */
async function waitForHeights(page) {
  const frames = page.frames().filter((frame) => frame.url().includes("/embed/"));
  assert.ok(frames.length > 0);
  for (const frame of frames) {
    const element = await frame.frameElement();
    await element.scrollIntoViewIfNeeded();
    await until("the frame is as high as its content", async () => {
      const outer = await element.evaluate((node) => node.clientHeight);
      const inner = await frame.evaluate(() => document.body.getBoundingClientRect().height);
      return Math.abs(outer - inner) <= TOLERANCE_PX;
    });
  }
}

test("two embeds on a page of another origin show live results, as high as their content", async () => {
  await parts.allocator.submit("taxes", "p-1", { health: 40, education: 60 });
  pages.set("/two", `${embed('data-lang="de" data-theme="dark"')}<p>Between</p>${embed()}${script()}`);
  await withPage(parts.browser, { viewport: { width: 900, height: 700 } }, async (page) => {
    await page.goto(address("/two"));
    await page.locator("iframe").nth(1).scrollIntoViewIfNeeded();
    await until("both frames are loaded", () => page.frames().length === 3);
    const [german, english] = [0, 1].map((index) => page.frameLocator("iframe").nth(index));
    await german.locator("#averages").waitFor();
    await english.locator("#averages").waitFor();
    assert.equal(await german.locator("html").getAttribute("lang"), "de");
    assert.equal(await german.locator("html").getAttribute("data-theme"), "dark");
    assert.equal(await page.locator("iframe").first().getAttribute("title"), "Results of taxes");
    await waitForHeights(page);

    // A narrower page has higher embeds.
    const before = await page.locator("iframe").first().evaluate((frame) => frame.clientHeight);
    await page.setViewportSize({ width: 340, height: 700 });
    await page.locator("iframe").first().scrollIntoViewIfNeeded();
    await until("the frame has grown", async () => (await page.locator("iframe").first().evaluate((frame) => frame.clientHeight)) > before);
    await waitForHeights(page);

    const people = english.locator("#people");
    await parts.allocator.submit("taxes", "p-2", { health: 100 });
    await until("the embed shows the new person", async () => /2/.test(await people.innerText()));
    const takePart = english.locator(".take-part a");
    assert.equal(await takePart.getAttribute("target"), "_blank");
    assert.equal(await english.locator("form").count(), 0);
  });
});

test("an embed is accessible, and tells its height to no one if it is not in a frame", async () => {
  await withPage(parts.browser, {}, async (page) => {
    for (const theme of ["light", "dark"]) {
      await page.goto(`${parts.allocator.url}/embed/budgets/taxes/results?lang=ar&theme=${theme}`);
      await page.locator("#pause-area button").first().waitFor();
      assert.equal(await page.locator("html").getAttribute("dir"), "rtl");
      await checkAccessibility(page, `embed, ${theme}`);
    }
  });
});

test("a theme of the embed's own has the colours of a device with that theme", async () => {
  const coloursOf = async (colorScheme, theme) => {
    let found;
    await withPage(parts.browser, { colorScheme }, async (page) => {
      await page.goto(`${parts.allocator.url}/embed/budgets/taxes/results${theme ? `?theme=${theme}` : ""}`);
      await page.locator("#pause-area button").first().waitFor();
      found = await page.evaluate(() => ["body", "#results", "h1", "a", "rect.average"].map((selector) => {
        const { color, backgroundColor, fill, borderColor } = getComputedStyle(document.querySelector(selector));
        return [selector, color, backgroundColor, fill, borderColor];
      }));
    });
    return found;
  };
  const [light, dark] = [await coloursOf("light"), await coloursOf("dark")];
  for (const [index] of light.entries()) assert.notDeepEqual(light[index], dark[index]);
  assert.deepEqual(await coloursOf("light", "dark"), dark);
  assert.deepEqual(await coloursOf("dark", "light"), light);
});

test("where the script is blocked the link stays", async () => {
  pages.set("/blocked", `${embed()}${script()}`);
  await withPage(parts.browser, {}, async (page) => {
    await page.route("**/embed.js", (route) => route.abort());
    await page.goto(address("/blocked"), { waitUntil: "networkidle" });
    assert.equal(await page.locator("iframe").count(), 0);
    assert.ok(await page.getByRole("link", { name: "Results of taxes" }).isVisible());
  });
});

test("messages that are not of the embed's own frame change nothing", async () => {
  pages.set("/forged", `${embed()}${script()}<script>addEventListener("load", () => postMessage({ type: "allocator:height", height: 9999 }, "*"))</script>`);
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(address("/forged"), { waitUntil: "networkidle" });
    await waitForHeights(page);
    assert.notEqual(await page.locator("iframe").evaluate((frame) => frame.clientHeight), 9999);
  });
});

test("no other page of the service can be framed", async () => {
  for (const path of ["/", "/budgets/taxes", "/budgets/taxes/results", "/budgets/taxes/mine"]) {
    pages.set("/framed", `<iframe src="${parts.allocator.url}${path}"></iframe>`);
    await withPage(parts.browser, { allowConsole: [/frame-ancestors|Refused to frame|Framing/] }, async (page) => {
      await page.goto(address("/framed"), { waitUntil: "networkidle" });
      const [, frame] = page.frames();
      assert.equal(await frame.locator("main").count(), 0, path);
    });
  }
});

test("the page of the results shows the lines to copy, and they work", async () => {
  await withPage(parts.browser, { viewport: { width: 900, height: 700 } }, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes/results`);
    await page.locator("#embed > summary").click();
    const lines = await page.locator("#embed-code").inputValue();
    assert.ok(lines.includes(`src="${parts.allocator.url}/embed.js"`), lines);
    await checkAccessibility(page, "results with the lines to copy");
    pages.set("/copied", lines);
    await page.goto(address("/copied"));
    await page.frameLocator("iframe").locator("#averages").waitFor();
  });
});

test("withheld results are in no embed", async () => {
  await parts.allocator.putBudget("few", { minimum_people: 1000 });
  for (let person = 0; person < 3; person += 1) await parts.allocator.submit("few", `p-${person}`, { parks: 71.93, schools: 28.07 });
  const response = await fetch(`${parts.allocator.url}/embed/budgets/few/results`);
  assert.match(response.headers.get("content-security-policy"), /frame-ancestors \*/);
  assert.doesNotMatch(await response.text(), /71[.,]9|7193|28[.,]07|2807|average_percent|total_basis_points|"people":\s*\d/);
});
