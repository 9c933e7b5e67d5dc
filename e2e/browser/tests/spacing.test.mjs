// Nothing is cut or wider than the window with texts that are 40 % longer and the spacing that WCAG lets readers set.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DESKTOP, PHONE, checkNoSidewaysScrolling, checkNothingCut, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { answer, fields, waitForScript, waitUntilCounted } from "../support/task.mjs";
import { WIDE_SPACING, addStyles, lengthen, useLongTexts } from "../support/variants.mjs";

const parts = suite();
/** 1280 pixels at 400 %. */
const ZOOMED = { width: 320, height: 225 };

for (const locale of ["en", "ar"]) {
  test(`longer texts and wide spacing fit in every state, ${locale}`, async () => {
    const url = `${parts.allocator.url}/budgets/taxes`;
    await withPage(parts.browser, { locale }, async (page) => {
      await useLongTexts(page);
      await addStyles(page, WIDE_SPACING);
      const check = async (state) => {
        for (const viewport of [DESKTOP, ZOOMED, PHONE]) {
          await page.setViewportSize(viewport);
          await checkNoSidewaysScrolling(page, `${state}, ${viewport.width} × ${viewport.height}`);
          await checkNothingCut(page, `${state}, ${viewport.width} × ${viewport.height}`);
        }
      };
      await page.goto(url);
      await waitForScript(page);
      if (locale === "en") assert.equal(await page.locator("#send").innerText(), lengthen("Send"));
      await page.locator("details.more > summary").click();
      await page.locator("details.more .more-tools button").nth(1).click();
      await check("open");
      await page.locator("#send").click();
      await check("faults");
      await fields(page).first().fill("12.34");
      await page.locator("button[value=share]").click();
      await check("shared");
      await answer(page);
      await waitUntilCounted(page);
      await page.locator("details.distribution > summary").click();
      await page.locator(".charts figure").first().waitFor();
      await check("counted");
      await page.locator("#receipt .withdraw").click();
      await check("withdraw question");
      for (const path of ["/results", "/mine", "/confirm?c.health=40&c.education=60"]) {
        await page.goto(url + path);
        await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
        await check(path);
      }
      for (const path of ["/", "/budgets", "/budgets/missing"]) {
        await page.goto(parts.allocator.url + path);
        await check(path);
      }
    });
  });
}
