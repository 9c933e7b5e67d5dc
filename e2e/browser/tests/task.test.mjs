// The whole task: ten rough numbers become an exact ballot, are sent, counted and compared.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DESKTOP, screenshot, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { ROUGH, answer, fields, fillFields, receiptOf, sumOfFields, waitForScript, waitUntilCounted } from "../support/task.mjs";

const parts = suite();

test("a novice needs at most 25 actions from ten rough numbers to counted", async () => {
  const before = await parts.allocator.aggregate("taxes");
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(parts.allocator.url);
    await waitForScript(page);
    await screenshot(page, "phone-open");
    let actions = await fillFields(page, ROUGH);
    assert.match(await page.locator("#left").innerText(), /4\s*%/);
    await page.locator("button[value=scale]").click();
    actions += 1;
    assert.equal(await sumOfFields(page), 10_000);
    await screenshot(page, "phone-scaled");
    await page.locator("#send").click();
    actions += 1;
    await waitUntilCounted(page);
    assert.ok(actions <= 25, `${actions} actions`);

    assert.ok(await page.locator("#results").getAttribute("open") !== null, "results open by themselves");
    await page.locator("td.you .number").first().waitFor();
    assert.equal(await page.locator("td.you .difference").count(), 10);
    assert.match(await receiptOf(page), /^\d+\.\d+/);
    await screenshot(page, "phone-counted", { fullPage: true });
  });
  assert.equal((await parts.allocator.aggregate("taxes")).people, before.people + 1);
});

test("the keyboard alone does the whole task, with focus in sight", async () => {
  await withPage(parts.browser, { viewport: { width: 1024, height: 768 } }, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await waitForScript(page);
    const stops = await page.evaluate(() =>
      [...document.querySelectorAll("#allocation :is(input, button, summary, a)")].filter((element) =>
        element.tabIndex >= 0 && element.type !== "hidden" && element.checkVisibility()).length);
    assert.ok(stops <= 10 + 8, `${stops} tab stops`);
    await page.locator("details.more > summary").click();
    assert.deepEqual(await stopsOutOfSight(page), [], "the order of the tab stops is the order in sight");
    await page.locator("details.more > summary").click();

    await fields(page).first().focus();
    for (const [index, text] of ROUGH.entries()) {
      await page.keyboard.type(text);
      assert.ok(await isFocusInSight(page), `field ${index} is covered`);
      await page.keyboard.press("Enter");
    }
    assert.equal(await page.evaluate(() => document.activeElement.id), "send", "Enter in the last field leads to Send");
    await fields(page).first().focus();
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("PageUp");
    assert.equal(await fields(page).first().inputValue(), "21");
    await page.keyboard.press("PageDown");
    for (let stop = 0; stop < 30; stop += 1) {
      if (await page.evaluate(() => document.activeElement.value === "scale")) break;
      await page.keyboard.press("Tab");
      assert.ok(await isFocusInSight(page), "focus is covered");
    }
    await page.keyboard.press("Enter");
    assert.equal(await sumOfFields(page), 10_000);
    for (let stop = 0; stop < 10; stop += 1) {
      if (await page.evaluate(() => document.activeElement.id === "send")) break;
      await page.keyboard.press("Tab");
    }
    await page.keyboard.press("Enter");
    await waitUntilCounted(page);
    assert.equal(await page.evaluate(() => document.activeElement.id), "receipt-title", "focus goes on at the receipt");
  });
});

/** Whether the focused element has an outline, is in the window, and no part of it is behind the sticky bar. */
const isFocusInSight = (page) => page.evaluate(() => {
  const { activeElement } = document;
  const bar = document.querySelector("#bar");
  const { top, bottom } = activeElement.getBoundingClientRect();
  const end = bar.contains(activeElement) ? innerHeight : bar.getBoundingClientRect().top;
  return getComputedStyle(activeElement).outlineStyle !== "none" && top >= 0 && bottom <= end + 1;
});

/** Tab stops of the form that are neither below the one before nor beside it towards the line's end. */
const stopsOutOfSight = (page) => page.evaluate(() => {
  const stops = [...document.querySelectorAll("#allocation :is(input, button, summary, a)")].filter((element) =>
    element.tabIndex >= 0 && element.type !== "hidden" && element.checkVisibility() && !element.closest("#bar"));
  const places = stops.map((element) => element.getBoundingClientRect());
  return stops.filter((_, index) => index > 0 && places[index].top < places[index - 1].bottom - 4 && places[index].left < places[index - 1].right - 1)
    .map((element) => element.outerHTML.slice(0, 80));
});

test("in German, 35,5 is a number and stays one", async () => {
  await withPage(parts.browser, { locale: "de", viewport: DESKTOP }, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    assert.equal(await page.locator("html").getAttribute("lang"), "de");
    await waitForScript(page);
    await fields(page).nth(6).fill("35,50");
    await fields(page).nth(8).fill("64,5");
    assert.equal(await fields(page).nth(6).inputValue(), "35,5");
    assert.match(await page.locator("#left").innerText(), /100\s*%/);
    await page.locator("#send").click();
    await waitUntilCounted(page);
    assert.match(await page.locator("tr[data-category=health] td.you").innerText(), /35,5\s*%/);
    await screenshot(page, "desktop-de-counted", { fullPage: true });
  });
});

test("in Arabic, the page is mirrored and Arabic digits count", async () => {
  await withPage(parts.browser, { locale: "ar" }, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    assert.equal(await page.locator("html").getAttribute("dir"), "rtl");
    await waitForScript(page);
    await screenshot(page, "phone-ar-open");
    await fields(page).nth(6).fill("٤٠");
    await fields(page).nth(8).fill("٣٥٫٥");
    await page.locator("button[value=share]").click();
    assert.equal(await sumOfFields(page), 10_000);
    assert.equal(await fields(page).nth(8).inputValue(), "35.5");
    await page.locator("#send").click();
    await waitUntilCounted(page);
    const bar = page.locator("tr[data-category=health] .bar");
    const mirrored = await bar.evaluate((cell) => {
      const end = cell.getBoundingClientRect().right;
      return Math.abs(end - cell.querySelector("rect.average").getBoundingClientRect().right) < 20;
    });
    assert.ok(mirrored, "bars begin at the right");
    await screenshot(page, "phone-ar-counted", { fullPage: true });
  });
});

test("the skip link leads to what is in the form's place", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    const skip = async () => [await page.locator("a.skip").getAttribute("href"), await page.locator("a.skip").innerText()];
    assert.deepEqual(await skip(), ["#allocation", "Skip to the form"]);
    await answer(page);
    await waitUntilCounted(page);
    assert.deepEqual(await skip(), ["#receipt", "Skip to your answer"]);
    await page.getByRole("button", { name: "Change", exact: true }).click();
    assert.deepEqual(await skip(), ["#allocation", "Skip to the form"]);
  });
});

test("no share moves that was not touched, except by a tool, and Undo takes that back", async () => {
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await waitForScript(page);
    const all = () => fields(page).evaluateAll((inputs) => inputs.map((input) => input.value));
    await fields(page).nth(0).fill("70");
    await page.locator("li.row input[type=range]").nth(1).fill("60");
    assert.deepEqual(await all(), ["70", "60", ...Array(8).fill("")]);
    assert.match(await page.locator("#left").innerText(), /30\s*%/);
    await page.locator("li.row").nth(1).locator(".step").nth(0).click();
    assert.equal((await all())[1], "59");

    await fields(page).nth(1).fill("10.5");
    await page.locator("li.row").nth(1).locator(".step").nth(1).click();
    assert.equal((await all())[1], "11");
    const before = await all();
    await page.locator("button[value=share]").click();
    assert.equal(await sumOfFields(page), 10_000);
    assert.deepEqual((await all()).slice(0, 2), ["70", "11"]);
    assert.match(await page.locator("#announce").innerText(), /19\s*%/);
    await page.locator(".undo").click();
    assert.deepEqual(await all(), before);

    await page.locator("details.more > summary").click();
    await page.getByRole("button", { name: "Keep some fixed" }).click();
    await page.locator("li.row .keep").nth(0).click();
    await page.locator("button[value=scale]").click();
    assert.equal((await all())[0], "70");
    assert.equal((await all())[1], "30");
    await page.getByRole("button", { name: "Start again" }).click();
    assert.deepEqual(await all(), Array(10).fill(""));
    await page.locator(".undo").click();
    assert.equal((await all())[1], "30");
  });
});

test("a held stepper repeats, and one press is one step", async () => {
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await waitForScript(page);
    const more = page.locator("li.row").first().locator(".step").nth(1);
    await more.click();
    assert.equal(await fields(page).first().inputValue(), "1");
    await more.hover();
    await page.mouse.down();
    await page.waitForFunction(() => Number(document.querySelector("#allocation input[type=text]").value) >= 5);
    await page.mouse.up();
    const held = await fields(page).first().inputValue();
    await more.click();
    assert.equal(Number(await fields(page).first().inputValue()), Number(held) + 1);
  });
});

test("each fault has its sentence, and nothing typed is lost", async () => {
  const cases = [
    [["abc"], /write a number/], [["101"], /from 0 to 100/], [["-1"], /from 0 to 100/], [["33.333"], /two decimals/],
    [["40", "35.5"], /still have 24\.5\s*%/], [["70", "50"], /120\s*%/],
  ];
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await waitForScript(page);
    for (const [texts, sentence] of cases) {
      for (let index = 0; index < 2; index += 1) await fields(page).nth(index).fill(texts[index] ?? "");
      await page.locator("#send").click();
      assert.match(await page.locator("#fault-summary").innerText(), sentence);
      assert.equal(await page.evaluate(() => document.activeElement.id), "fault-summary");
      assert.match(await page.title(), /^Error:/);
      assert.equal(await fields(page).nth(0).inputValue(), texts[0]);
    }
    await fields(page).nth(0).fill("x");
    await page.locator("#send").click();
    assert.equal(await fields(page).nth(0).getAttribute("aria-invalid"), "true");
    assert.match(await page.locator("#allocation .error").first().innerText(), /write a number/);
    await page.locator("#fault-summary a").first().click();
    assert.ok(await fields(page).nth(0).evaluate((input) => input === document.activeElement));
    await fields(page).nth(0).fill("100");
    await fields(page).nth(1).fill("");
    assert.equal(await page.locator("#fault-summary").isVisible(), false);
    assert.doesNotMatch(await page.title(), /^Error:/);
  });
});

test("an answer is changed and withdrawn in the same page, as one person", async () => {
  const before = await parts.allocator.aggregate("taxes");
  await withPage(parts.browser, { viewport: DESKTOP }, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await answer(page);
    await waitUntilCounted(page);
    const first = await receiptOf(page);
    assert.equal((await parts.allocator.aggregate("taxes")).people, before.people + 1);

    await page.getByRole("button", { name: "Change", exact: true }).click();
    assert.equal(await sumOfFields(page), 10_000);
    await page.locator("details.more > summary").click();
    await page.getByRole("button", { name: "Start again" }).click();
    await fields(page).nth(2).fill("100");
    await page.locator("#send").click();
    await page.waitForFunction((receipt) => document.querySelector("#receipt code")?.textContent !== receipt && document.querySelector("#receipt[data-step=counted]"), first);
    assert.match(await page.locator(".earlier").innerText(), new RegExp(first.replace(".", "\\.")));
    assert.equal((await parts.allocator.aggregate("taxes")).people, before.people + 1);

    await page.reload();
    await waitUntilCounted(page);
    assert.equal(await page.locator("#allocation").isVisible(), false, "whoever took part sees the own answer");
    await page.getByRole("button", { name: "Withdraw" }).click();
    assert.equal(await page.evaluate(() => document.activeElement.className), "question");
    await page.getByRole("button", { name: "Yes, withdraw" }).click();
    await waitUntilCounted(page);
    assert.equal((await parts.allocator.aggregate("taxes")).people, before.people);
    await page.getByRole("button", { name: "Answer again" }).click();
    assert.ok(await page.locator("#send").isVisible());
  });
});

test("without what scripts keep, the cookie still shows the own answer", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await answer(page);
    await waitUntilCounted(page);
    await page.evaluate(() => localStorage.clear());
    await page.reload();
    await waitUntilCounted(page);
    assert.equal(await page.locator("#allocation").isVisible(), false);
  });
});

test("whoever sends an unfinished answer mends it with one press and sends it with the next", async () => {
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(`${parts.allocator.url}/budgets/taxes`);
    await waitForScript(page);
    await fillFields(page, ROUGH);
    await page.locator("#send").click();
    await screenshot(page, "phone-unfinished");
    await page.locator("#fault-summary").getByRole("button", { name: "Scale to 100" }).click();
    assert.equal(await sumOfFields(page), 10_000);
    assert.equal(await page.locator("#fault-summary").isVisible(), false);
    assert.equal(await page.evaluate(() => document.activeElement.id), "send");
    await page.keyboard.press("Enter");
    await waitUntilCounted(page);
  });
});
