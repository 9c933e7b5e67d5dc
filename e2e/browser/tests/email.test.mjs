// Signing in with a one-time code by e-mail: by HTML alone, and from the page's script to the same forms.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { until } from "../support/allocator.mjs";
import { checkAccessibility, withPage } from "../support/browser.mjs";
import { MailServer } from "../support/mail.mjs";
import { suite } from "../support/suite.mjs";
import { fields, waitForScript } from "../support/task.mjs";

let mails;
const parts = suite(async () => {
  mails = await MailServer.start();
  return [`email.smtp_url=${mails.url}`, "email.from=Town <noreply@town.example>"];
});
after(() => mails?.stop());

const people = async (budget) => (await parts.allocator.aggregate(budget)).people;

/** Asks for a code on a page that has the form, and returns it. */
async function askForCode(page, address, number) {
  await page.locator("#email").fill(address);
  await page.locator("#email-address button").click();
  await page.locator("#otp").waitFor();
  return mails.code(number);
}

test("without a script: address, wrong code, code, answer, and signing out", async () => {
  const url = await parts.allocator.putBudget("region", { identity: "email" });
  await withPage(parts.browser, { javaScriptEnabled: false }, async (page) => {
    await page.goto(`${url}/confirm?c.parks=60&c.roads=40`);
    assert.equal(await page.getByRole("button", { name: "Send", exact: true }).count(), 0);
    const code = await askForCode(page, "Zebra+x@example.org", 1);
    assert.match(await page.locator(".notice").innerText(), /If zebra@example\.org may take part/);

    await page.locator("#otp").fill(code === "000000" ? "111111" : "000000");
    await page.locator("#one-time-code button").click();
    await page.locator("#otp[aria-invalid=true]").waitFor();
    assert.match(await page.locator("#e-otp").innerText(), /not right/);
    assert.match(page.url(), /c\.parks=60/);
    assert.doesNotMatch(page.url(), /zebra|otp=/);

    await page.locator("#otp").fill(`${code.slice(0, 3)} ${code.slice(3)}`);
    await page.locator("#one-time-code button").click();
    await page.locator("#confirm button.send").click();
    await page.waitForURL(/\/mine/);
    await until("the answer is counted", async () => (await people("region")) === 1);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.locator("#email").waitFor();
    assert.deepEqual(await page.context().cookies(), []);

    // Later, at another browser: the same person.
    const again = await askForCode(page, "zebra@EXAMPLE.org", 2);
    await page.locator("#otp").fill(again);
    await page.locator("#one-time-code button").click();
    await page.getByText("Parks: 60").waitFor();
  });
});

test("the script leads to the same forms, and keeps the values", async () => {
  const url = await parts.allocator.putBudget("newsroom", { identity: "email" });
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(url);
    await waitForScript(page);
    await fields(page).nth(1).fill("100");
    await page.locator("#send").click();
    await page.waitForURL(/\/confirm/);
    await checkAccessibility(page, "the form for an address");
    const code = await askForCode(page, "okapi@example.org", 3);
    await checkAccessibility(page, "the form for a code");
    await page.locator("#otp").fill("12");
    await page.locator("#one-time-code button").click();
    await page.locator("#otp[aria-invalid=true]").waitFor();
    await checkAccessibility(page, "a wrong code");
    await page.locator("#otp").fill(code);
    await page.locator("#one-time-code button").click();
    await page.locator("#confirm button.send").click();
    await page.waitForURL(/\/mine/);
    await until("the answer is counted", async () => (await people("newsroom")) === 1);
  });
});
