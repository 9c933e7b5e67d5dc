// The page fits: small windows, large zoom, long texts, many categories, dark, forced colours, print.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DESKTOP, PHONE, checkNoSidewaysScrolling, screenshot, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { answer, waitForScript, waitUntilCounted } from "../support/task.mjs";

const parts = suite();
const taxes = () => `${parts.allocator.url}/budgets/taxes`;
/** 1280 pixels at 400 %. */
const ZOOMED = { width: 320, height: 225 };

test("no language scrolls sideways on a small phone or at 400 %, before and after sending", async () => {
  for (const locale of ["en", "de", "fr", "es", "pl", "ar"]) {
    await withPage(parts.browser, { locale }, async (page) => {
      await page.goto(taxes());
      await waitForScript(page);
      await page.locator("details.more > summary").click();
      for (const viewport of [PHONE, ZOOMED]) {
        await page.setViewportSize(viewport);
        await checkNoSidewaysScrolling(page, `${locale} open ${viewport.height}`);
      }
      await page.setViewportSize(PHONE);
      await answer(page);
      await waitUntilCounted(page);
      for (const viewport of [PHONE, ZOOMED]) {
        await page.setViewportSize(viewport);
        await checkNoSidewaysScrolling(page, `${locale} counted ${viewport.height}`);
      }
    });
  }
});

test("64 categories work on a phone", async () => {
  const categories = Array.from({ length: 64 }, (_, index) => ({ id: `c-${index}`, name: `Category number ${index} of a long list` }));
  const url = await parts.allocator.putBudget("many", { categories });
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(url);
    await waitForScript(page);
    await page.locator("button[value=share]").click();
    await checkNoSidewaysScrolling(page, "64 categories");
    await page.locator("#send").click();
    await waitUntilCounted(page);
    await checkNoSidewaysScrolling(page, "64 results");
  });
});

test("targets are at least 24 pixels, and 44 under a finger", async () => {
  for (const [hasTouch, size] of [[false, 24], [true, 44]]) {
    await withPage(parts.browser, { hasTouch, isMobile: hasTouch }, async (page) => {
      await page.goto(taxes());
      await waitForScript(page);
      await page.locator("details.more > summary").click();
      const small = await page.evaluate((least) =>
        [...document.querySelectorAll("#allocation :is(button, input, summary)")].filter((element) => {
          const { width, height } = element.getBoundingClientRect();
          return element.checkVisibility() && element.type !== "hidden" && !element.matches(".default-submit") && (height < least - 0.5 || width < 24);
        }).map((element) => `${element.outerHTML.slice(0, 80)} ${element.getBoundingClientRect().height}`), size);
      assert.deepEqual(small, []);
    });
  }
});

test("the bar stays in sight, except in a low window", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(taxes());
    await waitForScript(page);
    const isInSight = () => page.locator("#send").evaluate((button) => button.getBoundingClientRect().bottom <= innerHeight + 1);
    assert.ok(await isInSight());
    await page.setViewportSize({ width: 640, height: 400 });
    assert.equal(await isInSight(), false);
  });
});

test("dark, forced colours and reduced motion draw bars and markers", async () => {
  for (const [name, options] of [
    ["dark", { colorScheme: "dark" }], ["forced", { forcedColors: "active" }], ["still", { reducedMotion: "reduce" }],
  ]) {
    await withPage(parts.browser, { ...options, viewport: DESKTOP }, async (page) => {
      await page.goto(taxes());
      await waitForScript(page);
      await screenshot(page, `desktop-${name}-open`, { fullPage: true });
      await answer(page);
      await waitUntilCounted(page);
      const drawn = await page.evaluate(() => {
        const visible = (selector) => {
          const element = document.querySelector(selector);
          const { width, height } = element.getBoundingClientRect();
          const { fill, backgroundColor } = getComputedStyle(element);
          return { fill, area: width * height, ground: getComputedStyle(document.body).backgroundColor, backgroundColor };
        };
        return ["tr[data-category=health] rect.average", "tr[data-category=health] path.you"].map(visible);
      });
      for (const { fill, area, ground } of drawn) {
        assert.notEqual(fill, ground, name);
        assert.ok(area > 10, name);
      }
      if (name === "still") {
        const durations = await page.evaluate(() => [...document.querySelectorAll("*")].map((element) => getComputedStyle(element).transitionDuration).filter((duration) => duration !== "0s"));
        assert.deepEqual(durations, []);
      }
      await screenshot(page, `desktop-${name}-counted`, { fullPage: true });
    });
  }
});

test("print has the receipt and the own shares on one page, and no controls", async () => {
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(taxes());
    await answer(page);
    await waitUntilCounted(page);
    await page.emulateMedia({ media: "print" });
    assert.ok(await page.locator("#receipt code").isVisible());
    assert.ok(await page.locator("td.you .number").first().isVisible());
    assert.equal(await page.locator("button:visible").count(), 0);
    assert.equal(await page.locator(".print-only").innerText(), taxes());
    assert.ok(await page.locator("#as-of").isVisible());
    await screenshot(page, "print", { fullPage: true });
    const pdf = (await page.pdf({ format: "A4" })).toString("latin1");
    assert.equal([...pdf.matchAll(/\/Type\s*\/Page\b/g)].length, 1);
  });
});
